from math import log

import pytest
import torch

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import TaskBatch, baselines
from sleep_lightning.training.metrics import Answers, score


def answers(predicted: list[list[int]], labels: list[list[int]], t: list[int]) -> Answers:
    logits = torch.nn.functional.one_hot(torch.tensor(predicted), 3) * 20.0
    batch = TaskBatch(torch.zeros(len(labels), 3, dtype=torch.int64), torch.tensor(labels), {"t": torch.tensor(t)})
    return Answers.of(logits, batch)


def test_scores_by_hand() -> None:
    x = IGNORE
    first = answers([[9 % 3, 1, 0], [0, 1, 1]], [[x, 1, 0], [x, 1, 0]], [1, 2])
    second = answers([[0, 0, 0]], [[x, 1, 1]], [2])
    scores = score([first, second])
    assert scores["all"].answers == 3
    assert scores["all"].exact_match == pytest.approx(1 / 3)
    assert scores["all"].token_accuracy == pytest.approx(3 / 6)
    assert scores["t_1"].exact_match == 1
    assert scores["t_2"].exact_match == 0
    assert scores["t_1"].loss < 1e-3 < scores["t_2"].loss


def test_baselines_by_hand() -> None:
    x = IGNORE
    found = baselines(torch.tensor([[x, 1, 1], [x, 1, 1], [x, 0, 1], [x, 0, 0]]))
    assert found.majority_exact_match == 0.5
    assert found.majority_token_accuracy == pytest.approx(5 / 8)
    assert found.uniform_exact_match == 0.25
    assert found.unigram_loss == pytest.approx(-(5 / 8 * log(5 / 8) + 3 / 8 * log(3 / 8)))
