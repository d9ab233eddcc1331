"""A prelude that does not learn: no backward through it, and its outputs looked up, to the bit."""

from collections import Counter
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.training.frozen_prelude import FrozenPrelude
from sleep_lightning.training.module import SleepModule
from tests.training.test_module import experiment, train

KEYS = ["model.pattern=AAGAG", "sleep.loop=2/2/1", "sleep.n_passes=2", "training.train=after_prelude"]
SLIDING = "{steps: 1, train: after_prelude, eviction: sliding}"
FIXED = ["training.unique_sequences=16", "training.batch_size=8", "training.max_steps=4", "training.val_every=2"]


def prelude(*more: str) -> Experiment:
    return experiment(*KEYS, *FIXED, *more)


def trained(*more: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    module = train(prelude(*more))
    return module.model.state_dict() | {"loss": torch.tensor(module.scores["all"].loss)}


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*/*.safetensors"))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many sequences went through the prelude."""
    seen: Counter[str] = Counter()
    blocks = HybridLM.blocks

    def counted(self: HybridLM, h: Tensor, memory: Memory, pad: Any = None, part: Any = None, **more: Any) -> Any:
        seen["rows"] += len(h) if part == range(2) else 0
        return blocks(self, h, memory, pad, part, **more)

    monkeypatch.setattr(HybridLM, "blocks", counted)
    return seen


def test_with_and_without_the_cache_to_the_bit(tmp_path: Path, runs: Counter[str]) -> None:
    plain, without = trained(), runs["rows"]
    assert without > 0
    counts, found = [], []
    for more in ((), (), ("training.prelude_cache_gb=0",)):
        runs.clear()
        found.append(trained(f"training.prelude_cache={tmp_path}", *more))
        counts.append(runs["rows"])
    for one in found:
        assert one.keys() == plain.keys() and all(torch.equal(one[name], x) for name, x in plain.items())
    cold, warm, bounded = counts
    assert 0 < cold < without and warm == 0 and bounded == 0  # nothing is added; what is there is read
    assert files(tmp_path)


def test_the_limit_holds(tmp_path: Path, runs: Counter[str]) -> None:
    row = 8 * 32 * 4
    trained(f"training.prelude_cache={tmp_path}", f"training.prelude_cache_gb={3.5 * row / 1e9}")
    first = runs["rows"]
    assert 0 < sum(path.stat().st_size for path in files(tmp_path)) < 5 * row
    runs.clear()
    trained(f"training.prelude_cache={tmp_path}")
    assert 0 < runs["rows"] < first


def test_other_weights_are_not_looked_up(tmp_path: Path, runs: Counter[str]) -> None:
    trained(f"training.prelude_cache={tmp_path}")
    runs.clear()
    trained(f"training.prelude_cache={tmp_path}", "model.norm_eps=1e-3")
    assert runs["rows"] > 0 and len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_left_out(tmp_path: Path) -> None:
    plain = trained(f"training.prelude_cache={tmp_path}")
    for path in files(tmp_path):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(UserWarning, match="is damaged and left out"):
        again = trained(f"training.prelude_cache={tmp_path}")
    assert all(torch.equal(again[name], x) for name, x in plain.items())


def hashes(model: nn.Module) -> dict[str, str]:
    return {name: sha256(p.detach().numpy().tobytes()).hexdigest() for name, p in model.named_parameters()}


@pytest.mark.parametrize("passes", [1, 2])
def test_the_prelude_stays_and_the_rest_learns(passes: int) -> None:
    e = prelude(f"sleep.n_passes={passes}")
    torch.manual_seed(0)
    before = hashes(SleepModule(e).model)  # type: ignore[arg-type]
    torch.manual_seed(0)
    after = hashes(train(e).model)  # type: ignore[arg-type]
    stays = {name for name in before if name.startswith(("embedding.", "layers.0.", "layers.1."))}
    assert {name for name in before if before[name] == after[name]} == stays


def test_it_is_the_model_itself() -> None:
    """Up to rounding: there whole batches go through the prelude."""
    module = SleepModule(prelude())
    batch = module.task.batch(8, seed=0, position=0)
    assert isinstance(module.reader, FrozenPrelude)
    assert not any("reader" in name or "prelude" in name for name in module.state_dict())
    actual = module(batch)
    module._prelude = None
    torch.testing.assert_close(actual, module(batch), rtol=1e-5, atol=1e-5)


def test_a_prelude_that_a_stage_gives_a_cache_is_not_frozen() -> None:
    module = SleepModule(prelude(f"training.stages=[{SLIDING}]"))
    assert module.reader is module.model


def test_a_frozen_prelude_has_no_backward() -> None:
    frozen, whole = sequence_cost(prelude()), sequence_cost(prelude("training.train=all"))
    assert frozen.forward == whole.forward
    head = frozen.forward["head"]
    share = (frozen.backward.total() - 2 * head) / (whole.backward.total() - 2 * head)
    assert 0.6 < share < 0.85  # of 2 + 2 x 2 + 1 blocks


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["training.train=all"], "needs a prelude that does not learn; set training.train=after_prelude"),
        (["training.stages=[{steps: 1}]"], "needs a prelude that does not learn"),
        (["sleep.loop=all", "training.train=memory"], "needs blocks in front of the loop, and sleep.loop=all has none"),
        (
            ["model.pattern=GAGAG"],
            r"needs a prelude without memory, and block 0 \(G, sleep.eviction=hard\) leaves some",
        ),
        (
            ["sleep.eviction=sliding"],
            r"block 0 \(A, sleep.eviction=sliding\) leaves.*; set training.prelude_cache=null",
        ),
        (
            [f"training.stages=[{SLIDING}]"],
            r"block 0 \(A, training\.stages\[0\]\.eviction=sliding\) leaves.*; set training.prelude_cache=null",
        ),
        (["model.summary_tokens=2"], "there are model.summary_tokens=2; set model.summary_tokens=0"),
        (["sleep.retrieved_windows=1"], "there are sleep.retrieved_windows=1"),
        (["training.compile=true"], "training.compile=false"),
    ],
)
def test_what_is_not_fixed_is_refused(more: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        prelude(f"training.prelude_cache={tmp_path}", *more)


def test_a_prelude_to_freeze_must_be_there() -> None:
    with pytest.raises(ValueError, match=r"needs a prelude, and sleep\.loop=all has none"):
        experiment("training.train=after_prelude")
    with pytest.raises(ValueError, match="leaves nothing that learns"):
        experiment("training.train=memory", "model.pattern=AA", "sleep.n_passes=1")
