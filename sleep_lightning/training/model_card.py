"""A run's model with its card: what it was trained on and how, what it scores, where it ends."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from sleep_lightning.config import Experiment
from sleep_lightning.config.plugins import import_path
from sleep_lightning.formatting import in_bytes, with_unit
from sleep_lightning.model import WindowModel
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.model_folder import model_folder, write_model_folder
from sleep_lightning.sleep import zero_memory
from sleep_lightning.tasks import TASKS, Split
from sleep_lightning.training.evaluation import score_split
from sleep_lightning.training.metrics import Score

SPLIT: Split = "test"


def export_folder(folder: Path, checkpoint: str, experiment: Experiment, model: WindowModel) -> None:
    """Score a model of ``load_trained`` on the test split and write it with its card (``runs.model_folder``).

    Args:
        folder: new or empty.
        checkpoint: what it was loaded from: its counters go onto the card.
        experiment, model: from ``load_trained``.
    """
    counters = {} if model_folder(checkpoint) else load_checkpoint(checkpoint)
    card = model_card(folder.name, experiment, model, score_split(experiment, model, SPLIT), counters)
    write_model_folder(folder, experiment, model, card)  # type: ignore[arg-type]


def model_card(
    name: str, experiment: Experiment, model: WindowModel, scores: Mapping[str, Score], counters: Mapping[str, Any]
) -> str:
    """Markdown.

    Args:
        name: of the model.
        experiment: that it was trained in.
        model: with its weights.
        scores: by slice, on the test split.
        counters: ``global_step``, ``train_tokens`` and ``train_flops`` as far as they are known.
    """
    e, task = experiment, experiment.task.build()
    generated = import_path(type(e.task)) in TASKS.values() and not getattr(e.task, "files", {})
    apart = " No evidence of the test split is in a training batch." if generated else ""
    state = in_bytes(zero_memory(model, 1, e.sleep).nbytes)
    units = {"global_step": "steps", "train_tokens": "tokens", "train_flops": "FLOP"}
    facts = [_counted(counters[key], unit) for key, unit in units.items() if key in counters]
    sections = e.pinned().to_dict()
    recipe = {k: v for k, v in sections["training"].items() if k not in ("run_dir", "search_path")}
    rows = [
        f"| {slice_} | {s.answers} | {s.exact_match:.4f} ± {s.exact_match_se:.4f} | "
        f"{s.baselines.majority_exact_match:.4f} | {s.baselines.uniform_exact_match:.4f} |"
        for slice_, s in scores.items()
    ]
    return "\n".join(
        [
            "---",
            "library_name: sleep-lightning",
            "tags: [sleep-time-consolidation]",
            "---",
            f"# {name}",
            "",
            f"{e.model.described}, {sum(p.numel() for p in model.parameters()):,} parameters, trained from scratch on "
            f"the task `{e.task.name}`. Windows of L = {e.sleep.window_size} tokens, N = {e.sleep.n_passes} passes "
            f"over each before it is evicted; what is left of all that was read is {state} a sequence.",
            "",
            "```bash",
            f"python -m sleep_lightning chat --checkpoint {name}",
            "```",
            "",
            "## Data",
            "",
            f"{'Generated; a' if generated else 'A'} vocabulary of {len(task.vocab)} tokens, {task.context_length} "
            f"tokens of evidence, {task.sequence_length - task.context_length} of questions and answers.{apart}",
            "",
            *_yaml(sections["task"]),
            "## Recipe",
            "",
            f"Seed {e.training.seed}, one run" + (f": {', '.join(facts)}." if facts else "."),
            "",
            *_yaml({"sleep": sections["sleep"], "training": recipe}),
            "## Scores",
            "",
            f"The {SPLIT} split, N = {e.sleep.n_passes}; exact match of an answer, beside what ignoring the evidence "
            f"scores.",
            "",
            "| slice | answers | exact match | majority | uniform |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "## Limits",
            "",
            "It does this task and nothing else: it knows only the tokens of its vocabulary. The scores hold for "
            "sequences drawn as in training; longer ones, harder ones, and another L or N are beyond what it has "
            "learned. One seed says nothing about others.",
            "",
        ]
    )


def _counted(n: float, unit: str) -> str:
    return with_unit(n, unit) if unit == "FLOP" else f"{with_unit(n)} {unit}"


def _yaml(content: Any) -> list[str]:
    return ["```yaml", OmegaConf.to_yaml(OmegaConf.create(content)).rstrip(), "```", ""]
