"""``fit training.devices=2`` from the outside: it starts the other rank, and ends with it."""

import json
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.infrastructure import Cause
from tests.cli.cli import fit_arguments, start
from tests.cli.test_fit import mlflow_run

pytestmark = pytest.mark.process


@pytest.fixture
def fit(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A run of two ranks."""
    keys = ["training.val_every=3", "training.devices=2", "training.accelerator=cpu"]
    process = start(tmp_path, *fit_arguments("run", 1000, *keys))
    yield process
    process.kill()
    process.wait()


def wait_for_step(process: subprocess.Popen[str], step: int) -> psutil.Process:
    """Returns the other rank."""
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith(f"step {step}:"):
            [other] = psutil.Process(process.pid).children()
            return other
    raise AssertionError("".join(said))


@pytest.mark.long
def test_ranks_listen_on_the_loopback_interface_and_meet_in_a_file_of_their_user(
    fit: subprocess.Popen[str], tmp_path: Path
) -> None:
    other = wait_for_step(fit, 3)
    file = Path(other.environ()["SLEEP_LIGHTNING_RENDEZVOUS"])
    assert file.exists() and file.parent.stat().st_mode & 0o077 == 0
    assert "MASTER_PORT" in other.environ()
    for process in (psutil.Process(fit.pid), other):
        listening = [one.laddr for one in process.net_connections() if one.status == psutil.CONN_LISTEN]
        assert listening and {address.ip for address in listening} == {"127.0.0.1"}
        assert int(other.environ()["MASTER_PORT"]) not in {address.port for address in listening}
    fit.send_signal(signal.SIGTERM)
    fit.wait(120)
    assert not file.parent.exists()


@pytest.mark.slow
def test_sigterm_stops_both_and_one_run_is_recorded(fit: subprocess.Popen[str], tmp_path: Path) -> None:
    other = wait_for_step(fit, 3)
    holder = RunDirectory(tmp_path / "run").holder()
    assert holder is not None and holder.pid == fit.pid
    fit.send_signal(signal.SIGTERM)
    assert fit.stdout is not None
    rest = fit.stdout.read()
    assert fit.wait(120) == 128 + signal.SIGTERM, rest
    assert not other.is_running()
    assert rest.count("validation at step") == 1 and rest.count("SIGTERM: saving") == 1
    _, found = mlflow_run(tmp_path)
    assert found.info.status == "KILLED"
    assert found.data.tags["environment.ranks"] == "2 (2 a node)"
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["tokens"] == summary["steps"] * 8 * 14


@pytest.mark.slow
def test_a_lost_rank_ends_the_run_in_one_sentence(fit: subprocess.Popen[str], tmp_path: Path) -> None:
    other = wait_for_step(fit, 3)
    other.kill()
    assert fit.stdout is not None
    rest = fit.stdout.read()
    assert fit.wait(120) in (Cause.MEMORY, Cause.NODE)  # it was killed, as for want of memory
    [line] = [line for line in rest.splitlines() if line.startswith("error: ")]
    assert "another process of this run is gone" in line and "fit --resume" in line
    assert "Traceback" not in rest
    assert mlflow_run(tmp_path)[1].info.status == "FAILED"
