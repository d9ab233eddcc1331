"""What a resume may change, what it needs, and what it records."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sleep_lightning.config import Experiment
from sleep_lightning.runs.damage import NUMBER, read_json
from sleep_lightning.runs.directory import RunDirectory, load_checkpoint
from sleep_lightning.runs.files import write_json

CHANGEABLE = frozenset(
    {"max_steps", "val_every", "checkpoint_every", "log_every", "callbacks", "search_path", "run_dir"}
    | {"accelerator", "devices", "num_nodes", "sharding", "reshard_after_forward", "threads", "allocator"}
    | {"accumulate", "checkpointing", "executor", "precision", "fp32_matmul", "compile", "cuda_graph"}
    | {"time_limit", "time_margin", "requeue"}
)
"""Keys of ``training`` that take effect in a resumed run. The others would have none, or make it another run."""
ELSEWHERE = frozenset({"model.backend", "task.jsonl"})
"""Keys of other sections that may change, besides all of ``tracking``: the kernel, and where data lie."""
UNROUNDED = frozenset({"python", "lightning", "omegaconf", "mlflow", "git_commit", "allocator"})
"""Facts of the environment that do not decide how a step rounds."""
_NAMED = ("max_steps", "val_every", "checkpoint_every")


def changes(saved: Experiment, wanted: Experiment) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, with both values, tracking aside.

    Raises:
        ValueError: one that a resume cannot change.
    """
    before, after = _flat(saved.to_dict()), _flat(wanted.to_dict())
    found = {k: (before.get(k), after.get(k)) for k in before | after if before.get(k) != after.get(k)}
    for key, (old, new) in found.items():
        section, _, name = key.partition(".")
        if not (key in ELSEWHERE or (section == "training" and name in CHANGEABLE)):
            raise ValueError(
                f"{key}={new!r}: this run was begun with {old!r}, and a resume cannot change it; drop it, or start a "
                f"new run (a resume may change {', '.join(f'training.{one}' for one in _NAMED)} and where it runs)"
            )
    return found


def _flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    kept = {name: keys for name, keys in sections.items() if name != "tracking"}
    return {f"{name}.{key}": value for name, keys in kept.items() for key, value in keys.items()}


def checkpoint_to_resume(run: RunDirectory, checkpoint_every: int) -> Path | None:
    """``last.ckpt``; None for a run that ended before it saved any, which begins again.

    Args:
        run: to resume.
        checkpoint_every: steps between its checkpoints.

    Raises:
        ValueError: it cannot be read, or the run must have had one and it is gone.
    """
    if run.last.exists():
        load_checkpoint(run.last)
        return run.last
    remedy = "remove it: it is written again"
    like = {"history": [{"step": NUMBER}]}
    rows = read_json(run.history, like, remedy)["history"] if run.history.exists() else []
    trained = max((int(row["step"]) for row in rows), default=0)
    if run.best.exists():
        trained = max(trained, int(load_checkpoint(run.best)["global_step"]))
    if trained < checkpoint_every and not run.summary.exists():
        return None
    offer = f"resume from its best one: cp {run.best} {run.last}" if run.best.exists() else "start a new run"
    raise ValueError(f"{run.last} is missing, though the run trained for {trained} steps; {offer}")


def record_session(
    run: RunDirectory, step: int, changed: Mapping[str, tuple[Any, Any]], environment: Mapping[str, str]
) -> list[str]:
    """Add a start or resume to ``run.json``: when, at which step, on what, and what it changed.

    Returns:
        Facts that decide how a step rounds and differ from the session before, as ``threads 2 -> 1``.
    """
    content = run.recorded()
    sessions: list[dict[str, Any]] = content.get("sessions", [])
    before = sessions[-1]["environment"] if sessions else {}
    now = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    sessions.append({"started": now, "step": step, "changes": changed, "environment": environment})
    write_json(run.record, {**content, "sessions": sessions})
    shared = (before.keys() & environment.keys()) - UNROUNDED
    return [f"{k} {before[k]} -> {environment[k]}" for k in sorted(shared) if before[k] != environment[k]]
