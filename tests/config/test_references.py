"""References to the environment are written down as they were written, and resolved anew when they are read."""

from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.config.references import HANDED_OVER
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from tests.cli.cli import ROOT

BASE = ROOT / "conf" / "rule110.yaml"
URI, PLACE = "postgresql://me:canary@db/x", "/scratch/canary"
MONITOR = {"class_path": "learning_rate_monitor", "init_args": {"logging_interval": "${oc.env:EVERY}"}}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"STORE": URI, "PLACE": PLACE, "RATE": "0.25", "EVERY": "step"}.items():
        monkeypatch.setenv(name, value)


def written(*overrides: str | tuple[str, Any]) -> dict[str, Any]:
    return load_experiment(BASE, overrides).to_dict()


def test_text_is_kept_as_it_was_written_and_numbers_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "tracking: {uri: '${oc.env:STORE}', run_name: '${training.run_dir}/a', experiment: '\\${oc.env:RATE}'}\n"
        "training: {run_dir: '${oc.env:PLACE}/run', muon_lr: '${oc.env:RATE}', callbacks:\n"
        "  [{class_path: learning_rate_monitor, init_args: {logging_interval: '${oc.env:EVERY}'}}]}\n"
    )
    experiment = load_experiment(file, ["sleep.window_size=24"])
    tracking, training = experiment.tracking, experiment.training
    assert (tracking.uri, tracking.experiment, training.muon_lr) == (URI, "${oc.env:RATE}", 0.25)
    assert tracking.run_name == f"{PLACE}/run/a" and training.callbacks[0]["init_args"] == {"logging_interval": "step"}
    for one in (experiment, experiment.pinned(), experiment.anchored(), load_experiment(experiment.to_dict())):
        plain = one.to_dict()
        assert plain["training"]["run_dir"] == "${oc.env:PLACE}/run" and plain["training"]["muon_lr"] == 0.25
        assert plain["training"]["callbacks"] == [MONITOR]
        assert plain["tracking"]["uri"] == "${oc.env:STORE}"
        assert plain["tracking"]["run_name"] == "${training.run_dir}/a", "what depends on the environment, too"
        assert plain["tracking"]["experiment"] == "\\${oc.env:RATE}"
        assert "canary" not in one.to_yaml()
    assert load_experiment(experiment.to_dict()) == experiment


def test_a_value_that_was_changed_since_is_written(tmp_path: Path) -> None:
    base = load_experiment(BASE, ["training.run_dir=${oc.env:PLACE}", "tracking.uri=${oc.env:STORE}"])
    changed = load_experiment(base.to_dict(), [("training.run_dir", "here"), "tracking.uri=sqlite:///a.db"])
    assert changed.to_dict()["training"]["run_dir"] == "here"
    assert changed.to_dict()["tracking"]["uri"] == "sqlite:///a.db"


def test_a_password_beside_a_reference_is_hidden() -> None:
    assert written("tracking.uri=http://me:${oc.env:RATE}@h")["tracking"]["uri"] == "http://me:${oc.env:RATE}@h"
    assert (
        written("tracking.uri=http://me:canary@${oc.env:EVERY}")["tracking"]["uri"] == "http://me:***@${oc.env:EVERY}"
    )


def test_where_a_saved_run_goes_may_be_unknown_until_it_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    saved = written("training.run_dir=${oc.env:PLACE}/run", "tracking.uri=${oc.env:STORE}")
    monkeypatch.delenv("STORE"), monkeypatch.delenv("PLACE")
    experiment = load_experiment(saved, saved=True)
    assert experiment.training.run_dir is None and experiment.to_dict() == saved
    with pytest.raises(ValueError, match=r"^tracking.uri was saved as a reference to the variable STORE; set that, or"):
        experiment.check_tracking()
    load_experiment(saved, ["tracking.uri=sqlite:///a.db"], saved=True).check_tracking()
    load_experiment(saved, ["tracking.enabled=false"], saved=True).check_tracking()
    with pytest.raises(ValueError, match=r"^training.run_dir: .*'PLACE' not found.*; set it, or fix the \$\{"):
        load_experiment(saved)
    assert load_experiment(written("training.run_dir=${oc.env:PLACE,here}"), saved=True).training.run_dir == "here"


@pytest.mark.parametrize("uri", ["${oc.env:STORE}", URI, f"{URI}?sslpassword=canary"])
def test_a_child_process_gets_the_uri_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    own = [("training.seed", 3), ("training.run_dir", str(tmp_path / "run"))]
    base = load_experiment(BASE, [f"tracking.uri={uri}"])
    experiment = load_experiment(base.to_dict(), [*own, base.uri_override()])
    wanted = experiment.tracking.uri
    assert wanted == base.tracking.uri and "canary" in wanted
    run = FitProcess(experiment, RunDirectory(tmp_path / "run"))
    command = run.command()
    assert "canary" not in " ".join(command) and "canary" not in (tmp_path / "run.yaml").read_text()
    needed = run.variables(1)
    assert needed.get("STORE", "not needed") == (URI if uri.startswith("$") else "not needed")
    monkeypatch.delenv("STORE")  # another machine, as Ray's
    for name, value in needed.items():
        monkeypatch.setenv(name, value)
    child = load_experiment(tmp_path / "run.yaml", [command[-1]])
    assert child.tracking.uri == wanted
    assert HANDED_OVER not in child.to_yaml() and "canary" not in child.to_yaml()
    assert child.to_dict()["tracking"]["uri"] == base.to_dict()["tracking"]["uri"]
