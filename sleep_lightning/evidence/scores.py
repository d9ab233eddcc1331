"""Scores of the final weights of a sweep's runs, as rows of a table from which all results are derived.

The test split is scored where the weights are. A run taken from records has none: its last validation counts, on
sequences that no training saw, but by which the rates of each N were chosen (with other training seeds).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleep_lightning.compare.table import SCORE, final_scores
from sleep_lightning.model.parameter_groups import counted_parameters
from sleep_lightning.runs.damage import Each, read_json
from sleep_lightning.runs.process import RESTORED, FitProcess
from sleep_lightning.sweep.cells import ALL as ALL
from sleep_lightning.sweep.folder import load_saved
from sleep_lightning.sweep.report.content import read_report
from sleep_lightning.sweep.share import whole_name
from sleep_lightning.sweep.trial import build_trial

TEST, VALIDATION = "test", "validation"
REMEDY = "remove its run directory and rerun the command"


@dataclass(frozen=True)
class RunScore:
    """A finished run's score on a slice of held-out sequences.

    Attributes:
        sweep: name of the sweep.
        level: value of the key that varies in it.
        seed: training seed.
        train_passes, test_passes: N at training and at test.
        split: of the data: ``test``, or ``validation`` of a run whose weights are not here.
        slice: ``all``, or a difficulty (``hop_3``).
        answers: number of answers scored.
        exact_match, token_accuracy, loss: as in ``training.metrics.Score``.
        majority, uniform: exact match of the baselines that ignore the evidence, on the same answers.
        steps, tokens, train_flops, parameters: of the run.
        wall_s: seconds of the run, on a machine that may have been shared.
        memory_bytes: of the fast weights of a sequence; 0 if it is not known, as in older tables.
        cpu: of the machine; empty likewise.
    """

    sweep: str
    level: str
    seed: int
    train_passes: int
    test_passes: int
    split: str
    slice: str
    answers: int
    exact_match: float
    token_accuracy: float
    loss: float
    majority: float
    uniform: float
    steps: int
    tokens: int
    train_flops: float
    parameters: int
    wall_s: float
    memory_bytes: int = 0
    cpu: str = ""


def split_of(rows: Iterable[RunScore]) -> str:
    """What the rows are scored on, for a page."""
    by_level = dict[tuple[str, str], dict[int, str]]()
    for row in rows:
        by_level.setdefault((row.sweep, row.level), {})[row.seed] = row.split
    parts = []
    for sweep in dict.fromkeys(sweep for sweep, _ in by_level):
        splits = {level: list(of_seed.values()) for (name, level), of_seed in by_level.items() if name == sweep}
        counts = {level: (x.count(VALIDATION), len(x)) for level, x in splits.items() if VALIDATION in x}
        whole = len(counts) == len(splits) and all(n == total for n, total in counts.values())
        said = ", ".join(f"{n} of {total} seeds of {level}" for level, (n, total) in counts.items())
        parts += [f"{sweep}: {'all' if whole else said}"] if counts else []
    tuned = "on the validation split, on which rates were tuned with other training seeds"
    note = f" (runs taken from records without their weights {tuned}: {'; '.join(parts)})" if parts else ""
    return f"the test split{note}"


@dataclass(frozen=True)
class FinishedRun:
    """A run with a result, and its place in the sweep."""

    sweep: str
    level: str
    seed: int
    process: FitProcess

    @property
    def restored(self) -> bool:
        """It was taken from records, which hold no weights."""
        return RESTORED in (self.process.summary or {})


def finished_runs(folder: Path) -> list[FinishedRun]:
    """All runs of the sweep's finished trials (every seed has a result), in order of its values and seeds.

    Raises:
        ValueError: the folder holds no sweep, or a sweep in which several keys vary.
    """
    sweep, report = load_saved(folder), read_report(folder)
    if len(sweep.space.parameters) != 1:
        raise ValueError(
            f"{folder}: {len(sweep.space.parameters)} keys vary; results are derived from sweeps over one key"
        )
    (key,) = sweep.space.parameters
    ended = [trial for trial in report.trials if trial.state == "complete"]
    order = {str(value): i for i, value in enumerate(sweep.space.grid()[key])}
    found = []
    for trial in sorted(ended, key=lambda trial: order[str(trial.values[key])]):
        runs = build_trial(sweep, trial.number, trial.values, folder).runs
        level = str(trial.values[key]).partition(":")[0].strip("[]")  # an arm's name, without its changes
        name = whole_name(sweep.spec.name)
        found += [FinishedRun(name, level, s, r) for s, r in zip(sweep.spec.seeds, runs, strict=True)]
    return found


def score_run(run: FinishedRun, test_passes: Sequence[int] = ()) -> list[RunScore]:
    """A row per slice with the N of the training, then with each of ``test_passes``; cached in the run directory.
    Without weights only the last validation, with the N of the training."""
    summary, own = run.process.summary, run.process.experiment.sleep.n_passes
    assert summary is not None, "only finished runs are scored"
    rows = []
    weights = not run.restored
    for n_passes in dict.fromkeys([own, *test_passes]) if weights else (own,):
        tested = final_scores(run.process.directory, n_passes, summary["steps"]) if weights else _validated(run)
        for name, score in tested["scores"].items():
            rows.append(
                RunScore(
                    sweep=run.sweep,
                    level=run.level,
                    seed=run.seed,
                    train_passes=own,
                    test_passes=n_passes,
                    split=TEST if weights else VALIDATION,
                    slice=name,
                    **{key: score[key] for key in ("answers", "exact_match", "token_accuracy", "loss")},
                    majority=score["baselines"]["majority_exact_match"],
                    uniform=score["baselines"]["uniform_exact_match"],
                    **{key: summary[key] for key in ("steps", "tokens", "train_flops")},
                    wall_s=round(summary["wall_s"], 1),
                    parameters=tested["parameters"],
                    memory_bytes=sum(summary.get("state_bytes", ())),
                    cpu=summary.get("environment", {}).get("cpu", ""),
                )
            )
    return rows


def _validated(run: FinishedRun) -> dict[str, Any]:
    """The last validation, as ``final_scores`` gives a test."""
    experiment, summary = run.process.experiment, run.process.directory.summary
    task = experiment.task.build()
    with torch.device("meta"):
        parameters = counted_parameters(experiment.build_model(task))[0]
    return {"parameters": parameters, "scores": read_json(summary, {"slices": Each(SCORE)}, REMEDY)["slices"]}
