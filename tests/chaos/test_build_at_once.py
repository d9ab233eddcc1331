"""Six processes that need the kernels at once, some of which are killed: the others load them from one cache."""

import random
import time
from pathlib import Path

import pytest

from tests.chaos.conftest import Figures
from tests.chaos.forked import start

BUILDERS, KILLED = 6, 2


def load_kernels(cache: str) -> int:
    """Build or load them in a cache. Returns the exit code."""
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    from sleep_lightning.ops.cpp.build import load

    load()
    return 0


@pytest.mark.slow  # each compiles for some time
@pytest.mark.process
def test_builders_of_one_cache(tmp_path: Path, figures: Figures) -> None:
    dice = random.Random(0)
    builders = [start(tmp_path, load_kernels, str(tmp_path / "cache")) for _ in range(BUILDERS)]
    for process in builders[:KILLED]:
        time.sleep(dice.uniform(0.5, 3))
        process.kill()
    for process in builders[KILLED:]:
        process.join(600)
    ends = [process.exitcode for process in builders[KILLED:]]
    libraries = list((tmp_path / "cache" / "sleep_lightning").rglob("kernels-*.so"))
    figures(builders=BUILDERS, killed=KILLED, loaded=ends.count(0))
    assert ends == [0] * (BUILDERS - KILLED), (tmp_path / "log").read_text()
    assert any(file.stat().st_size for file in libraries)
