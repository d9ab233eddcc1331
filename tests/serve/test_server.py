"""The command: what it checks before it loads, and that a signal saves every session."""

import json
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from sleep_lightning.__main__ import main
from tests.cli.cli import start

WAIT = 240.0


class Serving:
    """The command in a process of its own; port and token are what it has printed."""

    def __init__(self, cwd: Path, folder: Path) -> None:
        arguments = ("--checkpoint", str(folder), "--port", "0", "--directory", "kept", "--limit", "passes=3")
        self.process = start(cwd, "serve", "sleep.n_passes=2", *arguments)
        assert self.process.stdout is not None
        said = {}
        for line in self.process.stdout:
            name, _, value = line.strip().partition("  ")
            said[name] = value.strip()
            if line.startswith("ready"):
                break
        headers = {"Authorization": f"Bearer {said['token']}"}
        self.address, self.client = said["address"], httpx.Client(headers=headers, timeout=WAIT, trust_env=False)

    def get(self, path: str = "") -> Any:
        return self.client.get(self.address + path).json()

    def post(self, path: str = "", **body: Any) -> httpx.Response:
        return self.client.post(self.address + path, json=body)

    def end(self, number: signal.Signals) -> str:
        self.process.send_signal(number)
        return self.process.communicate(timeout=WAIT)[0]


@pytest.mark.process
@pytest.mark.slow
def test_a_signal_saves_every_session(tmp_path: Path, model_folder: Path) -> None:
    server = Serving(tmp_path, model_folder)
    try:
        ids = [server.post().json()["id"] for _ in range(2)]
        for id in ids:
            assert server.post(f"/{id}/append", text="0 1 0 1 1 0 1").json()["windows_closed"] == 1
        queued = server.post(f"/{ids[0]}/append", text="1 1", wait=False)
        assert queued.status_code == 202
        told = server.end(signal.SIGTERM)
        assert server.process.returncode == 0 and "saved 2 sessions in kept" in told and "Traceback" not in told
        server = Serving(tmp_path, model_folder)
        assert sorted(server.get()["sessions"]) == sorted(ids)
        seen = [server.get(f"/{id}")["tokens_seen"] for id in ids]
        assert seen == [9, 7]
        told = server.end(signal.SIGINT)
        assert server.process.returncode == 0 and "Traceback" not in told
    finally:
        server.process.kill()
        server.process.wait()
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "kept" / "local").iterdir()} == {0o600}


@pytest.mark.process
@pytest.mark.slow
def test_a_signal_ends_an_answer_that_is_streamed(tmp_path: Path, model_folder: Path) -> None:
    server = Serving(tmp_path, model_folder)
    try:
        id = server.post().json()["id"]
        body = {"text": "0 1", "max_new_tokens": 1024}
        with server.client.stream("POST", f"{server.address}/{id}/generate", json=body) as stream:
            lines = stream.iter_lines()
            said = [next(lines) for _ in range(30)]
            server.process.send_signal(signal.SIGTERM)
            said += list(lines)
        told = server.process.communicate(timeout=WAIT)[0]
        assert server.process.returncode == 0 and "saved 1 sessions" in told and "Traceback" not in told
        assert said[-3] == "event: done"
        done = json.loads(said[-2].removeprefix("data: "))
        assert not done["complete"] and 8 < len(done["tokens"]) < 1024
        server = Serving(tmp_path, model_folder)
        stands = server.get(f"/{id}")
        assert stands["tokens_seen"] == 2 + len(done["tokens"]) and stands["n_passes"] == 2
        with server.client.stream("POST", f"{server.address}/{id}/generate", json=body) as stream:
            next(stream.iter_lines())  # and the client goes
        assert server.get(f"/{id}")["tokens_seen"] < stands["tokens_seen"] + 1024
        server.end(signal.SIGTERM)
        assert server.process.returncode == 0
    finally:
        server.process.kill()
        server.process.wait()


@pytest.mark.long
def test_what_is_wrong_is_said_before_anything_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SLEEP_LIGHTNING_TOKENS", raising=False)
    (tmp_path / "file").touch()
    for arguments, said in (
        (["--port", "70000"], "--port 70000 must be from 0 to 65535"),
        (["--memory-mb", "0"], "--memory-mb 0 must be from 1"),
        (["--host", "0.0.0.0"], "can be reached by others, so --tokens FILE is needed"),
        (["--host", "no.such.host.invalid", "--tokens", "file"], "--tokens file can be read by others"),
        (["--limit", "passes=many"], "--limit passes=many must be NAME=NUMBER"),
        (["--directory", "file/x"], "--directory file/x cannot be created"),
        (["--tokens", "none"], "--tokens none cannot be read"),
        (["--token", "abc"], "--token"),
        (["training.max_steps=2"], "training.max_steps=2 would change nothing"),
        ([], "--checkpoint none"),
    ):
        assert (
            main(["serve", "--checkpoint", "none", *(["--port", "0"] if "--port" not in arguments else []), *arguments])
            == 2
        )
        assert said in capsys.readouterr().err


def test_without_its_packages_it_names_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--checkpoint", "none"]) == 2
    assert "pip install 'sleep-lightning[serve]'" in capsys.readouterr().err
