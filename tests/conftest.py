import pytest
import torch

from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.tasks import Rule110Config, TaskBatch

pytest_plugins = ["tests.browser"]


LONG = ("test_readme.py", "test_sharding.py", "test_sweep.py", "test_reproduce.py")
"""Files to begin with, so that no worker is left with a long one at the end; and with the ranks of ``test_sharding.py``
far from those of ``test_ranks.py``: four processes that wait for each other are slow on two cores."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def tiny_model(vocab_size: int = 3, **overrides: object) -> HybridLM:
    """A small hybrid with gates opened and taps generated, so that all of a memory rule matters from the first step."""
    torch.manual_seed(0)
    config = ModelConfig(**({"d_model": 16, "pattern": "AGAG", "n_heads": 2, "d_ff": 24} | overrides))  # type: ignore[arg-type]
    model = HybridLM(config, vocab_size)
    for layer in model.memory_layers:
        if layer.A_log is not None:
            torch.nn.init.constant_(layer.A_log, -2.0)
        if isinstance(layer, JetBlock):
            torch.nn.init.normal_(layer.tap_proj.weight, std=0.5)
    return model


def tiny_batch(rows: int = 4, ring: int = 6, strings: int = 3, steps: int = 1) -> TaskBatch:
    """Rule 110 with windows of ``ring`` tokens: ``strings`` that sleep and one that answers."""
    task = Rule110Config(ring_size=ring, n_strings=strings, steps=[steps]).build()
    return task.batch(rows, seed=0, position=0)
