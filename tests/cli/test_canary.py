"""Canary secrets, looked for in everything that runs, comparisons and sweeps leave behind: files, MLflow, output,
command lines."""

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from sleep_lightning.__main__ import main
from tests.browser import mlflow_server
from tests.cli.cli import ROOT, SMALL, command, environment, fit_arguments

PASSWORD, TOKEN, KEY = "canary-pass%2Fword", "canary-of-a-token", "canary-of-a-key"
LOUD = """
import lightning.pytorch as pl

class Loud(pl.Callback):
    def __init__(self, key: str, breaks: bool = False):
        self.key, self.breaks = key, breaks

    def on_train_start(self, trainer, module):
        print("the key is", self.key, flush=True)
        if self.breaks:
            raise RuntimeError(f"http://me:{self.key}@host refuses {self.key}")
"""
LOUD_KEY = "training.callbacks=[{class_path: loud.Loud, init_args: {key: '${oc.env:CANARY_KEY}', breaks: %s}}]"


def leaks(folder: Path) -> list[str]:
    """Files with a canary in them, or in their names."""
    found = [path for path in folder.rglob("*") if b"canary" in os.fsencode(path.name)]
    return [str(p) for p in [*found, *(p for p in folder.rglob("*") if p.is_file() and b"canary" in p.read_bytes())]]


class Watching:
    """Command lines of a process's descendants, while the block runs; before its exec, a child has its parent's."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process, self._own, self._stop = psutil.Process(process.pid), process.args, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: set[str] = set()

    def _look(self) -> None:
        while not self._stop.wait(0.02):
            try:
                for child in self._process.children(recursive=True):
                    if (line := child.cmdline()) != self._own:
                        self.seen.add(" ".join(line))
            except psutil.Error:
                continue

    def __enter__(self) -> "Watching":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def run(folder: Path, *words: str, **variables: str) -> tuple[int, str, set[str]]:
    """Exit code, output and command lines of children."""
    own = environment() | {"CANARY_KEY": KEY, "PGPASSWORD": TOKEN} | variables
    process = subprocess.Popen(
        command(*words), cwd=folder, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with Watching(process) as watching:
        said, _ = process.communicate(timeout=300)
    return process.returncode, said, watching.seen


def sweep_file(folder: Path, uri: str, passes: str = "[1, 2]") -> str:
    small = [key for key in SMALL if not key.startswith("task.")]
    overrides = [f"tracking.uri={uri}", "training.max_steps=5", LOUD_KEY % "false", *small]
    lines = "".join(f'  - "{one}"\n' for one in overrides)
    (folder / "tiny.yaml").write_text(
        f"name: tiny\nbase: {ROOT}/conf/depo.yaml\noverrides:\n{lines}"
        f"space: {{sleep.n_passes: {{choices: {passes}}}}}\nsampler: grid\nbudget: {{trials: 2}}\nretries: 0\n"
    )
    return "tiny.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "loud.py").write_text(LOUD)
    return tmp_path / "work"


@pytest.mark.long
def test_a_run_whose_store_is_away(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("CANARY_KEY", KEY)
    uri = f"http://me:{PASSWORD}@127.0.0.1:9/?token={TOKEN}"
    more = [f"tracking.uri={uri}", "tracking.required=false", LOUD_KEY % "false"]
    assert main(fit_arguments("run", 5, *more)) == 0
    said = capfd.readouterr()
    assert "the key is ***" in said.out and "no run yet, as the store could not be reached" in said.out
    assert "canary" not in said.out + said.err
    assert any("MLflow does not take" in str(one.message) for one in recwarn)
    assert not any("canary" in str(one.message) for one in recwarn)
    assert "${oc.env:CANARY_KEY}" in Path("run/config.yaml").read_text() and leaks(folder) == []
    assert main(["fit", "--resume", "run"]) == 2
    said = capfd.readouterr()
    assert "tracking.uri='http://me:***@127.0.0.1:9/?token=***' was saved without its password; give it" in said.err
    assert main(["fit", "--resume", "run", f"tracking.uri={uri}", "tracking.required=true"]) == 2
    said = capfd.readouterr()
    assert "tracking.uri='http://me:***@127.0.0.1:9/?token=***' cannot be used" in said.err
    assert "canary" not in said.out + said.err and leaks(folder) == []


@pytest.mark.long
def test_a_traceback_has_no_secret(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("CANARY_KEY", KEY)
    with pytest.raises(RuntimeError) as caught:
        main(fit_arguments("run", 5, "tracking.enabled=false", LOUD_KEY % "true"))
    sys.excepthook(caught.type, caught.value, caught.tb)  # as the interpreter does
    said = capfd.readouterr().err
    assert "Traceback" in said and "http://me:***@host refuses ***" in said
    assert "canary" not in said.replace("test_canary.py", "") and leaks(folder) == []


@pytest.mark.slow
def test_a_sweep_with_a_database_of_its_own(folder: Path) -> None:
    code, said, commands = run(
        folder, "sweep", sweep_file(folder, "${oc.env:STORE}", "[1]"), STORE="sqlite:///mlflow.db"
    )
    assert code == 0 and "1 complete" in said, said
    assert "canary" not in said and any("fit --config" in line for line in commands)
    assert not any("canary" in line for line in commands) and leaks(folder) == []
    database = (folder / "mlflow.db").read_bytes()
    assert b"tracking.uri=${oc.env:STORE}" in database and b"${oc.env:CANARY_KEY}" in database
    assert "the key is ***" in next((folder / "runs/sweeps/tiny/trials").glob("*.log")).read_text()


@pytest.mark.slow
def test_a_server_with_a_password(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "server").mkdir()
    with mlflow_server(f"sqlite:///{tmp_path}/server/mlflow.db", tmp_path / "server") as host:
        uri = f"http://me:{PASSWORD}@{host}/"
        jobs: Iterator[list[str]] = iter(
            [
                fit_arguments("run", 5, f"tracking.uri={uri}", LOUD_KEY % "false"),
                ["compare", str(ROOT / "conf/rule110.yaml"), *SMALL, "training.max_steps=5", f"tracking.uri={uri}",
                 LOUD_KEY % "false", "--arms", "n1", "--seeds", "0", "1", "--jobs", "2"],
                ["sweep", sweep_file(folder, uri)],
            ]
        )  # fmt: skip
        for words in jobs:
            code, said, commands = run(folder, *words)
            assert code == 0 and "canary" not in said, said
            assert not any("canary" in line for line in commands)
        (folder / "tiny.yaml").unlink()  # the user's own, with the password in it
        assert leaks(folder) == []
        written = leaks(tmp_path / "server")
    assert written == [] and b"tiny" in (tmp_path / "server/mlflow.db").read_bytes()
