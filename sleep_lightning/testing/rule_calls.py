"""Calls of a memory rule that the suites compare: random inputs, outputs with all gradients, relative errors."""

from typing import Any

import torch
from torch import Tensor

from sleep_lightning.ops import Rule, gated_delta_rule

Inputs = dict[str, Any]
"""Keyword arguments of a rule: tensors, and None for an initial state of zeros."""


def make_inputs(
    B: int, T: int, H: int, K: int, V: int, *, seed: int = 0, decay: float = 0.5, dtype: torch.dtype = torch.float32
) -> Inputs:
    """Random inputs of a rule, by name of the argument.

    ``q``, ``k`` ``[B, T, H, K]`` L2-normalised, ``v`` ``[B, T, H, V]`` normal, log decay ``g`` ``[B, T, H]`` uniform in
    ``[-decay, 0]``, ``beta`` ``[B, T, H]`` uniform in (0, 1), ``initial_state`` ``[B, H, K, V]`` normal. ``g`` and the
    state are fp32 unless ``dtype`` is float64.
    """
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    rand = lambda *shape: torch.rand(*shape, generator=generator)  # noqa: E731
    inputs = {
        "q": torch.nn.functional.normalize(randn(B, T, H, K), dim=-1).to(dtype),
        "k": torch.nn.functional.normalize(randn(B, T, H, K), dim=-1).to(dtype),
        "v": randn(B, T, H, V).to(dtype),
        "g": -decay * rand(B, T, H),
        "beta": rand(B, T, H).to(dtype),
        "initial_state": randn(B, H, K, V),
    }
    if dtype == torch.float64:
        inputs = {name: x.double() for name, x in inputs.items()}
    return inputs


def run_rule(backend: str, inputs: Inputs, *, read: bool = True, rule: Rule = gated_delta_rule) -> dict[str, Tensor]:
    """Call a backend and differentiate it.

    Args:
        backend: a name in ``rule.backends``.
        inputs: from ``make_inputs``.
        read: whether the state is read; without it there is no ``o``, and q takes no part.
        rule: the memory rule.

    Returns:
        ``o``, ``final_state``, and for every input ``d_<name>``: the gradient of a fixed random projection of both.
    """
    leaves = {name: x.detach().clone().requires_grad_() for name, x in inputs.items() if read or name != "q"}
    o, state = rule(**({"q": None} | leaves), backend=backend)
    generator = torch.Generator().manual_seed(1)
    d_state = torch.randn(state.shape, generator=generator).to(state)
    loss = (state * d_state).sum()
    results = {"final_state": state.detach()}
    if o is not None:
        loss = loss + (o.float() * torch.randn(o.shape, generator=generator).to(o)).sum()
        results["o"] = o.detach()
    gradients = torch.autograd.grad(loss, list(leaves.values()))
    return results | {f"d_{name}": d for name, d in zip(leaves, gradients, strict=True)}


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """RMS of the difference over RMS of the expected value, plus 0.01: an expected 0 is cancellation, not a scale."""
    difference = (actual.double() - expected.double()).square().mean().sqrt()
    return float(difference / (expected.double().square().mean().sqrt() + 1e-2))
