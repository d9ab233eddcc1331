"""Commands in processes that fork from one which has imported everything: a start costs milliseconds."""

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.cli.cli import ROOT

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["sleep_lightning.cli.fit", "sleep_lightning.cli.sweep", "sleep_lightning.cli.compare"])


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "PYTHONPATH")}
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    yield
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def start(folder: Path, what: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Call a function of a module in a process of its own, a session of its own, and a folder, where it has a log."""
    process = _FORKS.Process(target=_call, args=(str(folder), what, arguments), daemon=False)
    with _one_thread():
        process.start()
    return process


def _call(folder: str, what: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.setsid()
    os.chdir(folder)
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(ROOT))
    sys.exit(what(*arguments))


def command(*argv: str) -> int:
    """The command line."""
    from sleep_lightning.__main__ import main

    return main(argv)
