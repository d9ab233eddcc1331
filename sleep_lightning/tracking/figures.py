"""Pictures of a run. matplotlib is imported at the first one."""

from pathlib import Path


def draw_learning_curve(history: list[dict[str, float]], path: Path, title: str) -> None:
    """Exact match and token accuracy against training FLOPs, with the majority baselines as dashed lines (PNG).

    Args:
        history: one dict a validation, with ``cost/train_flops`` and the names of ``Score.as_metrics``.
        path: file to write.
        title: what was trained.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    flops = [row["cost/train_flops"] for row in history]
    lines = (("exact_match", "majority_exact_match", "C0"), ("token_accuracy", "majority_token_accuracy", "C1"))
    for metric, baseline, color in lines:
        axes.plot(flops, [row[metric] for row in history], color=color, marker="o", label=metric.replace("_", " "))
        level = history[-1][baseline]
        axes.axhline(level, color=color, linestyle="--", label=f"{baseline.replace('_', ' ')} {level:.3f}")
    axes.set(xlabel="training FLOPs", ylabel="validation accuracy", ylim=(0, 1.02), title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="center right")
    figure.savefig(path, dpi=120)
