import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.compare.beside import BESIDE, score_beside, with_changes
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.model import HybridLM
from sleep_lightning.training.evaluation import score_split
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.prediction import predict
from tests.cli.cli import ROOT, SMALL

ARMS = ["sleep", "window", "full-cache", "retrieval"]
TINY = [
    *("task.pairs=[2]", "task.n_keys=8", "task.n_values=8", "task.context_tokens=8", "sleep.window_size=4"),
    *("model.d_model=32", "sleep.n_passes=1", "training.val_batches=2", "training.val_batch_size=256"),
]


def built(pattern: str = "AGAG", *changes: str) -> tuple[Experiment, HybridLM]:
    experiment = load_experiment(ROOT / "conf" / "mqar.yaml", [*TINY, f"model.pattern={pattern}", *changes])
    model = experiment.build_model()
    assert isinstance(model, HybridLM)
    return experiment, model


def test_sleep_is_the_ordinary_score() -> None:
    experiment, model = built()
    scores = score_beside(model, with_changes(experiment, ARMS), "test")
    assert list(scores) == ARMS
    assert scores["sleep"] == score_split(experiment, model, "test")
    assert all(arm["all"].baselines == scores["sleep"]["all"].baselines for arm in scores.values())


def test_no_arm_looks_up_what_a_prelude_gave(tmp_path: Path) -> None:
    keys = [f"training.prelude_cache={tmp_path}", "training.train=after_prelude", "sleep.loop=1/3/0"]
    experiment, _ = built("AGAG", *keys)
    changed = with_changes(experiment, ARMS)
    assert list(changed) == ARMS and not any(e.training.prelude_cache for e in changed.values())


def test_the_window_alone_sees_nothing_of_the_context() -> None:
    """Its answers are those of another context."""
    experiment, model = built()
    changed = with_changes(experiment, ["window"])["window"]
    batch = changed.task.build().batch(8, seed=0, position=0)
    other = replace(batch, tokens=torch.cat((batch.tokens.flip(0)[:, :8], batch.tokens[:, 8:]), 1))

    def answers(memory_is_zeroed: bool) -> list[torch.Tensor]:
        forget = (lambda _, memory: memory.zeroed()) if memory_is_zeroed else None
        return [predict(model, b, changed.sleep, at_boundary=forget) for b in (batch, other)]

    torch.testing.assert_close(*answers(True))
    assert not torch.allclose(*answers(False))
    assert BESIDE["window"].forgets


def test_without_memory_retrieval_of_all_windows_is_the_full_cache() -> None:
    """Attention alone sees the same tokens in the same order, if there is one evicted window."""
    experiment, model = built("AA", "sleep.window_size=8")
    scores = score_beside(model, with_changes(experiment, ["window", "full-cache", "retrieval"]), "test")
    assert scores["full-cache"]["all"].loss == pytest.approx(scores["retrieval"]["all"].loss, abs=1e-5)
    assert scores["full-cache"]["all"].loss != pytest.approx(scores["window"]["all"].loss, abs=1e-5)


@pytest.mark.long
def test_a_model_that_reads_everything_answers_with_the_full_cache_only() -> None:
    torch.manual_seed(0)
    experiment, model = built("AA", "sleep.window_size=12")
    task = experiment.task.build()
    config = replace(experiment.training, max_steps=250)
    optimizer = build_optimizer(model, config)
    for position in range(config.max_steps):
        optimizer.zero_grad()
        accumulate_gradients(model, task.batch(64, seed=0, position=position), experiment.sleep)
        optimizer.step()
    evicting = load_experiment(experiment.to_dict(), ["sleep.window_size=4"])
    scores = score_beside(model, with_changes(evicting, ["window", "full-cache"]), "test")
    full, alone = scores["full-cache"]["all"], scores["window"]["all"]
    assert full.exact_match > 0.9 > 0.4 > alone.baselines.majority_exact_match
    assert alone.exact_match < 0.4


def test_text_is_answered_beside_retrieval_and_a_summary_on_the_same_questions() -> None:
    pytest.importorskip("bm25s")
    changes = ["model.d_model=32", "training.val_batches=1", "training.val_batch_size=32", "task.question=both"]
    experiment = load_experiment(ROOT / "conf" / "needle.yaml", changes)
    model = experiment.build_model()
    changed = with_changes(experiment, list(BESIDE))
    assert [e.task.kept for e in changed.values()] == ["all"] * 4 + ["bm25", "summary"]  # type: ignore[attr-defined]
    scores = score_beside(model, changed, "test")
    slices = {name: {k: (s.answers, s.baselines) for k, s in arm.items()} for name, arm in scores.items()}
    kinds = {name: {k: v for k, v in arm.items() if "depth" not in k} for name, arm in slices.items()}
    assert all(arm == kinds["sleep"] for arm in kinds.values())
    assert len({arm["all"].loss for arm in scores.values()}) == len(BESIDE)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["windw"], "--beside 'windw' is unknown; did you mean window?"),
        (["nothing"], "--beside 'nothing' is unknown; use sleep, window, full-cache"),
        (["bm25"], "--beside bm25: this arm is for tasks of text, and task.name=mqar has none"),
    ],
)
def test_wrong_arms_are_refused(names: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        with_changes(built()[0], names)
    assert str(caught.value).startswith(message)


def test_an_arm_that_does_not_fit_is_named() -> None:
    experiment = built("GG")[0]
    with pytest.raises(ValueError, match=r"--beside retrieval: sleep\.retrieved_windows=1 needs attention"):
        with_changes(experiment, ["retrieval"])


@pytest.mark.long
def test_the_command_prints_all_arms_and_writes_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", SMALL)
    weights = {f"model.{name}": x for name, x in experiment.build_model().state_dict().items()}  # type: ignore[attr-defined]
    torch.save({"experiment": experiment.to_dict(), "state_dict": weights}, tmp_path / "a.ckpt")
    command = ["test", "--checkpoint", str(tmp_path / "a.ckpt"), "--output", str(tmp_path / "out.json")]
    assert main([*command, "--beside", "window", "full-cache"]) == 0
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("full-cache", "majority", BESIDE["window"].about))
    written = json.loads((tmp_path / "out.json").read_text())["arms"]
    assert list(written) == ["sleep", "window", "full-cache"]
    assert all({"exact_match", "baselines"} <= written[arm]["all"].keys() for arm in written)
    assert main([*command, "--beside", "bm25"]) == 2
    assert "--beside bm25: this arm is for tasks of text" in capsys.readouterr().err
