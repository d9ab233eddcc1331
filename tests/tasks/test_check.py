"""A task that breaks its contract is refused in one sentence, before anything is trained."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.tasks import Task, TaskBatch
from sleep_lightning.tasks.check import why_not_task

GOOD = """
import torch
from sleep_lightning import Task, TaskBatch


class Good(Task):
    def __init__(self) -> None:
        self.vocab, self.context_length, self.sequence_length = ("0", "1", "?"), 4, 5

    def sample(self, batch_size, generator, split="train"):
        tokens = torch.randint(2, (batch_size, 5), generator=generator)
        labels = torch.full_like(tokens, -100)
        labels[:, -1] = tokens[:, 0]
        return TaskBatch(tokens, labels)


class Short(Good):
    def sample(self, batch_size):
        return None


class Unfinished(Task):
    def __init__(self) -> None:
        self.vocab, self.context_length, self.sequence_length = ("0",), 4, 5


class Buggy(Good):
    def sample(self, batch_size, generator, split="train"):
        return unknown


class Outside(Good):
    def sample(self, batch_size, generator, split="train"):
        batch = super().sample(batch_size, generator, split)
        batch.labels[:, -1] = 50 if split == "test" else 0
        return batch
"""


class Copy(Task):
    """Changed by one function."""

    def __init__(self, change: Callable[[TaskBatch], object]) -> None:
        self.vocab, self.context_length, self.sequence_length, self.change = ("0", "1", "?"), 4, 5, change

    def sample(self, batch_size: int, generator: torch.Generator, split: str = "train") -> TaskBatch:  # type: ignore[override]
        tokens = torch.randint(2, (batch_size, 5), generator=generator)
        labels = torch.full_like(tokens, -100)
        labels[:, -1] = tokens[:, 0]
        return self.change(TaskBatch(tokens, labels))  # type: ignore[return-value]


def put(place: int, label: int) -> Callable[[TaskBatch], TaskBatch]:
    def change(batch: TaskBatch) -> TaskBatch:
        batch.labels[:, place] = label
        return batch

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: None, "a NoneType; sample must return a TaskBatch"),
        (lambda b: (b.tokens, b.labels), "a tuple; sample must return a TaskBatch"),
        (lambda b: replace(b, labels=b.labels.float()), "labels of torch.float32; they must be an int64 tensor"),
        (lambda b: replace(b, labels=b.labels[:, 1:]), "labels of shape (16, 4); 16 rows of sequence_"),
        (lambda b: replace(b, tokens=b.tokens + 2), "token 3; with 3 in the vocab they are 0 to 2"),
        (put(-1, 50), "label 50; with 3 in the vocab they are 0 to 2, or -100 where there is none"),
        (put(-1, -1), "label -1; with 3 in the vocab"),
        (put(2, 1), "a label at token 2, within context_length=4; answers begin behind"),
        (put(-1, -100), "a row without a label"),
        (lambda b: replace(b, slices={"hop": torch.ones(3)}), "slice 'hop' for 3 rows of 16"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(change: Callable[[TaskBatch], object], said: str) -> None:
    found = why_not_task(Copy(change))
    assert found is not None and found.startswith(f"gives, in split train, {said}"), found


def test_a_good_task_is_not_refused() -> None:
    assert why_not_task(Copy(lambda batch: batch)) is None
    del (lacking := Copy(lambda batch: batch)).vocab
    assert why_not_task(lacking) == "does not set vocab; every task sets it in __init__"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Short", "cannot be sampled: TypeError: Short.sample() takes 2 positional arguments but 4 were given"),
        ("Unfinished", "has no method 'sample'"),
        ("Buggy", "cannot be sampled: NameError: name 'unknown' is not defined (lab_check.py, line 29)"),
        ("Outside", "gives, in split test, label 50; with 3 in the vocab"),
    ],
)
def test_fit_refuses_it_and_leaves_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lab_check.py").write_text(GOOD)
    (tmp_path / "e.yaml").write_text(f"task: {{class_path: lab_check.{name}}}\nsleep: {{window_size: 4}}\n")
    assert main(["fit", "--config", "e.yaml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: task.class_path='lab_check.{name}'") and said in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
