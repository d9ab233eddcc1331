"""Ranks that shard a model are one process that has it whole; so are their checkpoints, for any number of ranks."""

import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.__main__ import main
from sleep_lightning.config import TrainingConfig
from sleep_lightning.runs.signals import StopReason
from sleep_lightning.training.distributed.exchange import Exchange
from sleep_lightning.training.distributed.sharded_muon import owners
from tests.cli.test_fit import assert_same
from tests.training.distributed.rank_cases import fit, fit_with_signal, scores
from tests.training.distributed.rank_processes import running
from tests.training.distributed.sharding_cases import (
    DROPS,
    KEPT,
    STEPS,
    UNEVEN,
    first_step,
    held_bytes,
    lower_precision,
)
from tests.training.distributed.test_ranks import checkpoint, found

pytestmark = pytest.mark.process

CASES = "tests.training.distributed.sharding_cases"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks left behind: ``rank<i>.pt``, runs; beside them the runs of one process."""
    folder = tmp_path_factory.mktemp("sharded")
    assert fit_with_signal(signal.SIGTERM, fit(folder / "from_one")) == StopReason.SIGTERM
    assert main(fit(folder / "one")) == 0
    with running(CASES, folder, 2, 2, more_ports=4):
        pass
    shutil.copytree(folder / "from_two", folder / "for_four")
    assert main(["fit", "--resume", str(folder / "from_two"), "training.devices=1", "training.sharding=none",
                 "training.reshard_after_forward=false"]) == 0  # fmt: skip
    return folder


def assert_equal_steps(actual: dict[str, Tensor | None], expected: dict[str, Tensor | None]) -> None:
    assert actual.keys() == expected.keys()
    for key, mine in expected.items():
        theirs = actual[key]
        assert (theirs is None) == (mine is None), key
        if mine is not None and theirs is not None:
            assert mine.dtype == torch.float64
            torch.testing.assert_close(
                theirs, mine, rtol=1e-6, atol=1e-6 * float(mine.abs().max()), msg=f"{key} differs"
            )
    assert any(x is not None and x.abs().max() > 1e-4 for key, x in expected.items() if key.endswith(".grad"))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_is_that_of_one_process(folder: Path, name: str) -> None:
    """Gradients, and weights after Muon and AdamW."""
    expected = first_step(name)
    for rank in range(2):
        assert_equal_steps(found(folder, rank)["steps"][name], expected)
        if name in KEPT:
            assert_equal_steps(found(folder, rank)["steps, kept"][name], expected)


def test_scores_of_unequal_shares_are_those_of_one_process(folder: Path) -> None:
    for name, one in scores().items():
        assert found(folder)["scores"][name] == pytest.approx(one.as_metrics(), abs=1e-12)


def test_bf16_is_that_of_one_process_to_its_rounding(folder: Path) -> None:
    actual = found(folder)["bf16"]
    for name, mine in lower_precision().items():
        assert actual[name].dtype == mine.dtype == torch.float32
        assert (actual[name] - mine).norm() < 0.03 * mine.norm(), name


def test_a_step_gathers_and_reduces_every_unit_once(folder: Path) -> None:
    """Four blocks, and what is around them: through two micro-batches, each with a backward for every window."""
    assert found(folder)["collectives"] == {
        "c10d::_allgather_base_": 5,
        "c10d::_reduce_scatter_base_": 5,
        "c10d::allreduce_": 1,
        "c10d::alltoall_base_": 2,
    }


def test_a_rank_holds_little_more_than_its_share(folder: Path) -> None:
    held = [found(folder, rank)["bytes"] for rank in range(2)]
    assert max(held) < 0.6 * held_bytes()


def test_a_signal_to_any_rank_stops_all(folder: Path) -> None:
    for rank in range(2):
        told = StopReason.SIGUSR1 if rank == 0 else 0  # the first rank tells for all
        assert found(folder, rank)["exit codes"] == [0, told, 0, 0]


def test_the_run_goes_on_to_the_bit(folder: Path) -> None:
    """Also where weights are gathered otherwise."""
    stopped, through = checkpoint(folder / "stopped"), checkpoint(folder / "two")
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "TaskDataModule"):
        assert_same(stopped[key], through[key], key)


def assert_equal_runs(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    torch.testing.assert_close(actual["state_dict"], expected["state_dict"], rtol=1e-4, atol=5e-5)  # bf16 in Muon
    rows = {row["step"]: row for row in actual["history"]}
    for row in expected["history"]:
        for key in ("loss", "exact_match", "cost/train_flops"):
            assert rows[row["step"]][key] == pytest.approx(row[key], rel=1e-4), key
    assert actual["digests"]["10"] == expected["digests"]["10"]


@pytest.mark.parametrize("name", ["two", "from_one", "from_two"])
def test_history_is_that_of_one_process(folder: Path, name: str) -> None:
    assert_equal_runs(checkpoint(folder / name), checkpoint(folder / "one"))


def test_a_checkpoint_is_that_of_one_process(folder: Path) -> None:
    mine, theirs = checkpoint(folder / "one"), checkpoint(folder / "two")
    assert theirs.keys() == mine.keys()
    for key in ("state_dict", "optimizer_states"):
        assert shapes(theirs[key]) == shapes(mine[key])


def shapes(x: Any) -> Any:
    if isinstance(x, Tensor):
        return type(x), x.dtype, tuple(x.shape)
    if isinstance(x, dict):
        return {key: shapes(value) for key, value in x.items()}
    return [shapes(value) for value in x] if isinstance(x, list) else x


@pytest.mark.slow
def test_four_ranks(folder: Path, tmp_path: Path) -> None:
    """Steps with weights gathered once or often, and a run of two ranks that goes on with four."""
    shutil.copytree(folder / "for_four", tmp_path / "from_two")
    with running(CASES, tmp_path, 4, 4, more_ports=4):
        pass
    for name in STEPS:
        expected = first_step(name, Exchange(), "training.batch_size=16")
        for more in ([], [DROPS]):
            assert_equal_steps(found(tmp_path, 3)[f"steps {more}"][name], expected)
    assert_equal_runs(checkpoint(tmp_path / "from_two"), checkpoint(folder / "one"))


def test_whole_matrices_of_which_ranks_have_some_rows(folder: Path) -> None:
    """Each is seen by one rank."""
    assert sorted(n for rank in range(2) for n in found(folder, rank)["uneven"][0]) == [0, 1, 2]
    for rank in range(2):
        for n, (x, result) in enumerate(zip(UNEVEN, found(folder, rank)["uneven"][1], strict=True)):
            torch.testing.assert_close(result, n + x * x.sum())


def test_work_is_shared_out_evenly() -> None:
    assert owners([1, 4, 1, 3, 1], 2) == [1, 0, 0, 1, 1]
    assert owners([2], 3) == [0]


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"sharding": "full"}, r"training\.sharding=full needs at least two processes.*set training\.sharding=none"),
        ({"sharding": "full", "devices": 2, "compile": True}, r"training\.compile=true cannot gather sharded weights"),
        ({"sharding": "full", "devices": 2, "cuda_graph": True}, r"training\.cuda_graph=true cannot gather"),
        ({"reshard_after_forward": True}, r"training\.reshard_after_forward=true .*set training\.sharding=full"),
    ],
)
def test_what_cannot_be_sharded_is_refused(training: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingConfig(**training)
