"""``pytest --in-process``: a test that starts a process fails, so that ``make test-fast`` is what it says."""

import multiprocessing.util
import sys
from collections.abc import Iterator
from typing import Any

import pytest

STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
"""Audit events of CPython by which a process begins."""

_running: str | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-process", action="store_true", help="fail tests that start a process")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--in-process"):
        return
    from sleep_lightning.ops.cpp.build import why_not

    why_not()  # compiles the kernels where that has not been done
    sys.addaudithook(_refuse)
    multiprocessing.util.spawnv_passfds = _refuse_spawn  # raises no audit event


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    global _running
    _running = item.nodeid
    try:
        return (yield)  # type: ignore[return-value]
    finally:
        _running = None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and _running is not None:
        raise AssertionError(f"{_running} starts a process ({event} {arguments[:2]}): mark it pytest.mark.process")


def _refuse_spawn(path: str, *arguments: Any) -> int:
    raise AssertionError(f"{_running} starts a process ({path}): mark it pytest.mark.process")
