import pytest
import torch

from sleep_lightning.tasks import Rule110Config, baselines
from sleep_lightning.tasks.rule110 import evolve, first_bit
from sleep_lightning.testing import TaskTestCase


class TestRule110(TaskTestCase):
    config = Rule110Config(ring_size=24, n_strings=4, steps=[32])

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        """Not even single strings are shared."""
        size, n = self.config.ring_size, self.config.n_strings
        return {tuple(s.tolist()) for s in tokens[:, : n * size].reshape(-1, size)}


class TestSampledSteps(TaskTestCase):
    config = Rule110Config(ring_size=16, n_strings=3, steps=[0, 2, 5])

    def test_query_token_and_slice_name_the_steps(self) -> None:
        batch = self.task.batch(256, seed=0, position=0)
        assert set(batch.slices["t"].tolist()) == {0, 2, 5}
        names = [self.task.vocab[i] for i in batch.tokens[:, self.task.context_length]]
        assert names == [f"Q{t}" for t in batch.slices["t"]]


def step_by_the_table(bits: list[int]) -> list[int]:
    table = {
        (1, 1, 1): 0,
        (1, 1, 0): 1,
        (1, 0, 1): 1,
        (1, 0, 0): 0,
        (0, 1, 1): 1,
        (0, 1, 0): 1,
        (0, 0, 1): 1,
        (0, 0, 0): 0,
    }
    n = len(bits)
    return [table[bits[i - 1], bits[i], bits[(i + 1) % n]] for i in range(n)]


def test_labels_are_the_automaton_run_by_hand() -> None:
    task = Rule110Config(ring_size=7, n_strings=3, steps=[0, 1, 4]).build()
    batch = task.batch(64, seed=0, position=0)
    for tokens, labels, t in zip(batch.tokens, batch.labels, batch.slices["t"].tolist(), strict=True):
        answers = []
        for i in range(3):
            bits = tokens[7 * i : 7 * i + 7].tolist()
            for _ in range(t):
                bits = step_by_the_table(bits)
            answers.append(bits[0])
        assert labels[21:].tolist() == answers
        assert tokens[22:].tolist() == answers[:-1]  # the query token, then teacher forcing


@pytest.mark.long
@pytest.mark.parametrize(("t", "rate"), [(0, 0.5), (4, 0.5352), (8, 0.5406), (16, 0.5559), (32, 0.5617)])
def test_base_rates_at_24_bits(t: int, rate: float) -> None:
    """method 4.1, by sampling: 4M strings, standard error 2.5e-4."""
    states = torch.randint(1 << 24, (4_000_000,), generator=torch.Generator().manual_seed(0))
    assert float(first_bit(evolve(states, t, 24), 24).double().mean()) == pytest.approx(rate, abs=1e-3)


@pytest.mark.parametrize(("ring", "t", "rate"), [(12, 4, 0.5352), (16, 4, 0.5352), (12, 2, 0.53125), (12, 0, 0.5)])
def test_base_rates_by_enumeration(ring: int, t: int, rate: float) -> None:
    """Rings longer than the light cone (2t + 1) have the rate of any longer ring."""
    states = torch.arange(1 << ring)
    assert float(first_bit(evolve(states, t, ring), ring).double().mean()) == pytest.approx(rate, abs=5e-5)


@pytest.mark.long
def test_majority_baseline_at_24_bits() -> None:
    """method 4.1: a constant answer gets .0995 of sequences at t = 32, .0820 at t = 4."""
    for t, expected in ((4, 0.0820), (32, 0.0995)):
        task = Rule110Config(ring_size=24, n_strings=4, steps=[t]).build()
        labels = torch.cat([task.batch(20_000, seed=0, position=i).labels for i in range(5)])
        assert baselines(labels).majority_exact_match == pytest.approx(expected, abs=4e-3)


def test_every_string_belongs_to_one_split_and_is_drawn_uniformly() -> None:
    task = Rule110Config(ring_size=6, n_strings=1, steps=[1]).build()
    drawn = {
        split: task.sample_states((20_000,), torch.Generator().manual_seed(0), split)
        for split in ("train", "validation", "test")
    }
    counts = {split: torch.bincount(states, minlength=64) for split, states in drawn.items()}
    assert sum((c > 0).int() for c in counts.values()).eq(1).all()  # type: ignore[union-attr]
    assert [(c > 0).sum().item() for c in counts.values()] == [56, 4, 4]
    present = counts["train"][counts["train"] > 0]
    assert present.min() > 0.7 * present.float().mean()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ring_size": 4}, r"task\.ring_size=4"),
        ({"n_strings": 0}, r"task\.n_strings=0"),
        ({"steps": []}, r"task\.steps=\[\]"),
        ({"steps": [-1]}, r"task\.steps=\[-1\]"),
        ({"steps": [2, 2]}, r"task\.steps=\[2, 2\]"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Rule110Config(**overrides)  # type: ignore[arg-type]
