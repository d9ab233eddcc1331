"""kill -9 of a sweep and a comparison at random moments: nothing finished is lost, and nothing is trained twice."""

import random
import time
from collections.abc import Callable
from contextlib import closing
from itertools import pairwise
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from optuna.trial import TrialState

from sleep_lightning.sweep.study import read_study
from tests.chaos.conftest import Figures
from tests.chaos.forked import start
from tests.cli.cli import ROOT
from tests.sweep import stand_in
from tests.sweep.test_supervisor import workers

pytestmark = [pytest.mark.process, pytest.mark.long]
SEEDS = [0, 1]


def disturb(begin: Callable[[], BaseProcess], folder: Path, kills: int, seed: int) -> int:
    """Kill what trains, its runs or both, so many times; then let it finish. Returns the kills that met something."""
    dice, done, process, deadline = random.Random(seed), 0, begin(), time.monotonic() + 600
    while process.is_alive():
        assert time.monotonic() < deadline
        process.join(dice.uniform(0.05, 0.5))
        if not process.is_alive() or done == kills:
            continue
        if (target := dice.choice(["supervisor", "run", "both"])) != "supervisor":
            found = workers(folder)[: 1 if target == "run" else None]
            for one in found:
                one.kill()
            done += bool(found)
        if target != "run":
            done += 1
            process.kill()
            process.join(30)
            process = begin()
    assert process.exitcode == 0
    return done


def trained(run: Path) -> tuple[int, int]:
    """Of a run of stand-ins: steps that are missing, and steps that were repeated without need."""
    steps = list(map(int, (run / "steps").read_text().split()))
    repeated = int((run / "again").exists())
    for before, after in pairwise(steps):
        from_checkpoint = (after - 1) % stand_in.EVERY == 0 and 0 <= before - after < stand_in.EVERY
        repeated += not (after == before + 1 or from_checkpoint)
    return len(set(range(1, stand_in.STEPS + 1)) - set(steps)), repeated


def sums(folder: Path) -> tuple[int, int]:
    """Both, over all runs."""
    found = [trained(file.parent) for file in folder.rglob("steps")]
    return sum(lost for lost, _ in found), sum(twice for _, twice in found)


def test_a_sweep_counts_exactly_after_kills(tmp_path: Path, kills: int, figures: Figures) -> None:
    trials = max(4, kills)
    done = disturb(
        lambda: start(tmp_path, stand_in.supervise, tmp_path / "sweep", trials, 2, {"seeds": SEEDS}),
        tmp_path,
        kills,
        seed=0,
    )
    found = read_study(tmp_path / "sweep").get_trials()
    complete = [trial.number for trial in found if trial.state == TrialState.COMPLETE]
    lost, twice = sums(tmp_path)
    lost += trials - len(complete)
    twice += len(found) - trials
    figures(kills=done, trials=len(complete), lost=lost, duplicated=twice)
    assert done and len(list(tmp_path.rglob("summary.json"))) == trials * len(SEEDS)
    assert not lost and not twice and not workers(tmp_path)


def compare_stand_ins(folder: Path, seeds: int) -> None:
    """``compare`` of two arms, without its table."""
    from sleep_lightning.compare import runs
    from sleep_lightning.compare.arms import build_arms
    from sleep_lightning.config import load_experiment
    from sleep_lightning.runs.directory import RunDirectory
    from sleep_lightning.runs.signals import SignalsInterrupt

    stand_in.stand_for_fit()
    runs._check_same = lambda run: None  # type: ignore[assignment]  # a stand-in's config.yaml is empty
    base = load_experiment(ROOT / "conf" / "depo.yaml", ["tracking.enabled=false"])
    folder.mkdir(exist_ok=True)
    with SignalsInterrupt(), RunDirectory(folder).lock():
        planned = runs.plan_runs(base, build_arms(base, ["n1", "n2"]), [*range(seeds)], folder)
        with closing(runs.execute(planned, 2, 1)) as looks:
            for _ in looks:
                pass


def test_a_comparison_has_each_run_once_after_kills(tmp_path: Path, kills: int, figures: Figures) -> None:
    seeds = max(3, kills)
    done = disturb(lambda: start(tmp_path, compare_stand_ins, tmp_path / "out", seeds), tmp_path, kills, seed=1)
    lost, twice = sums(tmp_path)
    finished = len(list(tmp_path.rglob("summary.json")))
    lost += 2 * seeds - finished
    figures(kills=done, runs=finished, lost=lost, duplicated=twice)
    assert done and not lost and not twice and not workers(tmp_path)
