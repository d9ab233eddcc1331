"""A whole training step against what one would write with the parts on the shelf, each in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.bench.operator import peers
from sleep_lightning.bench.timing import interleave, ratio, summarize
from sleep_lightning.bench.worker import Worker
from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.ops import attention, delta_rule_inputs
from sleep_lightning.ops.gated_delta_rule.door import BACKENDS
from sleep_lightning.ops.native import build
from sleep_lightning.ops.rule import Backend
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config, TaskBatch
from sleep_lightning.training.allocator import tune_allocator
from sleep_lightning.training.cost import sequence_cost
from sleep_lightning.training.matmul import choose_fp32_matmul
from sleep_lightning.training.optim import build_optimizer, hidden_matrices
from sleep_lightning.training.tbptt import accumulate_gradients

WINDOW = 24


@dataclass(frozen=True)
class Setting:
    """A row of the step benchmark: Rule 110 with ``strings`` windows that sleep and one that answers."""

    n_passes: int
    batch: int = 32
    pass_input: str = "hidden"
    strings: int = 8
    d_model: int = 256

    def experiment(self) -> Experiment:
        task = Rule110Config(ring_size=WINDOW, n_strings=self.strings, steps=[4])
        sleep = SleepConfig(WINDOW, self.n_passes, pass_input=self.pass_input)  # type: ignore[arg-type]
        return Experiment(
            task, ModelConfig(d_model=self.d_model, n_heads=4), sleep, TrainingConfig(batch_size=self.batch)
        )

    def __str__(self) -> str:
        return f"d{self.d_model} AGAG, {self.strings}x{WINDOW}, B{self.batch}, N={self.n_passes}, {self.pass_input}"


SETTINGS = (Setting(4), Setting(1), Setting(4, pass_input="embed"), Setting(4, batch=8))
SHELF = "transformers"


def bench_step(
    seconds: float, settings: tuple[Setting, ...] = SETTINGS, *, with_compile: bool = True
) -> Iterator[dict[str, object]]:
    """A row per setting and contender: times and how many times faster than the shelf."""
    for setting in settings:
        experiment = setting.experiment()
        batch = experiment.task.build().batch(setting.batch, seed=0, position=0)
        contenders: dict[str, Callable[..., Callable[[], object]]] = {
            "shelf": shelf_step,
            "ours fp32": our_step,
            "ours bf16": partial(our_step, bf16=True),
        }
        if with_compile and setting == SETTINGS[0]:
            contenders["ours fp32 + compile"] = partial(our_step, compiled=True)
            contenders["ours bf16 + compile"] = partial(our_step, compiled=True, bf16=True)
        with ExitStack() as stack:
            steps = {name: stack.enter_context(Worker(f, experiment, batch)) for name, f in contenders.items()}
            times = interleave(steps, seconds, rounds=5, warm=False)
        flops = setting.batch * sequence_cost(experiment).total
        for name in contenders:
            timing = summarize(times[name])
            yield {
                "what": "training step",
                "shape": str(setting),
                "dtype": "bf16" if "bf16" in name else "fp32",
                "contender": name,
                "median_ms": 1e3 * timing.median,
                "times_faster_than_shelf": ratio(times["shelf"], times[name]),
                "gflops": flops / timing.median / 1e9,
                "rounds": timing.rounds,
            }
    yield {
        "what": "large matmul",
        "shape": "4096^3",
        "dtype": "fp32",
        "contender": "best mode",
        "gflops": best_matmul_rate(),
    }


def our_step(
    experiment: Experiment, batch: TaskBatch, *, compiled: bool = False, bf16: bool = False
) -> Callable[[], Tensor]:
    """As ``fit`` trains: probed matmul mode, memory kept, fast executor, fused kernels, batched Muon."""
    tune_allocator("keep")
    choose_fp32_matmul("auto")
    torch.manual_seed(0)
    model = HybridLM(experiment.model, len(experiment.task.build().vocab))
    if compiled:
        model.compile_passes()
    optimizer = build_optimizer(model, experiment.training)

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = accumulate_gradients(model, batch, experiment.sleep, policy=experiment.training.checkpointing)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss

    return step


def shelf_step(experiment: Experiment, batch: TaskBatch) -> Callable[[], Tensor]:
    """The same model with transformers' torch chunk as shipped, SDPA, conv1d, window by window, torch's optimizers."""
    torch.manual_seed(0)
    model = HybridLM(replace(experiment.model, backend=SHELF), len(experiment.task.build().vocab))
    hidden = [p for p, _ in hidden_matrices(model)]
    rest = [p for p in model.parameters() if not any(p is q for q in hidden)]
    optimizers = (torch.optim.Muon(hidden, lr=0.02, weight_decay=1e-4), torch.optim.AdamW(rest, lr=3e-3))

    def step() -> Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        with shelf_parts():
            loss = accumulate_gradients(model, batch, experiment.sleep, executor="windows")
        clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        return loss

    return step


@contextmanager
def shelf_parts() -> Iterator[None]:
    """Inside, the shelf's operator is a backend, attention is ``scaled_dot_product_attention``, conv ``conv1d``."""
    chunk = peers(WINDOW)["transformers chunk (as shipped)"]

    def run(
        q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None, scale: float
    ) -> tuple[Tensor | None, Tensor]:
        assert state is not None
        o, final = chunk(k if q is None else q, k, v, g, beta, state)
        return (None if q is None else o), final

    short, attention.SHORT = attention.SHORT, 0
    conv, delta_rule_inputs.short_conv = delta_rule_inputs.short_conv, shelf_conv  # type: ignore[attr-defined]
    why_not, build.why_not = build.why_not, lambda: "the shelf has none"
    BACKENDS[SHELF] = Backend(run, lambda k: None)
    try:
        yield
    finally:
        attention.SHORT, build.why_not = short, why_not
        delta_rule_inputs.short_conv = conv  # type: ignore[attr-defined]
        del BACKENDS[SHELF]


def shelf_conv(x_BTC: Tensor, weight_KC: Tensor) -> Tensor:
    """``ops.short_conv`` as transformers' models write it."""
    taps, T = len(weight_KC), x_BTC.shape[1]
    y = F.conv1d(x_BTC.transpose(1, 2), weight_KC.t()[:, None], padding=taps - 1, groups=weight_KC.shape[1])
    return F.silu(y[:, :, :T]).transpose(1, 2)


def best_matmul_rate(size: int = 4096) -> float:
    """GFLOP/s of a large fp32 product in the faster of torch's default and the probed mode."""
    a, b = torch.randn(size, size), torch.randn(size, size)
    before = torch.get_float32_matmul_precision()
    times = []
    for mode in ("torch", "auto"):
        choose_fp32_matmul(mode)
        times.append(summarize(interleave({mode: lambda: a @ b}, 0, rounds=3)[mode]).median)
    torch.set_float32_matmul_precision(before)
    return 2 * size**3 / min(times) / 1e9
