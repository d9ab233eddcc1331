"""``pytest --in-process``: a test that starts a process fails. With it ``make test-fast`` is what it says.

Tests that start processes are marked ``process``, those that need Chromium ``browser``, those that take a second or
more ``long``. Of large families of parametrised tests it runs a sample.
"""

import multiprocessing.util
import platform
import sys
from collections.abc import Generator
from typing import Any

import hypothesis
import pytest

FIXTURES = {"browser": "browser", "fresh": "process", "fresh_build": "process"}
"""Fixture -> marker of the tests that use it."""
INHERITED = {"test_compiles_into_one_graph": "long"}
"""Test of a shipped suite -> marker: a suite knows no markers, as its users have others."""
SAMPLE = 8
"""Parametrised cases of a test that are run at most."""
STARTS = ("subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.exec", "os.system")
"""CPython's audit events of a starting process."""

_running: str | None = None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--in-process", action="store_true", help="fail tests that start a process")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--in-process"):
        return
    hypothesis.settings.register_profile("fast", max_examples=5)
    hypothesis.settings.load_profile("fast")
    from sleep_lightning.ops.cpp.build import why_not

    why_not()  # where the kernels are not built yet, a compiler starts
    platform.processor()  # asks uname, once
    sys.addaudithook(_refuse)
    multiprocessing.util.spawnv_passfds = _refuse_spawn  # raises no audit event


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    families: dict[str, list[pytest.Item]] = {}
    for item in items:
        for fixture in FIXTURES.keys() & set(getattr(item, "fixturenames", ())):
            item.add_marker(FIXTURES[fixture])
        if "cluster" in item.path.parts:
            item.add_marker("process")
        name = item.nodeid.partition("[")[0]
        if marker := INHERITED.get(name.rpartition("::")[2]):
            item.add_marker(marker)
        families.setdefault(name, []).append(item)
    if config.getoption("--in-process"):
        kept = {id(item) for family in families.values() for item in _sample(family)}
        config.hook.pytest_deselected(items=[item for item in items if id(item) not in kept])
        items[:] = [item for item in items if id(item) in kept]


def _sample(family: list[pytest.Item]) -> list[pytest.Item]:
    """Evenly spaced."""
    n = min(SAMPLE, len(family))
    return [family[i * len(family) // n] for i in range(n)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    global _running
    _running = item.nodeid
    try:
        return (yield)
    finally:
        _running = None


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event in STARTS and _running is not None:
        raise AssertionError(f"{_running} starts a process ({event} {arguments[:2]}): mark it pytest.mark.process")


def _refuse_spawn(path: str, *arguments: Any) -> int:
    raise AssertionError(f"{_running} starts a process ({path}): mark it pytest.mark.process")
