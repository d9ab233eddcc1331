"""What a trial of a sweep and a validation of a run cost, where there are already many."""

import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.trial import TrialState, create_trial

from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.history import HistoryFile, append_to_history, write_history
from sleep_lightning.sweep.report.content import read_report
from sleep_lightning.sweep.report.files import write_report
from sleep_lightning.sweep.space import Parameter, Space
from sleep_lightning.sweep.spec import Sweep, SweepSpec
from sleep_lightning.sweep.study import open_study
from sleep_lightning.sweep.trial import run_path

SIZES = (100, 1_000, 10_000)
VALIDATIONS = 20
"""Of each recorded trial."""
TOLD = 20
"""Trials that are timed behind those that are there."""
Seconds = NDArray[np.float64]
"""Wall time, and CPU time of this process."""


def bench_scale(sizes: tuple[int, ...] = SIZES) -> Iterator[dict[str, object]]:
    """Rows of microseconds for each trial or validation, with waits for the disk and of CPU alone.

    ``ratio``: of the CPU time to that of the smallest size, 1 where the whole grows with their number. What reads or
    writes a sweep does so for all its trials at once.
    """
    first: dict[str, float] = {}
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            for what, taken in (_trials(Path(folder), size) | _validations(Path(folder), size)).items():
                wall, cpu = (float(seconds) for seconds in taken)
                yield {
                    "what": "storage at size",
                    "shape": f"{size} trials of {VALIDATIONS} validations, or as many validations",
                    "contender": what,
                    "us_each": 1e6 * wall,
                    "cpu_us_each": 1e6 * cpu,
                    "ratio": cpu / first.setdefault(what, cpu),
                }


def _trials(folder: Path, size: int) -> dict[str, Seconds]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    parameters = {"sleep.n_passes": Parameter([1, 2, 4]), "training.muon_lr": Parameter(low=1e-4, high=1e-1, log=True)}
    spec = SweepSpec(name="bench", base="-", space=parameters, sampler="random")
    sweep = Sweep(spec, Space(parameters), load_experiment(None, ["tracking.enabled=false"]))
    study = open_study(sweep, folder)
    for i in range(size):
        _record(study, folder, i, sweep.space)
    told = np.array([_seconds(lambda: _tell(study, sweep.space)) for _ in range(TOLD)])
    read = _seconds(lambda: read_report(folder))
    report = read_report(folder)
    return {
        "a trial: ask, 6 attributes, tell": np.median(told, axis=0),
        "sweep list, show, best: read": read / size,
        "sweep report: write": _seconds(lambda: write_report(report, folder)) / size,
    }


def _seconds(call: Callable[[], object]) -> Seconds:
    began = time.perf_counter(), time.process_time()
    call()
    return np.array([time.perf_counter() - began[0], time.process_time() - began[1]])


def _record(study: optuna.Study, folder: Path, number: int, space: Space) -> None:
    """A finished trial, as a supervisor leaves it."""
    flops, exact = 1e9 * (1 + number % 97), 1 - 1 / (2 + number % 89)
    values = {"sleep.n_passes": (1, 2, 4)[number % 3], "training.muon_lr": 1e-4 * (1 + number / 1e4)}
    result = {"exact_match": exact, "token_accuracy": exact, "loss": 1 - exact, "train_flops": flops, "wall_s": 1.0}
    curve = [[flops * i / VALIDATIONS, exact * i / VALIDATIONS] for i in range(1, VALIDATIONS + 1)]
    facts = {"values": values, "train_flops": flops, "flops_spent": flops, "curve": curve, "result": result}
    study.add_trial(
        create_trial(
            state=TrialState.COMPLETE,
            values=[exact, flops],
            params=values,
            distributions={key: parameter.distribution(key) for key, parameter in space.parameters.items()},
            user_attrs={**facts, "exact_match_by_seed": [exact]},
        )
    )
    run = RunDirectory(run_path(folder, number, 0))
    run.path.mkdir(parents=True)
    write_json(run.summary, {"status": "FINISHED", **result})


def _tell(study: optuna.Study, space: Space) -> None:
    trial = study.ask()
    values = space.suggest(trial)
    for i in range(5):
        trial.set_user_attr(f"attribute{i}", [0.5] * 10)
    trial.set_user_attr("values", values)
    study.tell(trial, state=TrialState.FAIL)


def _validations(folder: Path, size: int) -> dict[str, Seconds]:
    path, row = folder / "history.jsonl", {f"cost/measure{i}": i / 7 for i in range(14)}
    reader = HistoryFile(path, "")
    write_history(path, [row | {"step": 0, "exact_match": 0.5, "cost/train_flops": 0.0}])
    appended, read = np.zeros(2), np.zeros(2)
    for step in range(1, size):
        new = row | {"step": step, "exact_match": 0.5, "cost/train_flops": 1e9 * step}
        appended += _seconds(lambda new=new: append_to_history(path, new))  # type: ignore[misc]
        read += _seconds(reader.read)
    whole = _seconds(lambda: HistoryFile(path, "").read())
    return {
        "a validation: append": appended / (size - 1),
        "a validation: read by a sweep": read / (size - 1),
        "all validations: read anew": whole / size,
    }
