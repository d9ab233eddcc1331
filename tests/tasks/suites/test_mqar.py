from itertools import pairwise

import pytest
import torch

from sleep_lightning.sleep import IGNORE, plan_windows
from sleep_lightning.tasks import by_answer
from sleep_lightning.tasks.suites import MQAR, MQARConfig
from sleep_lightning.tasks.task import SPLITS
from sleep_lightning.testing import TaskTestCase


def read_pairs(words: list[str]) -> dict[str, str]:
    """Every key that a value follows, with that value."""
    return {a: b for a, b in pairwise(words) if a[0] == "k" and b[0] == "v"}


def solve(task: MQAR, tokens: list[int]) -> dict[int, str]:
    """A solver that reads only the tokens: the value asked for at each place of the query part."""
    words = [task.vocab[i] for i in tokens]
    context, asked = words[: task.context_length], words[task.context_length :]
    pairs, listed = read_pairs(context), []
    for word in context:
        if word[0] != "k":
            break
        listed.append(word)  # before the context
    answers = {}
    for place, word in enumerate(asked, task.context_length):
        if word[0] in "k?":
            answers[place] = pairs[word if word[0] == "k" else listed[int(word[1:]) - 1]]
    return answers


class MQARTestCase(TaskTestCase):
    config: MQARConfig

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        """Not even the same pairs in another order are shared."""
        vocab, n = self.task.vocab, self.task.context_length
        rows = [read_pairs([vocab[i] for i in row]) for row in tokens[:, :n].tolist()]
        return {(hash(frozenset(pairs.items())),) for pairs in rows}

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_solver_that_reads_the_tokens_is_always_right(self, split) -> None:  # type: ignore[no-untyped-def]
        task = self.config.build()
        batch = task.batch(256, seed=0, position=1, split=split)
        for tokens, labels in zip(batch.tokens.tolist(), batch.labels.tolist(), strict=True):
            said = {t: task.vocab[label] for t, label in enumerate(labels) if label != IGNORE}
            assert solve(task, tokens) == said

    def test_every_key_is_asked_for_once_and_depth_is_its_quarter(self) -> None:
        task = self.config.build()
        batch = task.batch(256, seed=0, position=0)
        (labels,), slices = by_answer(batch, batch.labels)
        places = iter(zip(labels[:, 0].tolist(), slices["depth"].tolist(), strict=True))
        for row in batch.tokens.tolist():
            values, prefix = list(solve(task, row).values()), self.config.prefix
            assert len(values) == len(set(values))
            answers = dict(next(places) for _ in values)
            for value in values:
                token = task.vocab.index(value)
                slot = (row.index(token) - prefix) // 2
                assert answers[token] == slot * 4 // ((task.context_length - prefix) // 2)


class TestMQAR(MQARTestCase):
    config = MQARConfig()

    def test_without_filler_the_context_is_pairs_alone(self) -> None:
        """The recipe: pairs first, all of them asked for."""
        task = self.config.build()
        batch = task.batch(64, seed=0, position=0)
        for row in batch.tokens.tolist():
            assert len(read_pairs([task.vocab[i] for i in row[:16]])) == 8 == len(solve(task, row))

    def test_all_its_answers_are_behind_the_last_eviction(self) -> None:
        labels = self.task.batch(64, seed=0, position=0).labels
        assert [w.sleeps for w in plan_windows(labels, 16)] == [True, False]


class TestStretchedMQAR(MQARTestCase):
    config = MQARConfig(pairs=[2, 6], n_queries=3, context_tokens=64, query_tokens=16, question="both")

    def test_both_layouts_occur_and_are_told(self) -> None:
        task, batch = self.config.build(), self.task.batch(256, seed=0, position=0)
        first = [task.vocab[i][0] for i in batch.tokens[:, 0].tolist()]
        assert [{"k": 1, "f": 0}[kind] for kind in first] == batch.slices["before"].tolist()
        assert 64 < int(batch.slices["before"].sum()) < 192
        assert set(batch.slices["pairs"].tolist()) == {2, 6}


class TestMQARAskedBefore(MQARTestCase):
    config = MQARConfig(pairs=[4], n_keys=12, n_values=12, context_tokens=32, question="before")


def test_gaps_follow_the_power_law() -> None:
    """One query among slots 1, 2, 3, 4 stands at i with weight i^(a - 1)."""
    task = MQARConfig(n_queries=1, query_tokens=8, power=0.5).build()
    batch = task.batch(20_000, seed=0, position=0)
    slots = ((batch.labels != IGNORE).int().argmax(1) - task.context_length) // 2
    share = torch.bincount(slots, minlength=4).double() / len(slots)
    weights = torch.arange(1, 5) ** -0.5
    torch.testing.assert_close(share, (weights / weights.sum()).double(), atol=0.015, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"pairs": []}, r"task\.pairs=\[\]"),
        ({"pairs": [0]}, r"task\.pairs=\[0\]"),
        ({"n_keys": 7}, r"task\.n_keys=7 is less than the 8 pairs"),
        ({"n_values": 7}, r"task\.n_values=7"),
        ({"pairs": [1], "n_keys": 8, "n_values": 8}, r"fewer than 1024 sets of 1 pairs"),
        ({"n_queries": 9}, r"task\.n_queries=9 from 1 to the 8 pairs"),
        ({"n_fillers": 0}, r"task\.n_fillers=0"),
        ({"power": 1.5}, r"task\.power=1.5"),
        ({"context_tokens": 15}, r"task\.context_tokens=15 must be even and at least 16"),
        ({"context_tokens": 16, "question": "before"}, r"task\.context_tokens=16 must be even and at least 24"),
        ({"query_tokens": 17}, r"task\.query_tokens=17"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MQARConfig(**overrides)  # type: ignore[arg-type]
