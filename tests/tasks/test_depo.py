from collections.abc import Iterator

import pytest
import torch

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Depo, DepoConfig, TaskBatch, by_answer
from sleep_lightning.tasks.task import SPLITS
from sleep_lightning.testing import TaskTestCase

PAPER = DepoConfig(
    n_nodes=75, min_nodes=3, max_hops=16, test_hops=[1, 2, 4, 8, 16], n_queries=10, name_symbols=50, name_lengths=(1, 2)
)


def words(task: Depo, tokens: list[int]) -> Iterator[str]:
    """Names put together: a capital N ends one."""
    name = ""
    for token in (task.vocab[i] for i in tokens):
        if token == "<pad>" or token[0] in "[K":
            assert not name, "a name without an end"
            yield token
        else:
            name += token
            if token.startswith("N"):
                yield name
                name = ""
    assert not name


def solve(task: Depo, tokens: list[int]) -> tuple[list[tuple[int, str]], dict[str, str]]:
    """A hand-written solver: reads the context, answers every query; and the edges it read."""
    said = [w for w in words(task, tokens[: task.context_length]) if w != "<pad>"]
    edges = dict(zip(said[::2], said[1::2], strict=True))
    answers, asked = [], [w for w in words(task, tokens[task.context_length :]) if w != "<pad>"]
    for hop, node, mark, _ in zip(asked[::4], asked[1::4], asked[2::4], asked[3::4], strict=True):
        assert hop.startswith("K") and mark == "[ANS]"
        for _ in range(int(hop[1:])):
            node = edges[node]
        answers.append((int(hop[1:]), node))
    return answers, edges


def spoken(task: Depo, batch: TaskBatch) -> list[list[str]]:
    """The labels of every answer as words."""
    (labels,), _ = by_answer(batch, batch.labels)
    return [list(words(task, row[row != IGNORE].tolist())) for row in labels]


class DepoTestCase(TaskTestCase):
    config: DepoConfig

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        """Not even the same cycle read out in another order is shared."""
        return {hash(frozenset(solve(self.task, row.tolist())[1].items())) for row in tokens}  # type: ignore[arg-type, misc]

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_solver_that_reads_the_tokens_is_always_right(self, split) -> None:  # type: ignore[no-untyped-def]
        task = self.config.build()
        batch = task.batch(64, seed=0, position=1, split=split)
        solved = [answer for row in batch.tokens.tolist() for answer in solve(task, row)[0]]
        assert spoken(task, batch) == [["[ANS]", node] for _, node in solved]
        (_,), slices = by_answer(batch, batch.labels)
        assert slices["hop"].tolist() == [hop for hop, _ in solved]

    def test_labels_are_the_next_tokens(self) -> None:
        batch = self.task.batch(64, seed=0, position=0)
        has_label = batch.labels[:, :-1] != IGNORE
        assert torch.equal(batch.tokens[:, 1:][has_label], batch.labels[:, :-1][has_label])
        assert (batch.labels[:, -1] == IGNORE).all()

    def test_every_context_is_one_cycle(self) -> None:
        task = self.config.build()
        for split in SPLITS:
            for row in task.batch(32, seed=0, position=0, split=split).tokens.tolist():
                edges = solve(task, row)[1]
                node, steps = start, _ = next(iter(edges.items()))[0], 0
                while steps == 0 or node != start:
                    node, steps = edges[node], steps + 1
                assert steps == len(edges)
                assert split == "train" or len(edges) == self.config.n_nodes


class TestDepo(DepoTestCase):
    config = DepoConfig()


@pytest.mark.slow
class TestDepoOfThePaper(DepoTestCase):
    config = PAPER
    evidence_batches = 2

    def test_lengths_of_the_paper(self) -> None:
        """method 4.2: contexts of 300 and query parts of 60 tokens; test cycles of 214-260, mean 240."""
        assert (self.task.context_length, self.task.sequence_length) == (300, 360)
        tokens = self.task.batch(512, seed=0, position=0, split="validation").tokens
        lengths = (tokens[:, :300] != 0).sum(1)
        assert 205 < lengths.min() < 230 and 250 < lengths.max() < 270
        assert float(lengths.double().mean()) == pytest.approx(240, abs=4)
        assert float((tokens[:, 300:] != 0).sum(1).double().mean()) == pytest.approx(52, abs=1)

    def test_sizes_of_training_cycles(self) -> None:
        """method 4.2: weight 1 / (n + sqrt(75)) on 3..75 has mean 27.8."""
        nodes = self.task.batch(4096, seed=0, position=0).slices["nodes"]
        assert (int(nodes.min()), int(nodes.max())) == (3, 75)
        assert float(nodes.double().mean()) == pytest.approx(27.8, abs=1)

    def test_test_hops(self) -> None:
        hops = self.task.batch(256, seed=0, position=0, split="test").slices["hop"]
        assert set(hops.flatten().tolist()) == {1, 2, 4, 8, 16}


class TestRoomForPads(DepoTestCase):
    config = DepoConfig(n_nodes=6, min_nodes=3, n_queries=5, name_symbols=4, name_lengths=(1, 3), context_tokens=48)

    def test_contexts_are_padded_on_the_left(self) -> None:
        context = self.task.batch(256, seed=0, position=0).tokens[:, :48]
        assert (context[:, 0] == 0).all()
        assert (context[:, -1] != 0).all()
        assert ((context[:, 1:] == 0) <= (context[:, :-1] == 0)).all()


def test_names_are_drawn_by_length_then_uniformly() -> None:
    task = DepoConfig(n_nodes=3, name_symbols=10, name_lengths=(1, 2)).build()
    cycle, _ = task._draw_cycles(20_000, torch.Generator().manual_seed(0), "train")
    counts = torch.bincount(cycle.flatten(), minlength=110).double()
    assert float(counts[:10].sum() / counts.sum()) == pytest.approx(0.5, abs=0.04)  # a little less: no name twice
    assert float(counts[10:].std() / counts[10:].mean()) < 0.1


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"n_nodes": 75, "name_symbols": 50, "name_lengths": (1, 2), "context_tokens": 200},
            r"context_tokens=200 cannot",
        ),
        ({"n_nodes": 2}, r"task\.n_nodes=2 must be from 3"),
        ({"min_nodes": 0}, r"task\.min_nodes=0 must be from 3 to task\.n_nodes=8"),
        ({"min_nodes": 9}, r"task\.min_nodes=9 must be from 3 to task\.n_nodes=8"),
        ({"n_nodes": 3, "name_symbols": 3}, r"task\.name_symbols=3 with task\.n_nodes=3 makes 2 cycles"),
        ({"n_nodes": 4, "name_symbols": 4}, r"makes 6 cycles, and it takes 1024 to split; raise task\.name_symbols"),
        ({"n_nodes": 9}, r"makes 8 names; there must be from task\.n_nodes=9"),
        ({"name_lengths": (2, 1)}, r"task\.name_lengths=\[2, 1\]"),
        ({"max_hops": 0}, r"task\.max_hops=0"),
        ({"test_hops": [5]}, r"task\.test_hops=\[5\]"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DepoConfig(**overrides)  # type: ignore[arg-type]
