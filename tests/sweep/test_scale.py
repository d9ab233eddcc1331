"""What a sweep costs grows with its trials, not with their square: counted, not timed."""

import cProfile
import os
import pstats
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from sleep_lightning.cli import sweep_show
from sleep_lightning.cli.sweep_show import Found
from sleep_lightning.frontier import Point, frontier
from sleep_lightning.sweep.finished_runs import finished_runs
from sleep_lightning.sweep.point import point_key
from sleep_lightning.sweep.report import files, page, publisher
from sleep_lightning.sweep.report.content import Report, read_report
from sleep_lightning.sweep.report.drawn import steps, thinned
from sleep_lightning.sweep.report.files import as_csv, as_json, frontier_plot
from sleep_lightning.sweep.report.publisher import Publisher
from sleep_lightning.sweep.reseeding import Reseeding
from sleep_lightning.sweep.settled import Seeded, frontier_shares
from sleep_lightning.sweep.space import Parameter, Space
from sleep_lightning.sweep.spec import Reseed
from sleep_lightning.sweep.study import open_study
from tests.sweep.studies import ToldStudy
from tests.sweep.sweeps import small_sweep

SIZES = (40, 80, 160)


def calls(work: Callable[[], object]) -> int:
    """Function calls that it makes, those of C included."""
    profile = cProfile.Profile()
    profile.runcall(work)
    found: int = pstats.Stats(profile).total_calls  # type: ignore[attr-defined]
    return found


def assert_linear(counts: list[int]) -> None:
    """Of sizes that double: what each further one takes is the same."""
    first, second = (b - a for a, b in pairwise(counts))
    assert second < 2.1 * first, counts


def told(folder: Path, trials: int, seeds: int = 1) -> ToldStudy:
    """Of four trials two are finished, one is pruned and one has failed."""
    study = ToldStudy(folder)
    for i in range(trials):
        n, cost = 1 + i % 4, 1e9 * (1 + i)
        if i % 4 == 1:
            study.prune(n, cost / 4, cost)
        elif i % 4 == 2:
            study.fail(n, failed="out of memory", flops_spent=1e6)
        else:
            exact = 1 - 1 / (2 + i)  # all on the frontier, which is the most work
            study.finish(n, exact, cost, [exact * (1 - s / 100) for s in range(seeds)])
    return study


@pytest.fixture(scope="module", autouse=True)
def _on_a_quick_disk() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    found = [tmp_path_factory.mktemp(f"trials{size}") for size in SIZES]
    for folder, size in zip(found, SIZES, strict=True):
        told(folder, size, seeds=2)
    read_report(found[0])  # what is imported and cached once is not counted
    return found


@pytest.mark.parametrize(
    "work",
    [
        lambda report, folder: sweep_show.show(Found("x", folder, report), everything=True),
        lambda report, folder: sweep_show.best(Found("x", folder, report), None, None),
        lambda report, folder: (as_csv(report), as_json(report), frontier_plot(report)),
        lambda report, folder: [run.seed for run in finished_runs(folder, report)],
    ],
    ids=["show", "best", "report", "runs"],
)
@pytest.mark.slow
def test_reading_a_sweep_is_linear(
    folders: list[Path], capsys: pytest.CaptureFixture[str], work: Callable[[Report, Path], object]
) -> None:
    warm = 2 * folders[:1]  # some of what a process does once is done the second time
    counts = [calls(lambda folder=folder: work(read_report(folder), folder)) for folder in (*warm, *folders)]  # type: ignore[misc]
    assert_linear(counts[2:])


def test_folders_are_looked_through_once(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    looks, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: looks.append(path) or scandir(path))
    report = read_report(folders[-1])
    points = {
        point_key(trial.values) for trial in report.trials
    }  # that come again and again, as no supervisor lets them
    assert len(list(finished_runs(folders[-1], report))) == len(points)
    assert looks == 2 * [folders[-1] / "trials"]


def test_a_grid_is_enqueued_once_and_linearly(tmp_path: Path) -> None:
    counts = []
    for size in (10, 50, 100, 200):
        space = Space({"training.log_every": Parameter(low=1, high=size)})
        sweep, folder = replace(small_sweep(sampler="grid"), space=space), tmp_path / str(size)
        counts.append(calls(lambda sweep=sweep, folder=folder: open_study(sweep, folder)))  # type: ignore[misc]
        assert len(open_study(sweep, folder).get_trials(deepcopy=False)) == size
    assert_linear(counts[1:])  # what is done once in a process is in the first


def test_a_grid_half_enqueued_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = small_sweep(sampler="grid", many_points=False)
    enqueue, left = optuna.Study.enqueue_trial, [3]

    def killed(self: optuna.Study, params: dict[str, Any]) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        enqueue(self, params)

    with monkeypatch.context() as patch:
        patch.setattr(optuna.Study, "enqueue_trial", killed)
        with pytest.raises(KeyboardInterrupt):
            open_study(sweep, tmp_path)
    trials = open_study(sweep, tmp_path).get_trials(deepcopy=False)
    assert [trial.system_attrs["fixed_params"] for trial in trials] == sweep.space.points()


def test_ended_trials_are_not_searched_for_waiting_ones(tmp_path: Path) -> None:
    study = told(tmp_path, 12).study
    study.enqueue_trial({"sleep.n_passes": 3})
    plain = optuna.load_study(
        study_name="small", storage=JournalStorage(JournalFileBackend(str(tmp_path / "journal.log")))
    )
    for states in ((TrialState.WAITING,), (TrialState.RUNNING, TrialState.WAITING), (TrialState.COMPLETE,), None):
        for deepcopy in (True, False):
            numbers = [[t.number for t in one.get_trials(deepcopy, states)] for one in (study, plain)]
            assert numbers[0] == numbers[1]
    assert study._storage._ended == {0: 12}  # type: ignore[attr-defined]
    assert study.ask().number == 12


def test_shares_of_all_resamples_at_once_are_those_of_each(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from sleep_lightning.sweep import settled

    chance = np.random.default_rng(1)
    values = chance.random((300, 12)).round(1)  # with equal values
    costs = np.array([1.0, 2, 2, 0, 3, 3, 3, 1, 5, 4, 4, 0])  # and equal costs
    counted = np.zeros(12)
    for row in values:
        counted[frontier([Point(c, v) for c, v in zip(costs, row, strict=True)])] += 1
    assert settled._on_frontier(costs, values).tolist() == counted.tolist()
    points = [Seeded(c, (v, v + 0.1)) for c, v in zip(costs, values[0], strict=True)]
    whole = frontier_shares(points)
    monkeypatch.setattr(settled, "AT_ONCE", 100)  # the same numbers are drawn in portions
    assert frontier_shares(points) == whole


def test_of_very_many_trials_some_are_drawn_and_the_frontier_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = ToldStudy(tmp_path)
    for i in range(30):
        study.finish(1 + i % 4, 0.9 if i == 17 else 0.5, 1e9 * (1 + i))
    report = read_report(tmp_path)
    assert len(frontier_plot(report).dots) == 30 and [t.number for t in report.best] == [0, 17]
    assert [t.number for t in thinned(report.trials, 10, report.best)] == [*range(0, 16, 3), 17, *range(18, 30, 3)]
    monkeypatch.setattr(files, "MOST_DOTS", 10)
    plot = frontier_plot(report)
    assert {dot.trial for dot in plot.dots} == {*range(0, 30, 3), 17} and [dot.trial for dot in plot.edge] == [0, 17]
    note = "11 of 30 finished trials are drawn, among them all of the frontier."
    assert note in page.report_page(report, plot, [], "x")


def test_a_step_line_of_very_many_points_keeps_its_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [Point(float(i), float(i // 10)) for i in range(100)]
    assert steps(points) == points
    monkeypatch.setattr("sleep_lightning.sweep.report.drawn.MOST_STEPS", 50)
    assert steps(points) == [*points[::10], points[-1]]


def test_metrics_take_their_share_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, built = [0.0], list[float]()
    monkeypatch.setattr(publisher.time, "monotonic", lambda: now[0])

    def build(*_: object) -> None:
        built.append(now[0])
        now[0] += 2  # of ten thousand trials

    monkeypatch.setattr(publisher, "build_report", build)
    reports = Publisher(None, tmp_path, object(), {}, every_seconds=1e9)  # type: ignore[arg-type]
    monkeypatch.setattr(reports, "_log_metrics", lambda report: None)
    while now[0] < 100:
        reports.refresh()
        now[0] += 1
    assert built == [0, 40, 80]


def test_what_further_seeds_took_is_not_counted_anew_at_each_trial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = told(tmp_path, 8)
    reseeding = Reseeding(small_sweep(reseed=Reseed(seeds=3)), study.study, tmp_path, [])
    reads = []
    read = reseeding._read
    monkeypatch.setattr(reseeding, "_read", lambda: reads.append(1) or read())
    for _ in range(5):
        reseeding.told()
        assert reseeding.flops_spent == 0
    assert len(reads) == 1
    reseeding.changed()
    assert reseeding.flops_spent == 0 and len(reads) == 2
