"""Two ranks read a snapshot's shares: the values of one process, and never a whole copy in either."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.pretrained.sharded_loading_cases import KINDS, LARGE, begun, experiment
from tests.pretrained.snapshots import write
from tests.training.distributed.rank_processes import running

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shares")
    for kind in KINDS[:3]:
        write(kind, folder / kind)
    write("llama", folder / "large", **LARGE)
    with running("tests.pretrained.sharded_loading_cases", folder, 2, more_ports=0):
        pass
    return folder


def found(folder: Path, rank: int) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(folder / f"rank{rank}.pt", weights_only=True)
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_shares_are_those_of_one_process(kind: str, folder: Path) -> None:
    """To the bit before the first step; frozen ones also behind a stage, and all to rounding behind the next."""
    e = experiment(folder, kind, 1)
    expected = begun(e).weights
    for rank in range(2):
        actual = found(folder, rank)[kind]
        assert len(actual) == len(expected) == 3
        for name, x in expected[0].items():
            assert torch.equal(actual[0][name], x), name
        moved = [{name for name, x in step.items() if not torch.equal(x, actual[0][name])} for step in actual[1:]]
        learned = [{name for name, x in step.items() if not torch.equal(x, expected[0][name])} for step in expected[1:]]
        assert moved == learned and moved[0] < moved[1]
        for step, mine in zip(actual[1:], expected[1:], strict=True):
            for name, x in mine.items():
                torch.testing.assert_close(step[name], x, rtol=1e-3, atol=5e-4, msg=name)  # bf16 in Muon


def test_no_rank_holds_a_whole_copy(folder: Path) -> None:
    whole = sum(x.nbytes for x in load_file(folder / "large" / "model.safetensors").values())
    for rank in range(2):
        sizes = found(folder, rank)["large"]
        print(sizes | {"whole": whole})
        assert sizes["shares"] < 0.6 * whole
        assert sizes["peak"] < 0.8 * whole, sizes | {"whole": whole}
