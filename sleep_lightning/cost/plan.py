"""Whether an experiment fits a number of GPUs, and how long it takes there, without weights and without a GPU.

The model is built of fake tensors: its passes are dispatched, under autocast too, and not computed. Counted is what the
operations of torch and the chunked rule keep; a GPU kernel of the rule keeps less.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain
from typing import get_args

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.cost.activation_memory import PassBytes
from sleep_lightning.cost.inference import inference_cost
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.step_memory import predict_step_memory, probe_row
from sleep_lightning.model import HybridLM, ModelConfig, WindowModel
from sleep_lightning.model.parameter_groups import counted_parameters
from sleep_lightning.sleep import Checkpointing

PEAK_TFLOPS = {"A100": 312, "H100": 989, "H200": 989, "B200": 2250, "L40S": 362, "RTX4090": 165}
"""Dense bf16 matrix products, by the makers' data sheets."""
POLICIES: tuple[Checkpointing, ...] = get_args(Checkpointing)
PROBED: tuple[Checkpointing, ...] = ("none", "mlp")
"""The others recompute a pass that keeps what it does under none."""
CHUNKED = "chunked"
Kept = Mapping[Checkpointing, PassBytes]
"""What a pass over one sequence keeps, by ``training.checkpointing``: the same for every N and batch."""


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        n_passes: N.
        checkpointing, sharding, accumulate: keys of ``training``.
        nbytes: peak of a step on each GPU.
        flops: of the whole run, recomputation included.
    """

    n_passes: int
    checkpointing: Checkpointing
    sharding: str
    accumulate: int
    nbytes: int
    flops: float

    def arguments(self) -> list[str]:
        """As arguments of ``fit``."""
        found = [f"sleep.n_passes={self.n_passes}", f"training.checkpointing={self.checkpointing}"]
        found += [f"training.sharding={self.sharding}"] if self.sharding != "none" else []
        return found + ([f"training.accumulate={self.accumulate}"] if self.accumulate > 1 else [])


@dataclass(frozen=True)
class Plan:
    """What an experiment takes.

    Attributes:
        parameters: of the model.
        learning: those that learn at one step or another.
        state_bytes: memory of one sequence.
        ways: N by checkpointing, as the experiment has the rest.
        fitting: for each N the first change that fits, if the experiment does not; None: nothing does.
    """

    parameters: int
    learning: int
    state_bytes: int
    ways: list[Way]
    fitting: dict[int, Way | None]


def plan(experiment: Experiment, gpus: int, memory: int, passes: Sequence[int] = ()) -> Plan:
    """Predict all combinations of N and checkpointing.

    Args:
        experiment: what is to be trained.
        gpus: number of GPUs, each a rank.
        memory: bytes of each.
        passes: N, each alone, also where ``training.sampled_passes`` draws it; empty: 1, 2 and 4 as far as the model
            takes them, and its own.

    Raises:
        ValueError: a model that is not the hybrid, or one that cannot be predicted or trained on so many.
    """
    pinned = experiment.pinned()  # it checks the task again, which the meta device cannot build
    if not isinstance(pinned.model, ModelConfig):
        raise ValueError("plan knows the hybrid model only; drop model.class_path")
    t = experiment.training
    if t.compile or t.cuda_graph:
        raise ValueError("plan cannot predict training.compile or training.cuda_graph; set both false")
    base = replace(
        pinned,
        model=replace(pinned.model, backend=CHUNKED),
        training=_spread(t, gpus, t.sharding if gpus > 1 else "none", t.accumulate),
    )
    task = base.task.build()
    with torch.device("meta"):
        model = base.build_model(task)
    assert isinstance(model, HybridLM)
    with FakeTensorMode(allow_non_fake_inputs=True):  # the meta device has no autocast and no fused attention
        model.to_empty(device="cpu")
    probed = {policy: probe_row(_checkpointed(base, policy), model) for policy in PROBED}
    kept = {policy: probed[policy if policy in PROBED else "none"] for policy in POLICIES}
    passes = passes or _default_passes(base)
    ways = [_way(base, model, n, policy, kept) for n in passes for policy in POLICIES]
    fitting = {n: _first(base, model, [way for way in ways if way.n_passes == n], memory, kept) for n in passes}
    parameters, learning = counted_parameters(model)
    return Plan(parameters, learning, inference_cost(base).state_bytes, ways, fitting)


def _spread(t: TrainingConfig, gpus: int, sharding: str, accumulate: int) -> TrainingConfig:
    return replace(
        t,
        accelerator="cpu",  # no GPU is asked for here
        devices=gpus,
        num_nodes=1,
        sharding=sharding,  # type: ignore[arg-type]
        accumulate=accumulate,
        reshard_after_forward=sharding == "full",
    )


def own_passes(experiment: Experiment) -> list[int]:
    """The N of its steps behind the stages."""
    return experiment.training.sampled_passes or [experiment.sleep.n_passes]


def _default_passes(base: Experiment) -> list[int]:
    found = set(own_passes(base))
    for n in (1, 2, 4):
        with suppress(ValueError):  # nothing in the loop holds memory, say
            _of_passes(base, n)
            found.add(n)
    return sorted(found)


def _of_passes(base: Experiment, n_passes: int) -> Experiment:
    """The same with this N in all steps behind the stages."""
    return replace(base, sleep=base.sleep.with_passes(n_passes), training=replace(base.training, sampled_passes=[]))


def _checkpointed(base: Experiment, policy: Checkpointing) -> Experiment:
    return replace(base, training=replace(base.training, checkpointing=policy))


def _way(base: Experiment, model: WindowModel, n_passes: int, policy: Checkpointing, kept: Kept) -> Way:
    e, t = _checkpointed(_of_passes(base, n_passes), policy), base.training
    nbytes = predict_step_memory(e, model, kept[policy])
    assert nbytes is not None
    return Way(n_passes, policy, t.sharding, t.accumulate, nbytes, StepFlops(e, model).run())


def _first(base: Experiment, model: WindowModel, ways: Sequence[Way], memory: int, kept: Kept) -> Way | None:
    """The first that fits: of the ``ways`` of one N with the rest as it is, then of what costs more."""
    changed = (_way(e, model, ways[0].n_passes, policy, kept) for e in _changes(base) for policy in POLICIES)
    return next((way for way in chain(ways, changed) if way.nbytes <= memory), None)


def _changes(base: Experiment) -> Iterator[Experiment]:
    """With sharded weights; with smaller micro-batches too."""
    t = base.training
    rows = t.batch_size // t.processes
    for sharding in dict.fromkeys((t.sharding, "full" if t.processes > 1 else "none")):
        for accumulate in (n for n in range(t.accumulate, rows + 1) if rows % n == 0):
            if (sharding, accumulate) != (t.sharding, t.accumulate):
                yield replace(base, training=_spread(t, t.processes, sharding, accumulate))
