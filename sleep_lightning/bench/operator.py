"""The gated delta rule, forward and backward with the state's gradient, compared with existing implementations."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sleep_lightning.ops import gated_delta_rule
from sleep_lightning.ops.gated_delta_rule.backends import FLA
from sleep_lightning.timing import interleave, ratio, summarize

Operator = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shape:
    """Batch, tokens, heads, key dim, value dim."""

    B: int
    T: int
    H: int
    K: int
    V: int

    def __str__(self) -> str:
        return f"B{self.B} T{self.T} H{self.H} K{self.K} V{self.V}"


RECURRENT_T = 256
"""Longest sequence on which token-by-token peers are timed: on longer ones a call takes seconds and gigabytes."""

SHAPES = (Shape(64, 24, 4, 64, 64), Shape(8, 128, 4, 64, 64), Shape(2, 512, 8, 128, 128))


def runs_fla(device: str, dtype: torch.dtype = torch.float32) -> bool:
    """Whether fla's kernel runs on the device and passes its self-test there."""
    return FLA.why_not(torch.empty(1, 1, 1, 64, device=device, dtype=dtype)) is None


def peers(T: int, device: str = "cpu") -> dict[str, Operator]:
    """Existing implementations that run on the device; those not installed, or wrong there, are left out."""
    found: dict[str, Operator] = {}
    try:
        from transformers.models.qwen3_next import modeling_qwen3_next as hf

        # transformers swaps these for fla's kernels once fla is imported; the torch code itself is measured.
        chunk = getattr(hf.torch_chunk_gated_delta_rule, "__wrapped__", hf.torch_chunk_gated_delta_rule)
        recurrent = getattr(hf.torch_recurrent_gated_delta_rule, "__wrapped__", hf.torch_recurrent_gated_delta_rule)
        common = {"output_final_state": True}
        found["transformers chunk (as shipped)"] = lambda q, k, v, g, b, s: chunk(
            q, k, v, g, b, initial_state=s, **common
        )
        if T <= 128:
            found["transformers chunk (chunk = T)"] = lambda q, k, v, g, b, s: chunk(
                q, k, v, g, b, chunk_size=T, initial_state=s, **common
            )
        if T <= RECURRENT_T:
            found["transformers recurrent"] = lambda q, k, v, g, b, s: recurrent(
                q, k, v, g, b, initial_state=s, **common
            )
    except ImportError:
        pass
    try:
        from fla.ops.gated_delta_rule import naive

        found["fla naive chunk"] = lambda q, k, v, g, b, s: naive.naive_chunk_gated_delta_rule(
            q=q, k=k, v=v, g=g, beta=b, chunk_size=min(T, 64), initial_state=s, output_final_state=True
        )
        if T <= RECURRENT_T:
            found["fla naive recurrent"] = lambda q, k, v, g, b, s: naive.naive_recurrent_gated_delta_rule(
                q=q, k=k, v=v, g=g, beta=b, initial_state=s, output_final_state=True
            )
        if runs_fla(device):
            from fla.ops.gated_delta_rule import chunk_gated_delta_rule

            found["fla chunk kernel"] = lambda q, k, v, g, b, s: chunk_gated_delta_rule(
                q=q, k=k, v=v, g=g, beta=b, initial_state=s, output_final_state=True
            )
    except ImportError:
        pass
    return found


def inputs(shape: Shape, dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[Tensor]:
    """q, k, v, g, beta, initial state; leaves that require grad."""
    torch.manual_seed(0)
    B, T, H, K, V = shape.B, shape.T, shape.H, shape.K, shape.V
    unit = torch.nn.functional.normalize
    tensors = [unit(torch.randn(B, T, H, K), dim=-1).to(dtype), unit(torch.randn(B, T, H, K), dim=-1).to(dtype)]
    tensors += [torch.randn(B, T, H, V).to(dtype), -0.5 * torch.rand(B, T, H), torch.rand(B, T, H).to(dtype)]
    return [x.to(device).requires_grad_() for x in (*tensors, torch.randn(B, H, K, V))]


def bench_operator(seconds: float, shapes: tuple[Shape, ...] = SHAPES) -> Iterator[dict[str, object]]:
    """A row per shape and peer: times, the ratio to our ``auto`` backend, and the largest gradient difference."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for shape in shapes:
        leaves = inputs(shape, device=device)
        d_o = torch.randn(shape.B, shape.T, shape.H, shape.V, device=device)
        d_s = torch.randn(shape.B, shape.H, shape.K, shape.V, device=device)
        [auto, *_] = gated_delta_rule.available(leaves[1])
        ours = [name for name in gated_delta_rule.available(leaves[1]) if name != "reference"]
        operators = {f"{name} (ours)": _ours(name) for name in ours} | peers(shape.T, device)
        calls = {name: _step(operator, leaves, d_o, d_s) for name, operator in operators.items()}
        expected = calls[f"{auto} (ours)"]()
        wrong = {name: _difference(call(), expected) for name, call in calls.items()}
        times = interleave(calls, seconds)
        for name in calls:
            timing = summarize(times[name])
            yield {
                "what": "operator fwd+bwd",
                "shape": str(shape),
                "dtype": "fp32",
                "contender": name,
                "median_ms": 1e3 * timing.median,
                "times_slower_than_auto": ratio(times[name], times[f"{auto} (ours)"]),
                "gradient_difference": wrong[name],
                "rounds": timing.rounds,
            }


def _ours(backend: str) -> Operator:
    return lambda q, k, v, g, b, s: gated_delta_rule(q, k, v, g, b, s, backend=backend)  # type: ignore[return-value]


def _step(operator: Operator, leaves: list[Tensor], d_o: Tensor, d_s: Tensor) -> Callable[[], list[Tensor]]:
    def call() -> list[Tensor]:
        o, state = operator(*leaves)
        gradients = list(torch.autograd.grad([o, state], leaves, [d_o, d_s]))
        if d_o.device.type == "cuda":
            torch.cuda.synchronize()
        return gradients

    return call


def _difference(actual: list[Tensor], expected: list[Tensor]) -> float:
    return max(float((a - b).norm() / b.norm()) for a, b in zip(actual, expected, strict=True))
