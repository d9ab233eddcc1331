"""A training step compared with a baseline built from existing parts, each in a process of its own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.bench.operator import peers, runs_fla
from sleep_lightning.bench.worker import Worker
from sleep_lightning.config import Experiment, TrainingConfig
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.ops import attention, delta_rule_inputs
from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.dispatch import Backend
from sleep_lightning.ops.gated_delta_rule.backends import BACKENDS, FLA
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config, TaskBatch
from sleep_lightning.timing import interleave, ratio, summarize
from sleep_lightning.training.cuda_graph import GraphedGradients
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul

WINDOW = 24


@dataclass(frozen=True)
class Setting:
    """A row of the step benchmark: Rule 110 with ``strings`` windows that sleep and one that answers.

    With ``in_turn`` contenders run one after another, each with the device to itself: for sizes at which one fills the
    device's memory.
    """

    n_passes: int
    batch: int = 32
    pass_input: str = "hidden"
    strings: int = 8
    d_model: int = 256
    in_turn: bool = False

    def experiment(self) -> Experiment:
        task = Rule110Config(ring_size=WINDOW, n_strings=self.strings, steps=[4])
        sleep = SleepConfig(WINDOW, self.n_passes, pass_input=self.pass_input)  # type: ignore[arg-type]
        return Experiment(
            task, ModelConfig(d_model=self.d_model, n_heads=4), sleep, TrainingConfig(batch_size=self.batch)
        )

    def __str__(self) -> str:
        return f"d{self.d_model} AGAG, {self.strings}x{WINDOW}, B{self.batch}, N={self.n_passes}, {self.pass_input}"


SETTINGS = (Setting(4), Setting(1), Setting(4, pass_input="embed"), Setting(4, batch=8))
FULL = Setting(4, batch=512, in_turn=True)
"""CUDA only: at B32 a GPU mostly waits for kernel launches. A contender takes 30 GiB or more."""
BASELINE = "baseline"
Builder = Callable[..., Callable[[], object]]
"""Called with an experiment and a batch in the contender's process; returns the step."""


def bench_step(
    seconds: float, settings: tuple[Setting, ...] | None = None, *, with_compile: bool = True
) -> Iterator[dict[str, object]]:
    """A row per setting and contender: times, and how many times faster than the baseline. On CUDA if available."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for setting in settings or (SETTINGS if device == "cpu" else (*SETTINGS, FULL)):
        experiment = setting.experiment()
        batch = experiment.task.build().batch(setting.batch, seed=0, position=0)
        contenders = contenders_on(device, with_compile=with_compile and setting in (SETTINGS[0], FULL))
        groups = [{name: f} for name, f in contenders.items()] if setting.in_turn else [contenders]
        times: dict[str, list[float]] = {}
        for group in groups:
            with ExitStack() as stack:
                steps = {name: stack.enter_context(Worker(f, experiment, batch)) for name, f in group.items()}
                times |= interleave(steps, 0 if setting.in_turn else seconds, rounds=5, warm=False)
        flops = setting.batch * sequence_cost(experiment).total
        for name in contenders:
            timing = summarize(times[name])
            yield {
                "what": "training step",
                "shape": str(setting),
                "dtype": "bf16" if "bf16" in name else "fp32",
                "contender": name,
                "median_ms": 1e3 * timing.median,
                "times_faster_than_baseline": ratio(times[BASELINE], times[name]),
                "gflops": flops / timing.median / 1e9,
                "rounds": timing.rounds,
            }
    yield {
        "what": "large matmul",
        "shape": "4096^3",
        "dtype": "fp32",
        "contender": "best mode",
        "gflops": best_matmul_rate(device),
    }


def contenders_on(device: str, *, with_compile: bool) -> dict[str, Builder]:
    """Contenders, the baseline first; those with bf16 in their name run under bf16 autocast."""
    if device == "cpu":
        found: dict[str, Builder] = {BASELINE: baseline_step, "ours fp32": our_step}
        found["ours bf16"] = partial(our_step, bf16=True)
    else:
        found = {BASELINE: partial(baseline_step, device=device)}
        for name, bf16 in (("fp32", False), ("bf16", True)):
            if runs_fla(device, torch.bfloat16 if bf16 else torch.float32):
                found[f"{BASELINE} with fla's kernel {name}"] = partial(
                    baseline_step, device=device, with_fla=True, bf16=bf16
                )
            found[f"ours {name}"] = partial(our_step, device=device, bf16=bf16)
            found[f"ours {name} + graph"] = partial(our_step, device=device, bf16=bf16, graph=True)
    ours = [name for name in found if name.startswith("ours") and (device == "cpu" or name.endswith("graph"))]
    return found | ({f"{name} + compile": partial(found[name], compiled=True) for name in ours} if with_compile else {})


def our_step(
    experiment: Experiment,
    batch: TaskBatch,
    *,
    compiled: bool = False,
    bf16: bool = False,
    graph: bool = False,
    device: str = "cpu",
) -> Callable[[], Tensor]:
    """A step as in ``fit``: probed matmul mode, memory kept between steps, fastest executor, batched Muon."""
    tune_allocator("keep")
    choose_fp32_matmul("auto")
    torch.manual_seed(0)
    model, batch = experiment.build_model(), batch.to(torch.device(device))
    model.to(device)
    if compiled:
        assert isinstance(model, HybridLM)
        model.compile_passes()
    optimizer = build_optimizer(model, experiment.training)
    gradients = GraphedGradients(model) if graph else partial(accumulate_gradients, model)

    def step() -> Tensor:
        optimizer.zero_grad(set_to_none=not graph)
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = gradients(batch, experiment.sleep, policy=experiment.training.checkpointing)
        clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return _done(loss)

    return step


def _done(loss: Tensor) -> Tensor:
    """The loss, once its device is idle."""
    if loss.device.type == "cuda":
        torch.cuda.synchronize()
    return loss


def baseline_step(
    experiment: Experiment, batch: TaskBatch, *, with_fla: bool = False, bf16: bool = False, device: str = "cpu"
) -> Callable[[], Tensor]:
    """The same model with transformers' torch chunk as shipped (on CUDA, with fla's kernel if asked), SDPA, conv1d,
    window by window, torch's optimizers."""
    torch.manual_seed(0)
    assert isinstance(experiment.model, ModelConfig)
    model = replace(experiment, model=replace(experiment.model, backend=BASELINE)).build_model()
    model, batch = model.to(device), batch.to(torch.device(device))
    hidden = [p for p, _ in hidden_matrices(model)]
    rest = [p for p in model.parameters() if not any(p is q for q in hidden)]
    optimizers = (torch.optim.Muon(hidden, lr=0.02, weight_decay=1e-4), torch.optim.AdamW(rest, lr=3e-3))

    def step() -> Tensor:
        for optimizer in optimizers:
            optimizer.zero_grad()
        with baseline_parts(with_fla), torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = accumulate_gradients(model, batch, experiment.sleep, executor="windows")
        clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        return _done(loss)

    return step


@contextmanager
def baseline_parts(with_fla: bool = False) -> Iterator[None]:
    """Inside the block, the baseline's operator is a backend; SDPA and ``conv1d`` are attention and convolution."""
    chunk = peers(WINDOW)["transformers chunk (as shipped)"]

    def run(
        q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None, scale: float
    ) -> tuple[Tensor | None, Tensor]:
        assert state is not None
        o, final = chunk(k if q is None else q, k, v, g, beta, state)
        return (None if q is None else o), final

    short, attention.SHORT = attention.SHORT, 0
    conv, delta_rule_inputs.short_conv = delta_rule_inputs.short_conv, baseline_conv  # type: ignore[attr-defined]
    why_not, build.why_not = build.why_not, lambda: "the baseline has none"
    BACKENDS[BASELINE] = Backend(FLA.run if with_fla else run, lambda k: None)
    try:
        yield
    finally:
        attention.SHORT, build.why_not = short, why_not
        delta_rule_inputs.short_conv = conv  # type: ignore[attr-defined]
        del BACKENDS[BASELINE]


def baseline_conv(x_BTC: Tensor, weight_KC: Tensor) -> Tensor:
    """``ops.short_conv`` as in transformers' models."""
    taps, T = len(weight_KC), x_BTC.shape[1]
    y = F.conv1d(x_BTC.transpose(1, 2), weight_KC.t()[:, None], padding=taps - 1, groups=weight_KC.shape[1])
    return F.silu(y[:, :, :T]).transpose(1, 2)


def best_matmul_rate(device: str = "cpu", size: int = 4096) -> float:
    """GFLOP/s of a large fp32 product in the faster of torch's default and the probed mode."""
    a, b = torch.randn(size, size, device=device), torch.randn(size, size, device=device)
    before = torch.get_float32_matmul_precision()
    times = []
    for mode in ("torch", "auto"):
        choose_fp32_matmul(mode)
        times.append(summarize(interleave({mode: lambda: _done(a @ b)}, 0, rounds=3)[mode]).median)
    torch.set_float32_matmul_precision(before)
    return 2 * size**3 / min(times) / 1e9
