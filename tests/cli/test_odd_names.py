"""Real runs in folders with names that shells, YAML and URIs read otherwise."""

import json
from pathlib import Path

import pytest
from sqlalchemy.engine import URL

from sleep_lightning.__main__ import main
from sleep_lightning.tracking.mlflow_store import open_client
from tests.cli.cli import ROOT, SMALL, fit_arguments, run

ODD = "a [/b] :x: #1?x=%41 \u00e9::y@z"


@pytest.mark.long
@pytest.mark.parametrize("name", ["20250102_030405", "-r=1 #2", "e://x::y"])
def test_a_run_is_where_it_was_put_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(fit_arguments(name, 5, "tracking.enabled=false")) == 0
    assert main(["fit", f"--resume={name}", "training.max_steps=10"]) == 0
    assert json.loads(Path(name, "summary.json").read_text())["steps"] == 10
    assert main(["test", f"--checkpoint={name}"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == [str(Path(name).parts[0])]


@pytest.mark.process
@pytest.mark.slow
def test_children_get_what_was_typed(tmp_path: Path) -> None:
    folder = tmp_path / ODD
    folder.mkdir(parents=True)
    overrides = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=5"]
    (folder / "tiny.yaml").write_text(
        f"name: 007\nbase: {ROOT}/conf/depo.yaml\noverrides: {json.dumps(overrides)}\nstorage: sqlite:///trials.db\n"
        "space: {tracking.run_name: {choices: [010]}}\nsampler: grid\nbudget: {trials: 1}\n"
    )
    done = run(folder, "sweep", "tiny.yaml", "--output", "sub dir/out #1[x]")
    assert done.returncode == 0 and "1 complete" in done.stdout, done.stdout + done.stderr
    [trial] = json.loads((folder / "sub dir/out #1[x]/frontier.json").read_text())["frontier"]
    assert trial["values"] == {"tracking.run_name": "010"}
    base = str(ROOT / "conf" / "rule110.yaml")
    done = run(folder, "compare", base, *SMALL, "training.max_steps=5", "--arms", "n1", "--seeds", "0", "--output=-c=#")
    assert done.returncode == 0, done.stdout + done.stderr
    client = open_client(URL.create("sqlite", database=f"{folder}/mlflow.db").render_as_string())
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    names = {found.info.run_name for found in client.search_runs([experiment.experiment_id])}
    assert names == {"007", "frontier and baselines", "010", "-c=#", "n1-seed0"}
    made = {path.name for path in folder.iterdir()}
    assert made == {"tiny.yaml", "sub dir", "-c=#", "mlflow.db", "mlruns", "trials.db"}
    assert [path.name for path in tmp_path.iterdir()] == [Path(ODD).parts[0]]
