"""The suite that every task inherits."""

import sys
import time

import torch

from sleep_lightning.config.plugin_kinds import KINDS
from sleep_lightning.config.plugins import is_registered
from sleep_lightning.tasks import Task, TaskConfig, baselines, by_answer
from sleep_lightning.tasks.check import why_not_batch, why_not_labels
from sleep_lightning.tasks.task import SPLITS, Split


class TaskTestCase:
    """Checks a task's shapes, determinism, disjoint splits, baselines and speed.

    Inherit and set ``config``; override ``evidence`` to say what no two splits may share.
    """

    config: TaskConfig
    """The configured task."""
    minimum_tokens_per_second = 1_000_000
    """Sampling rate below which the task would hold up training."""
    evidence_batches = 8
    """Batches of 256 per split among which shared evidence is looked for."""

    baseline_rows = 4096
    """Rows on which the baselines are measured."""

    @property
    def task(self) -> Task:
        return self.config.build()

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        """What an answer is derived from, in tokens ``[B, T]``: here the whole context of each row."""
        return {tuple(row.tolist()) for row in tokens[:, : self.task.context_length]}

    def test_an_experiment_can_name_it(self) -> None:
        """By ``task.name`` if that is registered, which is then no other task's; otherwise by its import path."""
        kind = type(self.config)
        if self.config.name in KINDS["task"].names:
            assert is_registered("task", self.config.name, kind)
        else:
            assert getattr(sys.modules[kind.__module__], kind.__qualname__) is kind

    def test_shapes_and_ranges(self) -> None:
        for split in SPLITS:
            wrong = why_not_batch(self.task, self.task.batch(256, seed=1, position=2, split=split), 256)
            assert wrong is None, f"split {split}: {wrong}"

    def test_no_label_inside_the_context(self) -> None:
        wrong = why_not_labels(self.task, self.task.batch(64, seed=0, position=0))
        assert wrong is None, wrong

    def test_deterministic_in_seed_and_position(self) -> None:
        def draw(seed: int, position: int) -> torch.Tensor:
            return self.task.batch(32, seed=seed, position=position).tokens

        assert torch.equal(draw(3, 7), draw(3, 7))
        assert not torch.equal(draw(3, 7), draw(3, 8))
        assert not torch.equal(draw(3, 7), draw(4, 7))
        assert not torch.equal(draw(3, 4), draw(4, 3))

    def test_splits_share_no_evidence(self) -> None:
        def drawn(split: Split, position: int) -> set[tuple[int, ...]]:
            return self.evidence(self.task.batch(256, seed=0, position=position, split=split).tokens)

        seen = [set().union(*(drawn(split, i) for i in range(self.evidence_batches))) for split in SPLITS]
        assert all(seen)
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]

    def test_baselines_are_those_of_constant_answers(self) -> None:
        batch = self.task.batch(self.baseline_rows, seed=0, position=0)
        (labels,), slices = by_answer(batch, batch.labels)
        found = baselines(labels)
        assert 0 < found.uniform_exact_match <= found.majority_exact_match + 0.05 < 1
        assert found.majority_exact_match <= found.majority_token_accuracy < 1
        assert all(len(x) == len(labels) for x in slices.values())

    def test_sampling_is_fast(self) -> None:
        """Far above the rate at which a model trains on CPU."""
        task, started = self.task, time.process_time()
        for position in range(5):
            task.batch(512, seed=0, position=position)
        rate = 5 * 512 * task.sequence_length / (time.process_time() - started)
        assert rate > self.minimum_tokens_per_second, f"{rate:.3g} tokens/s"
