"""Sweeps on a real Ray of two nodes, while nodes, runs and supervisors are killed."""

import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from sleep_lightning.__main__ import main
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import RayLauncher, RayOptions
from sleep_lightning.sweep.measures import MEASURED
from sleep_lightning.sweep.study import finished, read_study
from tests.cli.cli import ROOT, SMALL, command, environment
from tests.cluster.services import Ray, free_ports, wait_until
from tests.sweep import stand_in
from tests.sweep.sweeps import small_sweep

if find_spec("ray"):  # read when it is imported
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
ray = pytest.importorskip("ray", reason="Ray is not installed; make test-cluster installs it")
Patch = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ray]:
    service = Ray(tmp_path_factory.mktemp("ray"))
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.fixture
def cluster(started: Ray, monkeypatch: Patch) -> Iterator[Ray]:
    """Two nodes, whatever the test before has killed. Runs of this process are stand-ins unless it says otherwise."""
    monkeypatch.chdir(ROOT)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    if not started.processes(Ray.OTHER):
        started.start_other()
    yield started
    ray.shutdown()


_supervisors: list[subprocess.Popen[bytes]] = []


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    for process in _supervisors:
        process.kill()
        process.wait()


@pytest.fixture
def launcher(cluster: Ray, monkeypatch: Patch) -> RayLauncher:
    for name in ("command", "begin_command", "resume_command"):
        monkeypatch.setattr(FitProcess, name, getattr(FitProcess, name))  # put back afterwards
    stand_in.stand_for_fit()
    return RayLauncher(RayOptions(address=cluster.address), threads=1)


def some_run(tmp_path: Path) -> FitProcess:
    return FitProcess(small_sweep().base, RunDirectory(tmp_path / "a 100% $HOME 'place'" / "0000-seed0"))


def finish(launcher: RayLauncher, run: FitProcess) -> str:
    ended: list[str] = []

    def has_ended() -> bool:
        if (how := launcher.poll(run)) is not None:
            ended.append(str(how))
        return bool(ended)

    wait_until(has_ended, "the run's end")
    return ended[0]


def steps(run: Path) -> list[int]:
    file = run / "steps"
    return list(map(int, file.read_text().split())) if file.exists() else []


def test_a_run_is_trained_by_an_actor_that_gives_its_cpu_back(launcher: RayLauncher, tmp_path: Path) -> None:
    run = some_run(tmp_path)
    launcher.submit(run)
    assert launcher.poll(run) is None
    launcher.submit(run)  # it is at work already
    assert finish(launcher, run) == "done" and steps(run.directory.path) == [1, 2, 3, 4, 5, 6]
    wait_until(lambda: ray.available_resources().get("CPU") == 2, "the CPU")


def test_sigterm_is_still_the_supervisor_s(cluster: Ray) -> None:
    before = signal.getsignal(signal.SIGTERM)
    launcher = RayLauncher(RayOptions(address=cluster.address), threads=1)
    assert signal.getsignal(signal.SIGTERM) is before
    launcher.close()
    assert not ray.is_initialized()


def test_stopping_a_run_that_trains_and_one_that_waits(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "1")
    runs = [some_run(tmp_path / str(i)) for i in range(3)]
    for run in runs:
        launcher.submit(run)
    wait_until(lambda: sum(bool(steps(run.directory.path)) for run in runs) == 2, "two runs")
    began = time.monotonic()
    launcher.stop(runs)
    assert time.monotonic() - began < 30
    ends = [str(launcher.poll(run)) for run in runs]
    assert sorted(ends) == ["ended by the sweep", *["killed by signal 15 (SIGTERM)"] * 2]
    assert all(run.directory.holder() is None for run in runs)


def test_a_run_that_does_not_save_is_killed(
    launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = some_run(tmp_path)
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    monkeypatch.setattr(FitProcess, "begin_command", lambda self: [sys.executable, "-S", "-c", code])
    launcher.submit(run)
    wait_until(lambda: run.last_words() == "deaf", "the run")
    launcher.stop([run], seconds=0.5)
    assert str(launcher.poll(run)) == "ended by the sweep"


def test_a_lost_node_s_run_resumes_on_another(
    cluster: Ray, launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "1")
    runs = [some_run(tmp_path / str(i)) for i in range(2)]
    for run in runs:
        launcher.submit(run)
    wait_until(lambda: all(3 in steps(run.directory.path) for run in runs), "checkpoints")
    cluster.kill(Ray.OTHER)
    assert [finish(launcher, run) for run in runs] == ["done", "done"]
    assert sum("its Ray worker was lost; submitted again" in event for event in launcher.events) >= 1
    for run in runs:
        done = steps(run.directory.path)
        assert done.count(1) == 1 and all(b == a + 1 or (b - 1) % stand_in.EVERY == 0 for a, b in pairwise(done))


def test_a_run_that_outlives_its_node_is_waited_for(
    cluster: Ray, launcher: RayLauncher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "2")
    runs = [some_run(tmp_path / str(i)) for i in range(2)]
    for run in runs:
        launcher.submit(run)
    wait_until(lambda: all(1 in steps(run.directory.path) for run in runs), "the runs")
    cluster.kill(Ray.OTHER, spared="stand_in")
    assert [finish(launcher, run) for run in runs] == ["done", "done"]
    assert [steps(run.directory.path) for run in runs] == [[1, 2, 3, 4, 5, 6]] * 2
    assert not any((run.directory.path / "again").exists() for run in runs)


def test_resources_that_no_node_has_are_reported(cluster: Ray, launcher: RayLauncher, tmp_path: Path) -> None:
    wide = RayLauncher(RayOptions(address=cluster.address, num_gpus=3), threads=1)
    run = some_run(tmp_path)
    wide.submit(run)
    assert wide.events == ["no node of the Ray cluster has CPU 1, GPU 3: runs wait until one joins"]
    wide.stop([run])
    assert str(wide.poll(run)) == "ended by the sweep"


def test_without_a_cluster_it_is_one_sentence(monkeypatch: Patch) -> None:
    [port] = free_ports(1)
    with pytest.raises(ValueError, match=rf"ray.address='127.0.0.1:{port}': no Ray cluster can be reached") as caught:
        RayLauncher(RayOptions(address=f"127.0.0.1:{port}"), threads=1)
    assert "\n" not in str(caught.value) and "ray start --head" in str(caught.value)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"which is not installed; run: pip install 'sleep-lightning\[ray\]'"):
        RayLauncher(RayOptions(), threads=1)


@pytest.mark.parametrize(
    ("missing", "given", "expected"),
    [
        (["RAY_AUTH_MODE"], {}, "if it asks for a token, set RAY_AUTH_MODE=token"),
        ([], {"RAY_AUTH_TOKEN": "b" * 64}, "no Ray cluster can be reached there"),
        (["RAY_AUTH_TOKEN"], {"HOME": "/nowhere"}, "no token of the cluster is here"),
    ],
)
def test_who_has_no_token_is_not_let_in(
    cluster: Ray, tmp_path: Path, missing: list[str], given: dict[str, str], expected: str
) -> None:
    (tmp_path / "ray.yaml").write_text(
        f"name: tiny\nbase: {ROOT}/conf/depo.yaml\nsampler: grid\nspace: {{sleep.n_passes: {{choices: [1]}}}}\n"
        f"budget: {{trials: 1}}\npruner: none\nlauncher: ray\nray: {{address: '{cluster.address}'}}\n"
    )
    variables = {name: value for name, value in environment().items() if name not in missing} | given
    line = command("sweep", "ray.yaml", "--output", "on_ray")
    done = subprocess.run(line, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=200)
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and f"ray.address='{cluster.address}'" in said and expected in said, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "on_ray").exists()


def supervise(folder: Path, trials: int, cluster: Ray) -> subprocess.Popen[bytes]:
    options = {"launcher": "ray", "ray": {"address": cluster.address}, "retries": 3}
    words = ["supervise", str(folder), str(trials), "2", json.dumps(options)]
    folder.mkdir(exist_ok=True)
    with (folder / "supervisor.log").open("ab") as log:
        line = [sys.executable, "-m", "tests.sweep.stand_in", *words]
        _supervisors.append(subprocess.Popen(line, env=environment(), cwd=ROOT, stdout=log, stderr=log))
    return _supervisors[-1]


def holders(folder: Path) -> list[int]:
    found = [RunDirectory(file.parent).holder() for file in folder.glob("trials/*/lock")]
    return [holder.pid for holder in found if holder is not None]


@pytest.mark.slow
def test_eight_trials_under_kill_9_of_node_run_and_supervisor(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAND_IN_SECONDS", "0.5")
    cluster.kill(Ray.OTHER)
    cluster.start_other()
    folder, dice, done = tmp_path / "sweep", random.Random(0), Counter[str]()
    process, deadline = supervise(folder, 8, cluster), time.monotonic() + 600
    kinds = ["kill a run", "kill the supervisor", "kill the node", "kill the node, not its run"]
    while process.poll() != 0:
        assert time.monotonic() < deadline, (folder / "supervisor.log").read_text()
        if process.poll() is not None:
            assert process.returncode == -signal.SIGKILL, (folder / "supervisor.log").read_text()
            process = supervise(folder, 8, cluster)
        if not cluster.processes(Ray.OTHER):
            cluster.start_other()
        time.sleep(dice.uniform(0.2, 2))
        alive = holders(folder)
        if not alive or done.total() >= 8:
            continue
        what = kinds[done.total() % 4]
        if what == "kill a run":
            os.kill(dice.choice(alive), signal.SIGKILL)
        elif what == "kill the supervisor":
            process.kill()
            process.wait()
        else:
            cluster.kill(Ray.OTHER, spared="stand_in" if what.endswith("not its run") else "")
        done[what] += 1
    said = (folder / "supervisor.log").read_text()
    assert done.total() == 8, f"the sweep was over after {dict(done)}: {said}"
    study = read_study(folder)
    assert Counter(trial.state for trial in study.get_trials()) == {TrialState.COMPLETE: 8}, said
    for directory in folder.glob("trials/*-seed0"):
        assert not (directory / "again").exists(), "started though it was finished"
        taken = steps(directory)
        assert set(taken) == set(range(1, stand_in.STEPS + 1))
        assert all(b == a + 1 or (b - 1) % stand_in.EVERY == 0 for a, b in pairwise(taken))
    assert not holders(folder)


def results(folder: Path) -> dict[int, dict[str, Any]]:
    """What trained by which point, without what a clock and the machine tell."""
    found = {}
    for trial in finished(read_study(folder)):
        result = {name: value for name, value in trial.user_attrs["result"].items() if name not in MEASURED}
        found[trial.user_attrs["values"]["sleep.n_passes"]] = result | {"curve": trial.user_attrs["curve"]}
    return found


@pytest.mark.slow
def test_real_runs_on_two_nodes_one_of_them_killed(
    cluster: Ray, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is lost: every trial finishes once, with the results of a sweep on this machine that nobody disturbed."""
    monkeypatch.chdir(tmp_path)
    keys = [*(key for key in SMALL if not key.startswith("task.")), "training.max_steps=300", "training.val_every=50"]
    file = tmp_path / "tiny.yaml"
    file.write_text(
        f"name: tiny\nbase: {ROOT}/conf/depo.yaml\noverrides: {json.dumps(keys)}\nsampler: grid\nworkers: 2\n"
        "space: {sleep.n_passes: {choices: [1, 2, 3, 4]}}\nbudget: {trials: 4}\npruner: none\nretries: 0\n"
    )
    assert main(["sweep", str(file), "--output", "local"]) == 0
    on_ray = f"launcher: ray\nray: {{address: '{cluster.address}'}}\n"
    (tmp_path / "ray.yaml").write_text(file.read_text().replace("name: tiny", "name: on-ray") + on_ray)
    with (tmp_path / "log").open("wb") as log:
        line = command("sweep", "ray.yaml", "--output", "on_ray")
        process = subprocess.Popen(line, cwd=tmp_path, env=environment(), stdout=log, stderr=log)
    _supervisors.append(process)

    def on_the_other_node() -> bool:
        assert process.poll() is None, (tmp_path / "log").read_text()
        fits = [" ".join(p.cmdline()) for p in cluster.processes(Ray.OTHER) if p.is_running()]
        runs = [file.parent.parent for file in (tmp_path / "on_ray" / "trials").glob("*/checkpoints/last.ckpt")]
        return any(str(run.name) in fit and not (run / "summary.json").exists() for run in runs for fit in fits)

    wait_until(on_the_other_node, "a checkpoint of a run on the node that is to be lost", seconds=300)
    cluster.kill(Ray.OTHER)
    assert process.wait(600) == 0, (tmp_path / "log").read_text()
    said = (tmp_path / "log").read_text()
    assert "its Ray worker was lost; submitted again" in said and "; resumed" not in said, said
    assert results(tmp_path / "on_ray") == results(tmp_path / "local")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    runs = client.search_runs([experiment.experiment_id], max_results=100)
    assert (
        sorted(run.info.status for run in runs) == ["FINISHED"] * 12
    )  # of each sweep itself, its frontier, its trials
