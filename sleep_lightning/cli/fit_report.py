"""What ``fit`` reports at its end: ``summary.json``, MLflow, and the lines on the screen."""

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.cli.console import measured_line, warning
from sleep_lightning.config import Experiment
from sleep_lightning.cost.step_memory import predict_process_memory
from sleep_lightning.formatting import in_bytes, in_flop, with_unit
from sleep_lightning.model import ModelConfig
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status, sync_command
from sleep_lightning.tracking.mlflow_views import ViewPage
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.resource_usage import MEASURED


def headline(experiment: Experiment, module: SleepModule) -> str:
    s, m = experiment.sleep, experiment.model
    return (
        f"{experiment.task.name}, {m.described} ({with_unit(sum(p.numel() for p in module.parameters()))} "
        f"parameters), windows of {s.window_size}, N={s.n_passes}"
    )


def summarize(
    experiment: Experiment,
    run: RunDirectory,
    module: SleepModule,
    monitor: ResourceMonitor,
    digests: dict[str, str],
    status: Status,
    environment: dict[str, str],
    logger: MLflowRun | None,
    logged: Mapping[str, float],
) -> dict[str, Any]:
    """What ``summary.json`` holds."""
    score, cost, measured = module.scores["all"], monitor.cost_so_far(), monitor.measured()
    return {
        "status": status,
        "steps": module.steps,
        "answers": score.answers,
        "exact_match": score.exact_match,
        "exact_match_se": score.exact_match_se,
        "token_accuracy": score.token_accuracy,
        "loss": score.loss,
        "majority_baseline": score.baselines.majority_exact_match,
        "uniform_baseline": score.baselines.uniform_exact_match,
        "majority_token_baseline": score.baselines.majority_token_accuracy,
        "metrics": dict(logged),
        "slices": {name: asdict(s) for name, s in module.scores.items()},
        "tokens": int(cost["cost/tokens"]),
        "train_flops": int(cost["cost/train_flops"]),
        "wall_s": round(measured["wall_s"], 2),
        "measured": {name: measured.get(name) for name in MEASURED},
        "predicted": {
            "train_flops": monitor.predicted_run_flops(),
            "step_memory_bytes": (tensors := monitor.predicted_step_memory),
            "step_process_bytes": predict_process_memory(experiment, module.model, tensors)
            if tensors is not None and module.device.type == "cpu"
            else None,
        },
        "checkpoint": str(run.last),
        "best_checkpoint": str(run.best) if run.best.exists() else None,
        "mlflow_run_id": None if logger is None else logger.run_id,
        "state_bytes": _state_bytes(module),
        "data_digests": digests,
        "seed": experiment.training.seed,
        "environment": environment,
    }


def _state_bytes(module: SleepModule) -> list[int]:
    """Bytes of one sequence's memory in each layer that writes: state, and convolution inputs if carried."""
    memory = module.model.zero_memory(1, carry_conv_state=module.experiment.sleep.carry_conv_state)
    states = [x.nbytes for x in memory.states]
    return [n + x.nbytes for n, x in zip(states, memory.conv, strict=True)] if memory.conv else states


def log_results(logger: MLflowRun, run: RunDirectory, experiment: Experiment, summary: dict[str, Any]) -> None:
    """Send the files of a run's end to MLflow."""
    logger.log_artifact(run.summary)  # about to be written
    if (picture := run.path / "learning_curve.png").exists():
        logger.log_artifact(picture)
    if run.best.exists() and run.best.stat().st_size <= experiment.tracking.checkpoint_mb * 1e6:
        logger.log_artifact(run.best, "checkpoints")
    logger.set_tags({"environment.energy": summary["environment"]["energy"]})


def facts_of(
    experiment: Experiment, run: RunDirectory, summary: dict[str, Any], page: ViewPage | None
) -> dict[str, str]:
    directory = shlex.quote(str(run.path))
    facts = warning([Accuracy.of_summary(summary)])
    facts |= {
        "trained": f"{summary['steps']} steps, {with_unit(summary['tokens'])} tokens, "
        f"{in_flop(summary['train_flops'])}, {summary['wall_s']:.0f} s",
        "measured": measured_line(summary["measured"], summary["predicted"]),
        "checkpoint": summary["checkpoint"],
    }
    if layers := summary["state_bytes"]:
        facts["memory"] = f"{in_bytes(sum(layers))} a sequence, in {len(layers)} layers"
        if isinstance(experiment.model, ModelConfig):
            facts["memory"] += f" of {experiment.model.pattern}"
    if (picture := run.path / "learning_curve.png").exists():
        facts["picture"] = str(picture)
    if experiment.tracking.mlflow:
        facts["MLflow"] = (
            f"no run yet, as the store could not be reached; send it: {sync_command(run.path)}"
            if page is None
            else f"run {summary['mlflow_run_id']}; all runs: {page}"
        )
    if summary["status"] == "KILLED":
        facts["resume"] = f"python -m sleep_lightning fit --resume {directory}"
    else:
        facts["next"] = f"python -m sleep_lightning test --checkpoint {directory}"
    return facts
