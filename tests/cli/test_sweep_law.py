"""``sweep law`` on a sweep whose runs were recorded: nothing is trained."""

import json
from itertools import product
from math import log
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from sleep_lightning.__main__ import main
from sleep_lightning.cli import sweep_law
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.history import write_history
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.iso_flop import Cell, Seeds
from sleep_lightning.sweep.records import Records
from sleep_lightning.sweep.report.law import SliceLaw
from sleep_lightning.sweep.spec import Sweep, load_sweep
from tests.cli.cli import ROOT

BUDGETS, DEPTHS, SEEDS = (2e12, 4e12, 8e12), (1, 2, 4), (0, 1)
SPEC = f"""
name: budgets
base: {ROOT}/conf/depo.yaml
overrides: [tracking.enabled=false]
space:
  train_flops: {{choices: [2.0e+12, 4.0e+12, 8.0e+12]}}
  sleep.n_passes: {{choices: [1, 2, 4]}}
sampler: grid
seeds: [0, 1]
budget: {{trials: 9}}
pruner: none
"""


def bowl(n: int, budget: float, seed: int) -> float:
    """Its minimum is at N = 2 for every budget; seed 1 is worse."""
    return 0.2 + 0.1 * seed + 0.1 * (log(n / 2)) ** 2 + 0.1 * (2e12 / budget)


def made_up(sweep: Sweep, folder: Path, n: int, budget: float, seed: int) -> FitProcess:
    experiment = sweep.experiment({"train_flops": budget, "sleep.n_passes": n}, ("training.seed", seed))
    run = FitProcess(experiment, RunDirectory(folder / "made_up" / f"{n}-{budget:.0f}-{seed}"))
    run.directory.path.mkdir(parents=True)
    scores = {"exact_match": 0.5, "token_accuracy": 0.5, "loss": bowl(n, budget, seed)}
    both = {"all": scores, "hop_1": {**scores, "loss": 2 * scores["loss"]}}
    cost = {"train_flops": budget, "wall_s": 1.0, "tokens": budget / n}
    run.directory.summary.write_text(json.dumps({"status": "FINISHED", **scores, **cost, "slices": both}))
    row = {"step": 1, "exact_match": 0.5, "cost/train_flops": budget}
    write_history(run.directory.history, [row])
    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("budgets")
    (folder / "budgets.yaml").write_text(SPEC)
    records, sweep = Records(folder / "records.jsonl"), load_sweep(folder / "budgets.yaml")
    for n, budget, seed in product(DEPTHS, BUDGETS, SEEDS):
        assert records.add(made_up(sweep, folder, n, budget, seed))
    return folder


@pytest.mark.long
def test_law(recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(recorded)
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["sweep", "budgets.yaml", "--records", "records.jsonl"]) == 0
    folder = recorded / "runs" / "sweeps" / "budgets"
    assert not list(folder.glob("trials/*/checkpoints"))
    capsys.readouterr()
    assert main(["sweep", "law", "budgets"]) == 0
    printed = capsys.readouterr().out
    assert "all: mean loss over 2 seed(s)" in printed
    assert "its range of resamples over them" in " ".join(printed.split())
    assert "2.00 [2.00, 2.00]" in printed
    assert "N = 2 in 100%" in printed
    assert "N* ~ C^a, a  0.00 [0.00, 0.00]" in printed.replace("-0.00", "0.00")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sleep_lightning.cli.sweep_show.WIDE", 0)  # as on a terminal
    assert main(["sweep", "law", "budgets"]) == 0
    narrow = capsys.readouterr().out.splitlines()
    assert sum("2.00 [2.00, 2.00]" in line and "TFLOP" in line for line in narrow) == 6  # whole, in one line
    law = json.loads((folder / "law.json").read_text())
    everything, one_hop = law["slices"]
    for curve in everything["curves"]:
        assert curve["best"]["value"] == pytest.approx(2.0, abs=1e-6)
        expected = {str(n): 0.5 * (bowl(n, curve["budget"], 0) + bowl(n, curve["budget"], 1)) for n in DEPTHS}
        assert curve["losses"] == pytest.approx(expected, abs=1e-6)
    assert one_hop["name"] == "hop_1"
    assert one_hop["curves"][0]["losses"]["1"] == pytest.approx(2 * everything["curves"][0]["losses"]["1"])
    assert not everything["fits"]  # a bowl over N is no power law
    assert (folder / "law.png").stat().st_size > 10_000
    page = (folder / "report.html").read_text()
    assert "Loss over N at equal training FLOPs" in page
    assert "no law is stated" in page
    assert "N* [range of resamples over 2 seeds]" in page
    assert "N = 2 at 2 TFLOP: 0.350 (mean of seeds from 0.300 to 0.400)" in page  # what the bars show


def test_the_table_shows_the_seeds_that_it_names() -> None:
    """A seed that has finished at one N alone is in no mean."""
    cells = (Cell(1e12, 1, 4.0, 1e12, {0: 0.25, 1: 0.75}), Cell(1e12, 2, 2.0, 1e12, {0: 0.5}))
    seeds = Seeds(cells)
    law = SliceLaw("all", cells, tuple(seeds.means.tolist()), seeds.count, (), None, None)
    assert seeds.count == 1
    assert list(sweep_law._rows(law, [1, 2])) == [["1 TFLOP", "0.250", "0.500", "-", "-"]]


@pytest.mark.long
def test_law_is_copied_into_mlflow(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a sweep that has ended: its run has the law as it is now, and keeps its status. A lost store is a warning."""
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    (tmp_path / "budgets.yaml").write_text(SPEC.replace("tracking.enabled=false", f"tracking.uri={uri}"))
    assert main(["sweep", "budgets.yaml", "--records", str(recorded / "records.jsonl")]) == 0
    folder = tmp_path / "runs" / "sweeps" / "budgets"
    run_id = RunDirectory(folder).mlflow_run_id
    assert run_id is not None
    for summary in folder.glob("trials/*seed1/summary.json"):
        summary.unlink()
    assert main(["sweep", "law", "budgets"]) == 0
    client = MlflowClient(uri)
    copied = json.loads(Path(client.download_artifacts(run_id, "law.json")).read_text())
    assert [one["seeds"] for one in copied["slices"]] == [1, 1]
    assert client.get_run(run_id).info.status == "FINISHED"
    (tmp_path / "mlflow.db").unlink()
    with pytest.warns(UserWarning, match=r"budgets: not copied into MLflow: .*there is no file"):
        assert main(["sweep", "law", "budgets"]) == 0


@pytest.mark.long
@pytest.mark.slow
def test_law_of_what_is_not_there(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(recorded)
    assert main(["sweep", "law", "nothing"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["sweep", "budgets.yaml", "--records", "records.jsonl", "--output", str(tmp_path / "copy")]) == 0
    for summary in (tmp_path / "copy").glob("trials/*/summary.json"):
        summary.unlink()
    capsys.readouterr()
    assert main(["sweep", "law", str(tmp_path / "copy")]) == 2
    assert "no run has finished yet; go on with: sweep resume" in capsys.readouterr().err
