"""What a resume may change, what it needs, and what it records."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sleep_lightning.config import Experiment, Override
from sleep_lightning.config.values import NAMES, flatten, parse_change
from sleep_lightning.runs.checkpoint import RESUME, copying, is_readable, load_checkpoint
from sleep_lightning.runs.damage import read_json
from sleep_lightning.runs.directory import SAVED, RunDirectory
from sleep_lightning.runs.files import write_json

Sections = Mapping[str, Any]
CHANGEABLE = frozenset(
    {"max_steps", "val_every", "checkpoint_every", "log_every", "callbacks", "search_path"}
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
    found = differing(saved.to_dict(), wanted.to_dict())
    for key, (old, new) in found.items():
        if not _changeable(key):
            raise ValueError(
                f"{key}={new!r}: this run was begun with {old!r}, and a resume cannot change it; drop it, or start a "
                f"new run (a resume may change {', '.join(f'training.{one}' for one in _NAMED)} and where it runs)"
            )
    return found


def _changeable(key: str) -> bool:
    section, _, name = key.partition(".")
    return key in ELSEWHERE or (section == "training" and name in CHANGEABLE)


def check_same_kind(trained: Sections, overrides: Sequence[Override], what: str) -> None:
    """Before the changes are tried, as those of another task or model fail at the first key that it has not.

    Args:
        trained: the experiment of a run or checkpoint.
        overrides: changes of it.
        what: the run or checkpoint.

    Raises:
        ValueError: they name another task or model than was trained.
    """
    before = flatten(trained)
    for key, value, _ in map(parse_change, overrides):
        if key in NAMES and value != before.get(key):
            section = key.partition(".")[0]
            was = next((f"{one}={before[one]}" for one in NAMES if one.startswith(section) and one in before), None)
            raise ValueError(
                f"{key}={value}: {what} was trained with {was or 'the hybrid model'}, and another {section} is another "
                f"run; drop it, or train one with fit {key}={value}"
            )


def differing(one: Sections, other: Sections) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ between two experiments' ``to_dict``, with both values, tracking aside; None: no key."""
    before, after = _keys(one), _keys(other)
    return {k: (before.get(k), after.get(k)) for k in before | after if before.get(k) != after.get(k)}


def _keys(sections: Sections) -> dict[str, Any]:
    return flatten({name: keys for name, keys in sections.items() if name != "tracking"})


def checkpoint_to_resume(run: RunDirectory, saved: Experiment, max_steps: int) -> tuple[Path | None, int]:
    """``last.ckpt`` and its step; None and 0 for a run that ended before it saved any, which begins again.

    Raises:
        ValueError: it cannot be resumed from, or the run must have had one and it is gone.
    """
    if os.path.lexists(run.last):
        checkpoint = load_checkpoint(run.last, RESUME)
        _check_own(run.last, checkpoint, saved)
        if (step := checkpoint["global_step"]) > max_steps:
            raise ValueError(f"training.max_steps={max_steps}: the run has trained {step} steps; give more, or drop it")
        return run.last, step
    usable = is_readable(run.best, RESUME)
    trained = max((int(one.get("step", 0)) for one in run.recorded().get("sessions", [])), default=0)
    if usable:
        trained = max(trained, load_checkpoint(run.best)["global_step"])
    had_one = os.path.exists(run.checkpoints / SAVED) or os.path.exists(run.summary)
    if not had_one and trained < saved.training.checkpoint_every:
        return None, 0
    offer = f"resume from its best one: {copying(run.best, run.last)}" if usable else "start a new run"
    raise ValueError(f"{run.last} is missing, though the run has saved it; {offer}")


def _check_own(file: Path, checkpoint: dict[str, Any], saved: Experiment) -> None:
    """Refuse a checkpoint of another run."""
    theirs = _keys(checkpoint["experiment"])
    for key, (old, new) in differing(checkpoint["experiment"], saved.to_dict()).items():
        if key in theirs and not _changeable(key) and key != "training.run_dir":
            raise ValueError(
                f"{file} is of another run: {key} is {old!r}, in config.yaml {new!r}; restore the run's own"
            )


def record_session(
    run: RunDirectory, step: int, max_steps: int, changed: Mapping[str, tuple[Any, Any]], environment: Mapping[str, str]
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
    summary = read_json(run.summary, {}, "remove it: it is written again") if run.summary.exists() else {}
    if summary.get("steps", max_steps) < max_steps:  # it is not finished any more
        write_json(run.summary, {**summary, "status": "KILLED"})
    shared = (before.keys() & environment.keys()) - UNROUNDED
    return [f"{k} {before[k]} -> {environment[k]}" for k in sorted(shared) if before[k] != environment[k]]
