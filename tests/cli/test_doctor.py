"""``doctor``: every state it can report is provoked, and it runs once for real."""

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.commands import doctor
from sleep_lightning.cli.doctor.finding import Finding, run_checks
from sleep_lightning.model import MEMORY_MIXERS
from tests.cli.cli import ROOT, environment, run

Patch = pytest.MonkeyPatch


def raising() -> Iterable[Finding]:
    raise OSError("the dog ate it")


@pytest.mark.process
def test_it_runs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    config = str(ROOT / "conf" / "rule110.yaml")
    done = run(tmp_path, "doctor", "--config", config, "model.key_dim=20", "--output", "doctor.json")
    assert done.returncode == 0, done.stdout + done.stderr
    written = json.loads((tmp_path / "doctor.json").read_text())
    states = {row["check"]: row["state"] for row in written["checks"]}
    assert written["errors"] == 0 and "error" not in states.values()
    for rule in {mixer.rule.name for mixer in MEMORY_MIXERS.values()}:
        assert states[f"{rule} on cpu"] == "ok"
    for check in ("Python", "packages", "devices", "runs folder", "MLflow store", "experiment: memory"):
        assert states[check] in ("ok", "warning")
        assert check in done.stdout
    own = next(row for row in written["checks"] if row["check"].startswith("experiment: gated_delta_rule"))
    assert "12 tokens" in own["found"] and "agrees with the definition" in own["found"]
    assert [file.name for file in tmp_path.iterdir()] == ["doctor.json"]


@pytest.mark.process
def test_a_broken_package_is_an_error_row_not_a_traceback(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('libcudart.so.12: cannot open shared object file')\n")
    ours = environment()
    broken = ours | {"PYTHONPATH": f"{tmp_path}:{ours['PYTHONPATH']}"}
    arguments = ["doctor", "--config", str(ROOT / "conf" / "rule110.yaml")]
    line = [sys.executable, "-m", "sleep_lightning", *arguments]
    done = subprocess.run(line, cwd=tmp_path, env=broken, capture_output=True, text=True)
    assert done.returncode == 1
    assert "libcudart.so.12" in done.stdout and "runs folder" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_with_nothing_installed(tmp_path: Path) -> None:
    line = [sys.executable, "-S", "-m", "sleep_lightning", "doctor"]
    done = subprocess.run(line, cwd=tmp_path, env=environment(), capture_output=True, text=True)
    assert done.returncode == 1
    assert "error: versions: ModuleNotFoundError" in done.stdout and "pip install -e ." in done.stdout
    assert "ok: runs folder: " in done.stdout
    assert "Traceback" not in done.stderr


def test_one_failing_check_leaves_the_others(capsys: pytest.CaptureFixture[str], monkeypatch: Patch) -> None:
    findings = run_checks([("first", raising), ("second", lambda: [Finding("second", "ok", "fine")])])
    assert [one.state for one in findings] == ["error", "ok"]
    assert findings[0].found == "OSError: the dog ate it"
    monkeypatch.setattr(doctor, "checks", lambda experiment: [("first", raising)])
    assert main(["doctor"]) == 1
    assert "the dog ate it" in capsys.readouterr().out
    monkeypatch.setattr(
        doctor, "checks", lambda experiment: [("w", lambda: [Finding("w", "warning", "slow", "hurry")])]
    )
    assert main(["doctor"]) == 0
    assert "0 errors, 1 warning\n" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--config", "no.yaml"], ["model.d_modle=3"], ["--output", "no/where.json"]])
def test_bad_input(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", *arguments]) == 2
    assert arguments[-1].partition("=")[0] in capsys.readouterr().err
