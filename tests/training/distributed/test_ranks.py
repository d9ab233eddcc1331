"""Two ranks that train together are one process that trains alone, and say so through one exchange a step."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.config import TrainingConfig
from sleep_lightning.runs.signals import StopReason
from sleep_lightning.training.distributed.place import Place
from tests.cli.test_fit import assert_same
from tests.training.distributed.rank_cases import GRADIENTS, RANKS, STOPPED_IN, fit, fit_with_signal, gradients, scores
from tests.training.distributed.rank_processes import running

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the ranks left behind: ``rank<i>.pt``, runs; beside them the runs of one process."""
    folder = tmp_path_factory.mktemp("ranks")
    assert fit_with_signal(signal.SIGTERM, fit(folder / "from_one")) == StopReason.SIGTERM
    assert checkpoint(folder / "from_one")["global_step"] == STOPPED_IN
    with running("tests.training.distributed.rank_cases", folder, RANKS, more_ports=5):
        assert main(fit(folder / "one")) == 0
    assert main(["fit", "--resume", str(folder / "from_two"), "training.devices=1"]) == 0
    return folder


def found(folder: Path, rank: int = 0) -> dict[str, Any]:
    return torch.load(folder / f"rank{rank}.pt", weights_only=True)  # type: ignore[no-any-return]


def checkpoint(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradients_are_those_of_one_process(folder: Path, name: str) -> None:
    expected = gradients(name)
    for rank in range(RANKS):
        actual = found(folder, rank)["gradients"][name]
        assert actual.keys() == expected.keys()
        for key, theirs in actual.items():
            mine = expected[key]
            assert (theirs is None) == (mine is None), key
            if mine is not None:
                assert mine.dtype == torch.float64
                torch.testing.assert_close(theirs, mine, rtol=1e-6, atol=1e-6 * float(mine.abs().max()))
    assert any(x is not None and x.abs().max() > 1e-3 for x in expected.values())


def test_scores_of_unequal_shares_are_those_of_one_process(folder: Path) -> None:
    expected = scores()
    for rank in range(RANKS):
        actual = found(folder, rank)["scores"]
        assert actual.keys() == expected.keys() and len(expected) > 2
        for name, one in expected.items():
            mine = one.as_metrics() | {"answers": one.answers}
            assert actual[name] == pytest.approx(mine, abs=1e-12)


def test_a_step_is_one_exchange(folder: Path) -> None:
    """Three steps more are three exchanges more: Lightning exchanges nothing."""
    assert found(folder)["collectives"] == {"c10d::allreduce_": 3}


def test_gradients_that_not_all_ranks_have(folder: Path) -> None:
    for rank in range(RANKS):
        everywhere, on_one, nowhere, frozen, extra = found(folder, rank)["odd"]
        assert everywhere.tolist() == [3, 3] and on_one.tolist() == [5, 5]
        assert nowhere is None and frozen is None
        assert extra.tolist() == [10, 2]


def test_a_signal_to_any_rank_stops_all_after_the_same_step(folder: Path) -> None:
    for rank in range(RANKS):
        assert found(folder, rank)["exit codes"] == [0, StopReason.SIGUSR1 if rank == 0 else 0, 0, 0]
    assert found(folder)["stopped at"] == STOPPED_IN
    assert checkpoint(folder / "stopped")["global_step"] == 12


def test_the_run_goes_on_to_the_bit(folder: Path) -> None:
    stopped, whole = checkpoint(folder / "stopped"), checkpoint(folder / "two")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "TaskDataModule"):
        assert_same(stopped[key], whole[key], key)


@pytest.mark.parametrize("name", ["two", "from_one", "from_two"])
def test_history_is_that_of_one_process(folder: Path, name: str) -> None:
    """Whether two ranks train all the way, or go on from one process, or one goes on from two."""
    expected, actual = checkpoint(folder / "one"), checkpoint(folder / name)
    torch.testing.assert_close(
        actual["state_dict"], expected["state_dict"], rtol=1e-4, atol=5e-5
    )  # Muon rounds to bf16
    rows = {row["step"]: row for row in actual["history"]}
    assert len(expected["history"]) == 2
    for row in expected["history"]:
        measured = {"cost/wall_s", "cost/tokens_per_s", "cost/peak_memory_bytes", "cost/step_memory_bytes"}
        for key in row.keys() - measured:
            assert rows[row["step"]][key] == pytest.approx(row[key], rel=1e-4), key
    assert (actual["digests"]["10"], actual["train_flops"]) == (expected["digests"]["10"], expected["train_flops"])


@pytest.mark.parametrize(
    ("training", "variables", "message"),
    [
        ({"devices": 1}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "but 2 processes were started"),
        ({"devices": 2, "num_nodes": 2}, {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "set training.devices=2"),
        ({"num_nodes": 2}, {}, "training.num_nodes=2 needs a start on every node, for example: torchrun --nnodes 2"),
    ],
)
def test_other_processes_than_asked_for_are_refused(
    training: dict[str, int], variables: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Place.of(TrainingConfig(accelerator="cpu", **training), variables)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"devices": 3}, r"training\.batch_size=64 does not divide .*use a multiple of 3"),
        ({"devices": 4, "accumulate": 32}, r"use a multiple of 128"),
        ({"devices": 2, "val_batch_size": 1}, r"training\.val_batch_size=1 leaves some of the 2 processes without"),
        ({"devices": 0}, r"training\.devices=0 must be at least 1"),
    ],
)
def test_shares_that_are_none_are_refused(training: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**training)  # type: ignore[arg-type]
