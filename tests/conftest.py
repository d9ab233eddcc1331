import signal
from pathlib import Path

import pytest
import torch

from sleep_lightning.testing.tiny import tiny_batch as tiny_batch
from sleep_lightning.testing.tiny import tiny_model as tiny_model

pytest_plugins = ["tests.browser", "tests.in_process"]


LONG = ("test_readme.py", "test_sharding.py", "test_sweep.py", "test_reproduce.py")
"""Files to begin with, so that no worker is left with a long one at the end; and with the ranks of ``test_sharding.py``
far from those of ``test_ranks.py``: four processes that wait for each other are slow on two cores."""


def pytest_configure() -> None:
    """Under ``nohup`` a hang-up is ignored here and, inherited, by all that is started: tests send it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def configs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``weights/`` as the shipped experiments name them: configs and small tokenizers, no weights."""
    from tests.pretrained.published import write_configs

    folder = tmp_path_factory.mktemp("configs")
    write_configs(folder)
    return folder
