"""Greedy answers and the figures that a benchmark publishes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.cli.evaluate import evaluate
from sleep_lightning.config import load_experiment
from sleep_lightning.sleep import IGNORE, SleepConfig
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.evaluation import score_split
from sleep_lightning.training.metrics import Answers, score
from sleep_lightning.training.prediction import answer, decode, predict
from sleep_lightning.training.published import published_scores
from tests.conftest import tiny_batch, tiny_model
from tests.sleep.test_alignment import VOCAB, L, batch_of
from tests.tasks.test_gsm_infinite import published, symbolic, write


def test_answers_are_scored_where_there_are_labels_as_all_logits_are() -> None:
    model, batch, sleep = tiny_model(), tiny_batch(), SleepConfig(6, 2)
    whole, found = Answers.of(predict(model, batch, sleep), batch), answer(model, batch, sleep)
    assert torch.equal(found.right, whole.right) and torch.equal(found.labels, whole.labels)
    torch.testing.assert_close(found.loss, whole.loss)
    one = score([found])["all"]
    assert one.perplexity == pytest.approx(torch.tensor(one.loss).exp().item())
    assert one.as_metrics()["perplexity"] == one.perplexity


def test_rows_of_different_lengths_are_decoded_as_each_alone() -> None:
    model = tiny_model(vocab_size=VOCAB)
    model.neutral_pad = 7
    batch, rows = batch_of(["SSSA", "SA", "SASSA"])
    answers = decode(model, batch, SleepConfig(L, 2))
    assert torch.equal(answers != IGNORE, batch.labels != IGNORE)
    for (tokens, labels), found in zip(rows, answers, strict=True):
        alone = decode(model, TaskBatch(tokens[None], labels[None]), SleepConfig(L, 2))[0]
        assert torch.equal(alone[alone != IGNORE], found[found != IGNORE])


@pytest.mark.parametrize("kind", ["integers", "lists"])
def test_published_figures(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of integers those of the exact match; of lists what is decoded, in any order."""
    rows = [published(n) if kind == "integers" else symbolic(n) | {"op": 3 + n % 2} for n in range(60)]
    path = write(tmp_path / "p.jsonl", rows)
    task: dict[str, Any] = {"name": "gsm_infinite", "jsonl": path, "test_file": path, "min_tokens": 20, "ops": [3, 4]}
    experiment = load_experiment(
        {
            "task": task | {"max_tokens": 80, "validation_file": path},
            "model": {"d_model": 16, "n_heads": 2, "pattern": "AG"},
            "sleep": {"window_size": "${task.max_tokens}"},
            "training": {"val_batches": 1, "val_batch_size": 16},
        }
    )
    model = experiment.build_model()
    scores = score_split(experiment, model, "test")
    if kind == "integers":
        accuracy = {op: scores[f"op_{op}"].exact_match for op in (3, 4)}
    else:  # every answer backwards
        accuracy = {3: 1.0, 4: 1.0}
        tokenizer: Any = experiment.task.build().tokenizer  # type: ignore[attr-defined]

        def backwards(_: Any, batch: TaskBatch, __: Any) -> Tensor:
            said = batch.labels.clone()
            for row in said:
                spoken = (row != IGNORE).nonzero()[:, 0]
                names = tokenizer.decode(row[spoken].tolist()).split(", ")
                row[spoken[:-1]] = torch.tensor(tokenizer.encode(", ".join(names[::-1])))
            return said

        monkeypatch.setattr("sleep_lightning.training.published.decode", backwards)
    found = published_scores(experiment, model, "test", scores)
    assert found is not None
    assert found["auc"] == pytest.approx(100 * sum(accuracy.values()) / 2)
    assert found["mean_accuracy_to_30"] == pytest.approx(sum(accuracy.values()) / 2)
    output = tmp_path / "out.json"
    assert evaluate(experiment, model, "test", output) == 0
    assert json.loads(output.read_text())["published"] == found


def test_other_tasks_publish_nothing() -> None:
    experiment = load_experiment({"task": {"ring_size": 6}, "sleep": {"window_size": 6}})
    assert published_scores(experiment, tiny_model(), "test", {}) is None
