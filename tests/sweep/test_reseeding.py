"""Further seeds go where they decide the frontier, and stop once it is decided."""

import sys
from pathlib import Path

import numpy as np
import optuna
import pytest

from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.infrastructure import DIVERGED
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.finished_runs import finished_runs, lost_runs
from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.reseeding import Reseeding
from sleep_lightning.sweep.settled import Seeded, by_one_seed, frontier_intervals, frontier_shares, next_to_seed
from sleep_lightning.sweep.spec import Reseed
from sleep_lightning.sweep.study import finished, open_study
from sleep_lightning.sweep.supervisor import Supervisor
from sleep_lightning.sweep.trial import diverged_flops, run_path
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep


def test_shares_without_and_with_a_second_seed() -> None:
    once = [Seeded(1.0, (0.5,)), Seeded(2.0, (0.4,)), Seeded(3.0, (0.9,))]
    assert frontier_shares(once) == [0.5, 0.0, 0.5]
    sure = [Seeded(1.0, (0.50, 0.51)), Seeded(2.0, (0.40, 0.41)), Seeded(3.0, (0.90, 0.91))]
    assert frontier_shares(sure) == [1.0, 0.0, 1.0]
    assert frontier_shares([]) == []


def test_no_point_is_decided_by_one_seed() -> None:
    """The cheapest, whose two seeds agree, says nothing of the others."""
    points = [Seeded(1.0, (0.130, 0.131)), Seeded(2.0, (0.25,)), Seeded(4.0, (0.90,)), Seeded(8.0, (1.0,))]
    shares = frontier_shares(points)
    assert shares == [1.0, 0.5, 0.5, 0.5]
    assert by_one_seed(points) == [False, True, True, True]
    assert next_to_seed(shares, [1.0, 2.0, 4.0, 8.0], [True] * 4, 0.95) == 1


def test_of_a_single_seed_the_largest_variance_counts() -> None:
    """One that is off the frontier is not decided by the seeds of those on a plateau."""
    from scipy.stats import norm

    plateau, spread = Seeded(2.0, (0.499, 0.501) * 50), Seeded(1.0, (0.0, 0.2))
    share = frontier_shares([spread, plateau, Seeded(3.0, (0.4,))])[2]
    assert share == pytest.approx(norm.sf(0.1 / np.std(spread.values, ddof=1)), abs=0.04)


def test_shares_are_those_of_a_normal_difference() -> None:
    """Two points with the same variance: the dearer one is on the frontier if its mean is the larger one."""
    spread = (-0.1, 0.0, 0.1)
    points = [Seeded(1.0, tuple(0.5 + x for x in spread)), Seeded(2.0, tuple(0.55 + x for x in spread))]
    error = np.sqrt((2 * 0.01 + 0.01) / 3 / 3)  # own sum of squares plus the pooled variance, over n, of a mean
    from scipy.stats import norm

    assert frontier_shares(points) == pytest.approx([1.0, norm.cdf(0.05 / (error * np.sqrt(2)))], abs=0.04)


def test_intervals_are_those_of_the_best_mean_at_a_cost() -> None:
    """Far apart, the dearer point is the best in all resamples, and its interval is that of its own mean."""
    from scipy.stats import norm

    values = (0.4, 0.5, 0.6)
    points = [Seeded(1.0, values), Seeded(2.0, tuple(x + 5 for x in values))]
    error = norm.ppf(0.975) * np.sqrt((2 + 1) / 3 * np.var(values, ddof=1) / 3)
    for (low, high), mean in zip(frontier_intervals(points, [1.0, 2.5]), (0.5, 5.5), strict=True):
        assert (low, high) == pytest.approx((mean - error, mean + error), abs=0.015)
    equal = [Seeded(1.0, values), Seeded(2.0, values)]
    assert frontier_intervals(equal, [2.0])[0][0] > frontier_intervals(equal, [1.0])[0][0]  # the better of two
    assert frontier_intervals([Seeded(1.0, (0.5,))], [1.0]) == frontier_intervals(points, [0.5]) == []
    assert frontier_intervals(points, []) == []


def test_the_least_decided_point_for_its_cost_is_next() -> None:
    assert next_to_seed([1.0, 0.6, 0.5], [1.0, 1.0, 1.0], [True] * 3, 0.95) == 2
    assert next_to_seed([1.0, 0.6, 0.5], [1.0, 1.0, 2.0], [True] * 3, 0.95) == 1
    assert next_to_seed([1.0, 0.6, 0.5], [1.0, 1.0, 2.0], [True, False, False], 0.95) is None
    assert next_to_seed([0.97, 0.03], [1.0, 1.0], [True] * 2, 0.95) is None


DIVERGES = """
import os, sys
open(sys.argv[1] + ".partial", "w").write('{"step": 2, "cost/train_flops": 7e6, "exact_match": 0.1, "answers": 9}\\n')
os.replace(sys.argv[1] + ".partial", sys.argv[1])
raise SystemExit(int(sys.argv[2]))
"""
"""A run that diverges after its first validation."""


def run(folder: Path, values: dict[tuple[int, int], float], **reseed: float) -> tuple[optuna.Study, list[str]]:
    """A sweep over N = 1 to 4 at seed 0 whose runs end with the values of (N, seed)."""

    def begin(self: FitProcess) -> list[str]:
        key = self.experiment.sleep.n_passes, self.experiment.training.seed
        if key not in values:
            return [sys.executable, "-S", "-c", DIVERGES, str(self.directory.history), str(DIVERGED)]
        return [sys.executable, "-S", stand_in.__file__, "fit", str(self.directory.path), str(10 * values[key])]

    sweep = small_sweep(
        trials=4,
        sampler="grid",
        many_points=False,
        space_only_passes=True,
        reseed=Reseed(**reseed),  # type: ignore[arg-type]
    )
    study = open_study(sweep, folder)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("command", "begin_command", "resume_command"):
            patch.setattr(FitProcess, name, begin)
        supervisor = Supervisor(sweep, study, folder)
        for _ in supervisor.run(poll_seconds=0.01):
            pass
    return study, supervisor.events


def seeds_of(folder: Path) -> dict[int, int]:
    """Finished runs by N."""
    report = build_report(
        open_study(small_sweep(sampler="grid", many_points=False, space_only_passes=True), folder), folder
    )
    return {t.values["sleep.n_passes"]: len(t.by_seed["exact_match"]) for t in report.trials}


@pytest.mark.process
def test_a_seed_that_was_stopped_comes_first(tmp_path: Path) -> None:
    study, _ = run(tmp_path, {(n, 0): 0.1 * n for n in range(1, 5)})
    sweep = small_sweep(trials=4, sampler="grid", many_points=False, space_only_passes=True, reseed=Reseed(seeds=3))
    first = Reseeding(sweep, study, tmp_path, []).next([])
    assert first is not None
    other = (first[0].number + 1) % 4
    stopped = run_path(tmp_path, other, 1)
    stopped.mkdir()
    (stopped / "config.yaml").touch()
    scores = dict.fromkeys(("exact_match", "token_accuracy", "loss", "train_flops", "wall_s"), 1.0)
    write_json(stopped / "summary.json", {"status": "KILLED"} | scores)
    found = Reseeding(sweep, study, tmp_path, []).next([])
    assert found is not None
    assert (found[0].number, found[0].runs[0].experiment.training.seed) == (other, 1)
    write_json(stopped / "summary.json", {"status": "FINISHED"} | scores)
    found = Reseeding(sweep, study, tmp_path, []).next([])
    assert found is not None
    assert (found[0].number, found[0].runs[0].experiment.training.seed) != (other, 1)


@pytest.mark.process
def test_points_in_doubt_get_seeds_and_the_others_none(tmp_path: Path) -> None:
    """N = 2 and 3 are close, at costs that rise with N; N = 1 is far below, and N = 4 far above."""
    noise = {0: 0.0, 1: 0.03, 2: -0.03, 3: 0.02, 4: -0.02, 5: 0.01}
    means = {1: 0.1, 2: 0.5, 3: 0.51, 4: 0.9}
    values = {
        (n, seed): mean + (0.3 if (n, seed) == (2, 1) else 1) * x
        for n, mean in means.items()
        for seed, x in noise.items()
    }
    study, events = run(tmp_path, values, seeds=5)
    seeds = seeds_of(tmp_path)
    assert seeds[3] > 1
    assert sum(seeds.values()) > 5
    assert max(seeds.values()) <= 5
    assert any("on the frontier in" in event for event in events)
    assert [len(t.user_attrs["exact_match_by_seed"]) for t in finished(study)] == [1] * 4  # as told
    report = build_report(study, tmp_path)
    three = next(t for t in report.trials if t.values["sleep.n_passes"] == 3)
    expected = [values[3, seed] for seed in range(seeds[3])]
    assert three.by_seed["exact_match"] == pytest.approx(expected)
    assert three.result["exact_match"] == pytest.approx(sum(expected) / len(expected))
    assert three.flops_spent == pytest.approx(seeds[3] * three.result["train_flops"])
    before = seeds
    run(tmp_path, values, seeds=5)  # decided, or all seeds are used: nothing more
    assert seeds_of(tmp_path) == before


@pytest.mark.process
def test_equal_seeds_decide_at_once(tmp_path: Path) -> None:
    values = {(n, seed): 0.1 * n for n in (1, 2, 3, 4) for seed in range(6)}
    run(tmp_path, values, seeds=6)
    assert sorted(seeds_of(tmp_path).values()) == [2, 2, 2, 2]  # all four are on the frontier


@pytest.mark.process
def test_its_own_flops_are_a_limit(tmp_path: Path) -> None:
    values = {(n, seed): 0.1 + 0.01 * n + 0.05 * (seed % 2) for n in (1, 2, 3, 4) for seed in range(40)}
    run(tmp_path, values, seeds=40, flops=1.0)
    assert set(seeds_of(tmp_path).values()) == {1}


@pytest.mark.process
def test_a_further_seed_that_diverges_counts_against_its_point(tmp_path: Path) -> None:
    """N = 2 is above N = 1 with its first seed alone; what diverged is not trained again."""
    values = {(1, 0): 0.4, (1, 1): 0.6, (1, 2): 0.5} | {(2, 0): 0.5, (3, 0): 0.1, (4, 0): 0.1}
    values |= {(n, seed): 0.2 * seed for n in (3, 4) for seed in (1, 2)}
    study, events = run(tmp_path, values, seeds=3)
    report = build_report(study, tmp_path)
    rows = {trial.values["sleep.n_passes"]: trial for trial in report.trials}
    two = rows[2]
    assert (two.diverged, two.by_seed["exact_match"]) == (2, pytest.approx([0.5, 0.0, 0.0]))
    assert two.result["exact_match"] == pytest.approx(0.5 / 3)
    assert two.result["train_flops"] == pytest.approx(30e6) and two.flops_spent == pytest.approx(30e6 + 2 * 7e6)
    reseeding = Reseeding(small_sweep(reseed=Reseed(seeds=3)), study, tmp_path, [])
    assert reseeding.flops_spent == sum(row.further_flops for row in rows.values()), "what a budget limits"
    assert two.further_flops == pytest.approx(2 * 7e6) and rows[1].further_flops == pytest.approx(60e6)
    assert report.sureness(two)[0] == "3, 2 diverged" and "diverged" not in report.sureness(rows[1])[0]
    assert isinstance(report.frontier_share(two), float)
    assert len(report.frontier_intervals) == len(report.best)
    assert all(0 <= low <= high <= 1 for low, high in report.frontier_intervals)
    assert sum("another seed diverged" in event for event in events) == 2
    finished_ones = list(finished_runs(tmp_path, report))
    lost = lost_runs(tmp_path, report, finished_ones)
    assert [(one.values["sleep.n_passes"], one.seed, one.end) for one in lost] == [
        (2, 1, "diverged"),
        (2, 2, "diverged"),
    ]
    assert not any("diverged" in event for event in run(tmp_path, values, seeds=3)[1])


@pytest.mark.process
def test_what_diverges_uses_its_flops_up(tmp_path: Path) -> None:
    """Every further seed diverges after 7e6."""
    values = {(n, 0): 0.2 * n for n in (1, 2, 3, 4)}
    spent = {}
    for limit in (36e6, 1e9):
        study, events = run(folder := tmp_path / f"{limit:g}", values, seeds=4, flops=limit)
        spent[limit] = sum(row.further_flops for row in build_report(study, folder).trials)
        assert spent[limit] == pytest.approx(7e6 * sum("another seed diverged" in event for event in events))
    assert 0 < spent[36e6] <= 36e6 < spent[1e9]


def test_a_damaged_mark_of_divergence_is_named(tmp_path: Path) -> None:
    mark = run_path(tmp_path, 0, 1) / "diverged.json"
    mark.parent.mkdir(parents=True)
    mark.write_text('{"reason": "NaN"}')
    assert diverged_flops(tmp_path, 0, [0, 1]) == [0.0], "of an earlier version"
    mark.write_text('{"reason": "NaN", "flops_spent": 7e6}')
    assert diverged_flops(tmp_path, 0, [0, 1]) == [7e6]
    for text in ('{"flops_spent": null}', "{", "[]"):
        mark.write_text(text)
        with pytest.raises(DamagedFile, match="remove it: that seed is trained again"):
            diverged_flops(tmp_path, 0, [0, 1])
