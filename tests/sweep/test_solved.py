"""Seeds that solve a task, counted from a sweep's runs."""

import csv
import json
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli import sweep_solved
from sleep_lightning.evidence.contrasts import contrasts, named
from sleep_lightning.sweep.cells import select
from sleep_lightning.sweep.finished_runs import finished_runs, lost_runs
from sleep_lightning.sweep.folder import save_sweep
from sleep_lightning.sweep.report.content import read_report
from sleep_lightning.sweep.solved import SeedResult, seed_results, solved, wilson
from tests.sweep.studies import ToldStudy


def run(seed: int, exact: float, steps: int | None, n: int = 1) -> SeedResult:
    return SeedResult({"sleep.n_passes": n}, seed, exact, steps, ())


@pytest.mark.parametrize(
    ("successes", "trials", "expected"),
    [(10, 10, (0.7225, 1.0)), (9, 10, (0.5958, 0.9821)), (0, 10, (0.0, 0.2775)), (1, 2, (0.0945, 0.9055))],
)
def test_wilson(successes: int, trials: int, expected: tuple[float, float]) -> None:
    """Against the closed form, (p + z^2/2n -+ z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n), by hand."""
    assert wilson(successes, trials) == pytest.approx(expected, abs=1e-4)


def test_a_point_is_solved_by_the_final_weights() -> None:
    """One that was there and fell below is not; the median counts seeds that never get there as last."""
    [one, two] = solved([run(0, 0.99, 300), run(1, 0.90, 200), run(2, 0.5, None), run(0, 0.95, 100, n=2)], 0.95)
    assert (one.solved, len(one.runs), one.steps) == (1, 3, 300)
    assert (two.solved, len(two.runs), two.steps) == (1, 1, 100)
    assert solved([run(0, 0.1, None), run(1, 0.99, 100), run(2, 0.2, None)], 0.95)[0].steps is None


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToldStudy:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    study = ToldStudy(Path("runs/sweeps/small"), seeds=[0, 1])
    save_sweep(study.sweep, study.folder)
    study.finish(2, 0.8, 2e12, seeds=[0.97, 0.63])
    study.finish(4, 0.98, 4e12, seeds=[0.99, 0.96])
    for directory in (study.folder / "trials").iterdir():
        exact = json.loads((directory / "summary.json").read_text())["exact_match"]
        rows = [{"step": s, "exact_match": e, "cost/train_flops": 1.0} for s, e in ((100, exact / 2), (200, exact))]
        (directory / "history.json").write_text(json.dumps({"history": rows}))
    return study


def test_runs_are_read_from_the_folder(study: ToldStudy) -> None:
    found = seed_results(finished_runs(study.folder, read_report(study.folder)), 0.95)
    assert [(r.values["sleep.n_passes"], r.seed, r.exact_match) for r in found] == [
        (2, 0, 0.97),
        (2, 1, 0.63),
        (4, 0, 0.99),
        (4, 1, 0.96),
    ]
    assert [r.steps_to_solve for r in found] == [200, None, 200, 200]
    unfinished = study.folder / "trials" / "0001-seed1" / "summary.json"
    unfinished.unlink()
    assert len(seed_results(finished_runs(study.folder, read_report(study.folder)), 0.95)) == 3


def test_the_table_and_the_csv(study: ToldStudy, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "solved", "small", "--csv", "runs.csv"]) == 0
    out = capsys.readouterr().out
    assert "n_passes=2" in out and "1 of 2" in out and "0.50 [0.09, 0.91]" in out
    assert "2 of 2" in out and "1.00 [0.34, 1.00]" in out
    with Path("runs.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["steps_to_solve"] for row in rows] == ["200", "", "200", "200"]
    assert rows[0]["validations"] == "100:0.4850 200:0.9700"


def test_one_point_against_the_others(study: ToldStudy, capsys: pytest.CaptureFixture[str]) -> None:
    study.finish(1, 0.2, 1e12, seeds=[0.1, 0.3])
    assert main(["sweep", "solved", "small", "--against", "sleep.n_passes=4"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    # two seeds have four sign changes: 0.5 two-sided is the least; differences 0.02 and 0.33, 0.89 and 0.66
    assert "n_passes=4, grad_passes=1 less that of the others" in out
    assert "n_passes=2 │ 2 │ 0.175 [-1.000, 1.000] │ 0.5000 │ 1.0000 │" in out
    assert "n_passes=1 │ 2 │ 0.775 [-0.686, 1.000] │ 0.5000 │ 1.0000 │" in out
    every = "n_passes=2; n_passes=4, grad_passes=1; n_passes=1"
    for words, said in (("n_passes=3", f"no point has it, use one of: {every}"), ("x", "no point has it")):
        assert main(["sweep", "solved", "small", "--against", words]) == 2
        assert f"error: --against {words}: {said}" in capsys.readouterr().err
    (study.folder / "trials" / "0001-seed1" / "summary.json").unlink()
    assert main(["sweep", "solved", "small", "--against", "n_passes=4"]) == 2
    assert "shares no two finished seeds with another point" in capsys.readouterr().err


def test_contrasts_are_of_shared_seeds_and_corrected_for_all() -> None:
    """Ten seeds that all differ one way: 2 of 1,024 sign changes are as far out."""
    runs = [run(seed, 0.9 + seed / 1000, None, n=4) for seed in range(10)] + [run(10, 0.1, None, n=4)]
    runs += [run(seed, 0.5 - seed / 1000, None, n=1) for seed in range(10)]
    runs += [run(seed, 0.9, None, n=2) for seed in (8, 9, 11)]
    points = solved([*runs, replace(run(3, 0.99, None, n=2), end="diverged", exact_match=nan)], 0.95)
    one, two = contrasts(named(points, ["n_passes=4"]), points)
    assert (one.values, one.seeds, one.p, one.corrected) == ({"sleep.n_passes": 1}, 10, 2 / 1024, 4 / 1024)
    assert one.difference.mean == pytest.approx(0.409)
    assert (two.seeds, two.p, two.corrected) == (2, 0.5, 0.5)
    with pytest.raises(ValueError, match="--against : several have it, add a key that tells them apart: n_passes=4; "):
        named(points, [])


def test_the_picture_has_every_seed_over_its_flops(
    study: ToldStudy, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(sweep_solved, "draw_seeds", lambda *given: found.append(given))
    assert main(["sweep", "solved", "small", "--picture", "seeds.png"]) == 0
    assert "picture  seeds.png" in capsys.readouterr().out
    [(panels, levels, path, title)] = found
    assert [panel.title for panel in panels] == ["n_passes=2: 1 of 2", "n_passes=4, grad_passes=1: 2 of 2"]
    assert panels[0].curves == [[(1.0, 0.485), (1.0, 0.97)], [(1.0, 0.315), (1.0, 0.63)]]
    assert (levels, str(path), "small" in title) == ({"solved": 0.95}, "seeds.png", True)
    assert main(["sweep", "solved", "small", "--picture", "nowhere/seeds.png"]) == 2
    assert "--picture nowhere/seeds.png: there is no folder nowhere; create it first" in capsys.readouterr().err


def lose(study: ToldStudy, n: int, seeds: dict[int, float | None], state: str = "fail", **facts: Any) -> None:
    """A trial without a result, with a directory for each seed; None: one that did not finish."""
    getattr(study, state)(n, **facts)
    number = len(study.study.get_trials()) - 1
    for seed, exact in seeds.items():
        (directory := study.folder / "trials" / f"{number:04d}-seed{seed}").mkdir()
        if exact is not None:
            like = (study.folder / "trials" / "0000-seed0" / "summary.json").read_text()
            (directory / "summary.json").write_text(json.dumps(json.loads(like) | {"exact_match": exact}))


def shown(study: ToldStudy) -> dict[int, str]:
    report = read_report(study.folder)
    finished = list(finished_runs(study.folder, report))
    runs = seed_results([*finished, *lost_runs(study.folder, report, finished)], 0.95)
    return {one.values["sleep.n_passes"]: str(one) for one in solved(runs, 0.95)}


def test_a_seed_counts_once_and_that_of_the_trial_with_a_result(study: ToldStudy) -> None:
    """A point that failed is tried again with its seeds; here before and after the trial that has a result."""
    lose(study, 1, {0: 0.99, 1: None}, failed="killed by signal 9")
    study.finish(1, 0.2, 1e12, seeds=[0.1, 0.3])
    lose(study, 2, {0: 0.1, 1: 0.2}, failed="killed by signal 9")  # N = 4 has several points
    found = list(finished_runs(study.folder, read_report(study.folder)))
    seeds = [(run.values["sleep.n_passes"], run.seed, run.summary["exact_match"]) for run in found]
    assert sorted(seeds) == [(1, 0, 0.1), (1, 1, 0.3), (2, 0, 0.97), (2, 1, 0.63), (4, 0, 0.99), (4, 1, 0.96)]
    sliced = [replace(run, summary=run.summary | {"slices": {"all": {"loss": 1.0}}}) for run in found]
    assert sorted((one.n_passes, len(one.runs)) for one in select(sliced)) == [(1, 2), (2, 2), (4, 2)]
    assert shown(study) == {1: "0 of 2", 2: "1 of 2", 4: "2 of 2"}
    costs = {1: 1.0e12, 2: 1.04e12, 4: 1.06e12}  # without budgets in the space
    dear = [replace(run, summary=run.summary | {"train_flops": costs[run.values["sleep.n_passes"]]}) for run in sliced]
    assert [(one.budget, one.n_passes) for one in select(dear)] == [(1.0e12, 1), (1.0e12, 2), (1.06e12, 4)]


def test_a_seed_that_diverged_has_not_solved_and_others_are_named(
    study: ToldStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    lose(study, 1, {0: 0.99, 1: 0.99, 2: None}, failed="exit code 65: error: training diverged", diverged=True)
    lose(study, 3, {0: None, 1: None}, failed="training diverged", diverged=True, diverged_seed=1)
    assert shown(study) == {1: "2 of 3, 1 diverged", 2: "1 of 2", 3: "0 of 1, 1 diverged, 1 stopped", 4: "2 of 2"}
    lose(study, 1, {3: 0.99, 4: None}, failed="killed by signal 9")
    assert shown(study)[1] == "3 of 4, 1 diverged, 1 failed"
    assert main(["sweep", "solved", "small", "--csv", "runs.csv"]) == 0
    assert "0.990 0.990 diverged 0.990" in capsys.readouterr().out
    with Path("runs.csv").open() as file:
        ends = [(row["exact_match"], row["end"]) for row in csv.DictReader(file) if row["sleep.n_passes"] == "3"]
    assert ends == [("", "stopped"), ("", "diverged")]


def test_the_seeds_of_a_pruned_trial_are_no_fair_sample_and_marked(study: ToldStudy) -> None:
    lose(study, 1, {0: 0.99, 1: None}, state="prune", spent=1.0, whole=2.0)
    lose(study, 3, {0: None}, state="prune", spent=1.0, whole=2.0)
    assert shown(study) == {1: "1 of 1, 1 stopped", 2: "1 of 2", 4: "2 of 2"}


def test_the_validation_after_the_last_step_counts_where_the_history_lacks_it(study: ToldStudy) -> None:
    """As in records of earlier versions."""
    study.record(0, steps=250, exact_match=0.98)
    study.record(1, steps=200)
    first, *_, last = seed_results(finished_runs(study.folder, read_report(study.folder)), 0.975)
    assert (first.steps_to_solve, first.curve) == (250, ((100, 0.485), (200, 0.97), (250, 0.98)))
    assert last.curve == ((100, 0.48), (200, 0.96))


def test_the_threshold_and_values_next_to_it_are_not_rounded_to_each_other(
    study: ToldStudy, capsys: pytest.CaptureFixture[str]
) -> None:
    study.finish(1, 0.95, 1e12, seeds=[0.99896, 0.99])
    assert main(["sweep", "solved", "small", "--threshold", "0.999"]) == 0
    out = capsys.readouterr().out
    assert "exact match of 0.999 or more" in out and "0.99896 0.990" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--threshold", "0"], "--threshold 0.0 must be an exact match above 0"),
        (["--threshold", "nan"], "--threshold nan must be an exact match"),
        (["--csv", "nowhere/runs.csv"], "there is no folder nowhere; create it first"),
    ],
)
def test_bad_requests(study: ToldStudy, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    assert main(["sweep", "solved", "small", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_nothing_has_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    study = ToldStudy(Path("runs/sweeps/young"))
    study.ask(1)
    save_sweep(study.sweep, study.folder)
    assert main(["sweep", "solved", "young"]) == 2
    assert "no run has finished yet; go on with: sweep resume young" in capsys.readouterr().err
