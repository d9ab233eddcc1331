"""Commands in forks of a process that has imported everything: seconds less for each than in a new interpreter.

A fork runs ``python -m sleep_lightning`` as a new process would: its own directory, arguments, outputs, exit code. Only
with the variables under which everything was imported; with others there is no fork. Tests of what happens at the start
and of signals start processes of their own.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PRELOADED = ("lightning.pytorch", "mlflow", "optuna", "sleep_lightning.cli.fit", "sleep_lightning.training.module")
CHANGES = {"PYTEST_CURRENT_TEST"}
"""Variable that means nothing to a command."""

_server: "_Server | None" = None


class _Server:
    def __init__(self, env: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.env, self.owner = env, os.getpid()
        line = [sys.executable, "-m", "tests.cli.warm", str(theirs.fileno())]
        self.process = subprocess.Popen(line, env=env, cwd=env["PYTHONPATH"], pass_fds=[theirs.fileno()])
        theirs.close()
        self.stream = ours.makefile("rw")

    def run(self, arguments: tuple[str, ...], cwd: Path, timeout: float) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            request = {"arguments": arguments, "cwd": str(cwd), "timeout": timeout}
            request["outputs"] = [f"/proc/{os.getpid()}/fd/{file.fileno()}" for file in (out, err)]
            self.stream.write(json.dumps(request) + "\n")
            self.stream.flush()
            code = json.loads(self.stream.readline())
            texts = [(file.seek(0), file.read())[1] for file in (out, err)]
        if code is None:
            raise subprocess.TimeoutExpired(list(arguments), timeout, *texts)
        return subprocess.CompletedProcess(list(arguments), code, *texts)


def run_warm(
    arguments: tuple[str, ...], cwd: Path, env: dict[str, str], timeout: float
) -> subprocess.CompletedProcess[str] | None:
    """As ``subprocess.run`` with captured outputs; None if the variables are not those of the first call."""
    global _server
    if not Path("/proc/self/fd").exists():
        return None
    if _server is None or _server.owner != os.getpid() or _server.process.poll() is not None:
        _server = _Server(env)
    before = _server.env
    if {key for key in env.keys() | before.keys() if env.get(key) != before.get(key)} - CHANGES:
        return None
    return _server.run(arguments, cwd, timeout)


def _serve(connection: socket.socket) -> dict[str, Any] | None:
    """The request, in a fork of its own; None in the server, when nobody asks any more."""
    stream = connection.makefile("rw")
    for line in stream:
        request: dict[str, Any] = json.loads(line)
        if (pid := os.fork()) == 0:
            stream.close()
            connection.close()
            return request
        stream.write(json.dumps(_wait(pid, request["timeout"])) + "\n")
        stream.flush()
    return None


def _wait(pid: int, timeout: float) -> int | None:
    """Its exit code; None if it took too long, and was killed."""
    late = False

    def kill(number: int, frame: object) -> None:
        nonlocal late
        late = True
        os.kill(pid, signal.SIGKILL)

    signal.signal(signal.SIGALRM, kill)
    signal.setitimer(signal.ITIMER_REAL, timeout)
    _, status = os.waitpid(pid, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return None if late else os.waitstatus_to_exitcode(status)


def _become(request: dict[str, Any]) -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    os.chdir(request["cwd"])
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, path in enumerate(request["outputs"], 1):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, number)
        os.close(file)
    os.close(null)
    sys.path[0] = request["cwd"]
    sys.argv = ["sleep_lightning", *request["arguments"]]


if __name__ == "__main__":
    import runpy
    from importlib import import_module

    for module in PRELOADED:
        import_module(module)
    if (request := _serve(socket.socket(fileno=int(sys.argv[1])))) is not None:
        _become(request)
        runpy.run_module("sleep_lightning", run_name="__main__", alter_sys=True)
