import json
from dataclasses import replace
from pathlib import Path

import pytest

from sleep_lightning.compare.arms import Arm
from sleep_lightning.compare.runs import Run, plan_runs
from sleep_lightning.compare.table import (
    Row,
    as_markdown,
    build_rows,
    check_data_order,
    kinds_of_spread,
    unequal_seeds,
    with_spread,
)
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.tracking.figures.runs import draw_comparison
from tests.cli.cli import ROOT

BASE = load_experiment(ROOT / "conf" / "depo.yaml", [])
BASELINES = {"majority_exact_match": 0.2, "majority_token_accuracy": 0.5, "uniform_exact_match": 0.1}


def score(exact_match: float) -> dict[str, object]:
    return {"answers": 8, "exact_match": exact_match, "token_accuracy": 0.5, "loss": 1.0, "baselines": BASELINES}


def finished(folder: Path, name: str, seed: int, exact: float, digests: dict[str, str], steps: int = 9) -> Run:
    path = folder / f"{name}-seed{seed}"
    path.mkdir()
    summary = {
        "status": "FINISHED",
        "steps": steps,
        "tokens": steps + 1,
        "train_flops": 11,
        "wall_s": 1.5,
        "exact_match": exact,
        "token_accuracy": 0.5,
        "loss": 1.0,
        "data_digests": digests,
    }
    (path / "summary.json").write_text(json.dumps(summary))
    scores = {"all": score(exact), "hop_1": score(exact + 0.1)}
    (path / "test_n4.json").write_text(json.dumps({"steps": steps, "parameters": 1234, "scores": scores}))
    (path / "test_window.json").write_text(json.dumps({"steps": steps, "exact_match": exact / 2}))
    return Run(BASE, RunDirectory(path), Arm(name, (), "as told"), seed)


def test_rows_are_means_with_spread_over_finished_seeds(tmp_path: Path) -> None:
    runs = [finished(tmp_path, "n4", seed, exact, {}) for seed, exact in enumerate((0.5, 0.7))]
    runs.append(Run(BASE, RunDirectory(tmp_path / "not there yet"), runs[0].arm, 2))
    [row] = build_rows(runs, [])
    assert row.seeds == [0, 1]
    assert row.exact_match == [0.5, 0.7]
    assert with_spread(row.exact_match) == "0.600 ± 0.141"
    header, _, line = as_markdown([row]).splitlines()
    assert header.startswith(
        "| arm | N | parameters | seeds | steps | tokens | training | seconds | exact match | hop 1 |"
    )
    assert "| 0.600 ± 0.141 | 0.700 ± 0.141 | 0.300 | 0.200 | 0.100 |" in line
    assert row.no_memory == [0.25, 0.35] and header.endswith("| no memory | majority | uniform |")
    draw_comparison([row], tmp_path / "picture.png", "title")
    assert (tmp_path / "picture.png").stat().st_size > 5000


def test_seeds_that_stopped_early_show_in_mean_and_range(tmp_path: Path) -> None:
    [row] = build_rows([finished(tmp_path, "n4", seed, 0.5, {}, steps) for seed, steps in enumerate((9, 19, 8))], [])
    assert (row.steps, row.tokens, row.train_flops) == (12, 13, 11)
    assert "| 3 | 12 (8 to 19) | 13 | " in as_markdown([row])


def test_arms_with_other_seeds_are_told(tmp_path: Path) -> None:
    def arm(name: str, *seeds: int) -> Row:
        [row] = build_rows([finished(tmp_path, name, seed, 0.5, {}) for seed in seeds], [])
        return row

    one, three, same = arm("n1", 0), arm("n4", 0, 1, 2), arm("more-tokens", 0)
    assert kinds_of_spread([three]) == "mean ± sd over seeds"
    assert kinds_of_spread([one]) == "one seed ± standard error of its answers"
    assert kinds_of_spread([one, three]) == "mean ± sd over seeds; one seed ± standard error of its answers"
    assert unequal_seeds([one, same]) is None
    assert (unequal_seeds([one, same, three]) or "").startswith("not the same in all arms: n1 has 0, n4 has 0 1 2; ")


def test_n_at_test_other_than_at_training_shows() -> None:
    row = Row("n4", "", "4", 8, [0], 1, 1, 1, 1, 1.0, [0.5], {}, 0.1, 0.1, 64)
    assert "| 4 → 8 |" in as_markdown([row])
    assert "| 0.500 ± 0.062 |" in as_markdown([row]), "one seed stands beside the standard error of its answers"


def test_what_has_no_memory_has_none_to_zero(tmp_path: Path) -> None:
    """The column is empty for it, and there is none if no arm has a memory."""
    run = finished(tmp_path, "attention", 0, 0.5, {})
    (run.directory.path / "test_n4.json").rename(run.directory.path / "test_n1.json")
    plain = load_experiment(BASE.to_dict(), ["model.pattern=AAAA", "sleep.n_passes=1"])
    [row] = build_rows([replace(run, experiment=plain)], [])
    assert row.no_memory == [] and "no memory" not in as_markdown([row])
    [other] = build_rows([finished(tmp_path, "n4", 0, 0.5, {})], [])
    assert as_markdown([row, other]).splitlines()[2].endswith("|  | 0.200 | 0.100 |")


def test_data_order_is_compared_by_hash(tmp_path: Path) -> None:
    same = [
        finished(tmp_path, "a", 0, 0.5, {"5": "x", "10": "y"}),
        finished(tmp_path, "b", 0, 0.5, {"5": "x", "10": "y", "15": "z"}),
        finished(tmp_path, "a", 1, 0.5, {"5": "other seed"}),
    ]
    assert check_data_order(same) == "the same in all arms of a seed (2 hashes compared)"
    other = finished(tmp_path, "c", 0, 0.5, {"5": "x", "10": "w"})
    assert "DIFFERS: a and c saw different data up to step 10 (seed 0)" in check_data_order([*same, other])
    assert check_data_order(same[:1]) == "not compared: one arm"
    less = finished(tmp_path, "bm25", 0, 0.5, {"10": "z"})
    less = replace(less, arm=Arm("bm25", ("task.kept=bm25",), "as told"))
    found = check_data_order([*same, less])
    assert found == "the same in all arms of a seed (2 hashes compared); bm25: a task of their own"
    early = finished(tmp_path, "d", 0, 0.5, {})  # ended before its first validation
    assert check_data_order([same[0], early]).endswith("no two arms of a seed validated at the same step")


def test_a_directory_with_another_run_is_refused(tmp_path: Path) -> None:
    arms = [Arm("n2", ("sleep.n_passes=2",), "")]
    [run] = plan_runs(BASE, arms, [0], tmp_path)
    run.directory.path.mkdir()
    run.directory.record_experiment(run.experiment)
    plan_runs(BASE, arms, [0], tmp_path, "training.threads=1")  # threads do not make another run
    with pytest.raises(ValueError, match=r"holds a run with training\.max_steps=1200, not 7"):
        plan_runs(load_experiment(BASE.to_dict(), ["training.max_steps=7"]), arms, [0], tmp_path)


def test_a_password_is_in_neither_file_nor_command(tmp_path: Path) -> None:
    base = load_experiment(BASE.to_dict(), ["tracking.uri=postgresql://me:canary@host/db"])
    [run] = plan_runs(base, [Arm("n2", (), "")], [0], tmp_path, f"tracking.uri={base.tracking.uri}")
    assert run.experiment.tracking.uri == "postgresql://me:canary@host/db"
    assert "canary" not in " ".join(run.command())
    assert all("canary" not in path.read_text() for path in tmp_path.rglob("*") if path.is_file())
