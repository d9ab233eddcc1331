"""A model that has learnt answers from memory, and only from memory (method, section 10)."""

import pytest
import torch

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM, Memory, ModelConfig
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config, Task
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.metrics import Answers, Score, score
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.prediction import predict
from sleep_lightning.training.schedule import build_schedule

pytestmark = pytest.mark.long  # they train

RING, STRINGS = 6, 2
SLEEP = SleepConfig(RING, 2)


def train(pattern: str, sleep: SleepConfig, steps: int, seed: int = 1) -> tuple[HybridLM, Task]:
    """First-bit retrieval (t = 0) of two strings."""
    torch.manual_seed(seed)
    task = Rule110Config(ring_size=RING, n_strings=STRINGS, steps=[0]).build()
    sizes = ModelConfig(d_model=32, pattern=pattern, n_heads=2, residual_scale=1 / sleep.n_passes)
    model = HybridLM(sizes, len(task.vocab))
    config = TrainingConfig(max_steps=steps)
    optimizer = build_optimizer(model, config)
    schedule = build_schedule(optimizer, config)
    for position in range(steps):
        optimizer.zero_grad()
        accumulate_gradients(model, task.batch(64, seed=0, position=position), sleep)
        optimizer.step()
        schedule.step()
    return model, task


def evaluate(model: HybridLM, task: Task, sleep: SleepConfig, zero_before_window: int | None = None) -> Score:
    batch = task.batch(1024, seed=0, position=0, split="validation")

    def at_boundary(i: int, memory: Memory) -> Memory:
        return memory.zeroed() if i + 1 == zero_before_window else memory

    return score([Answers.of(predict(model, batch, sleep, at_boundary=at_boundary), batch)])["all"]


@pytest.fixture(scope="module")
def trained() -> tuple[HybridLM, Task]:
    """The first seed that learns it: so small a model may sit on a plateau, and which does depends on the CPU."""
    for seed in (1, 2, 3, 4):
        model, task = train("AG", SLEEP, 500, seed)
        if evaluate(model, task, SLEEP).exact_match > 0.95:
            break
    return model, task


def test_first_bits_are_recalled_over_two_evictions(trained: tuple[HybridLM, Task]) -> None:
    found = evaluate(*trained, SLEEP)
    assert found.exact_match > 0.95
    assert found.baselines.majority_exact_match < 0.6


def test_zeroing_memory_at_the_last_boundary_gives_the_base_rate(trained: tuple[HybridLM, Task]) -> None:
    found = evaluate(*trained, SLEEP, zero_before_window=STRINGS)
    assert found.exact_match <= found.baselines.majority_exact_match + 0.02
    assert found.token_accuracy <= found.baselines.majority_token_accuracy + 0.02


def test_zeroing_one_boundary_earlier_costs_only_the_strings_before_it(trained: tuple[HybridLM, Task]) -> None:
    found = evaluate(*trained, SLEEP, zero_before_window=STRINGS - 1)
    assert found.baselines.majority_token_accuracy + 0.05 < found.token_accuracy < 0.9


def test_without_fast_weights_eviction_leaves_the_base_rate() -> None:
    sleep = SleepConfig(RING, 1)
    found = evaluate(*train("AA", sleep, 100), sleep)
    assert found.exact_match <= found.baselines.majority_exact_match + 0.02
