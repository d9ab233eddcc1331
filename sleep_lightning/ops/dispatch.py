"""A memory rule: checks shapes and dispatches to the first usable of several exact implementations."""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sleep_lightning.ops.chunks import starting_state
from sleep_lightning.ops.transforms import transformed

Kernel = Callable[[Tensor | None, Tensor, Tensor, Tensor, Tensor, Tensor | None, float], tuple[Tensor | None, Tensor]]
"""The signature of every implementation: (q, k, v, g, beta, initial state, scale) -> (o, final state)."""

RuleFlops = Callable[[int, int, int, int, bool], tuple[int, int]]
"""(T, H, K, V, read) -> FLOPs of the forward and of the backward over T tokens of one sequence."""


@dataclass(frozen=True)
class Backend:
    """An implementation and the reason, if any, why it cannot take ``k`` (None: it can)."""

    run: Kernel
    why_not: Callable[[Tensor], str | None]


def anywhere(k: Tensor) -> str | None:
    """``why_not`` of an implementation in plain torch without a backward of its own."""
    return None


def why_not_transformed(k: Tensor) -> str | None:
    """``why_not`` of one with a backward of its own."""
    if transformed():
        return "under torch.func transforms and forward-mode AD only plain torch has the derivatives"
    return None


@dataclass(frozen=True)
class Rule:
    """How a state is written and read, token by token.

    Attributes:
        name: in messages and recorded facts.
        backends: in order of preference: ``auto`` takes the first usable one.
        flops: its FLOPs; None: ``cost`` counts the products it dispatches.
        steps: implementations for one token without a gradient: ``auto`` prefers them where they are usable.
    """

    name: str
    backends: dict[str, Backend]
    flops: RuleFlops | None = None
    steps: dict[str, Backend] = field(default_factory=dict)

    def available(self, k: Tensor) -> list[str]:
        """Names of the backends that can run on keys like ``k`` ``[B, T, H, K]``, preferred first."""
        return [name for name, backend in self.backends.items() if backend.why_not(k) is None]

    def select(self, k: Tensor, backend: str = "auto") -> str:
        """The backend that a call with ``backend=backend`` takes for keys like ``k``.

        Raises ValueError if the name is unknown or that backend cannot run here.
        """
        if backend == "auto":
            for name, candidate in self.backends.items():  # not available(): the rest need not test themselves
                if candidate.why_not(k) is None:
                    return name
        if backend not in self.backends:
            raise ValueError(
                f"model.backend={backend!r} is unknown to {self.name}; use auto or one of {', '.join(self.backends)}"
            )
        if reason := self.backends[backend].why_not(k):
            raise ValueError(f"model.backend={backend!r} cannot run here: {reason}; use auto")
        return backend

    def __call__(
        self,
        q: Tensor | None,
        k: Tensor,
        v: Tensor,
        g: Tensor,
        beta: Tensor,
        initial_state: Tensor | None = None,
        scale: float | None = None,
        backend: str = "auto",
    ) -> tuple[Tensor | None, Tensor]:
        """The rule over T tokens.

        Args:
            q: queries ``[B, T, H, K]``, or None to write the state without reading it.
            k: keys ``[B, T, H, K]``, L2-normalised by the caller. Any size may be 0.
            v: values ``[B, T, H, V]``.
            g: log decay ``[B, T, H]``, in [-inf, 0], fp32; -inf forgets all before its token.
            beta: write strength ``[B, T, H]``.
            initial_state: ``[B, H, K, V]`` fp32, or None for zeros.
            scale: factor on the reads, default ``K ** -0.5``.
            backend: ``auto`` or a name of ``available``.

        Returns:
            ``o`` ``[B, T, H, V]`` in the dtype of v (None without q), and the final state ``[B, H, K, V]`` in fp32.

        Raises:
            ValueError: shapes that do not fit, or a backend that cannot run here.
        """
        _check_shapes(q, k, v, g, beta, initial_state)
        if k.shape[1] == 0:
            return _no_tokens(q, k, v, g, beta, initial_state)
        scale = max(k.shape[-1], 1) ** -0.5 if scale is None else scale
        if not (k.numel() and v.numel()) and "reference" in self.backends and backend in ("auto", *self.backends):
            backend = "reference"  # kernels divide by sizes
        step = next((s for s in self.steps.values() if s.why_not(k) is None), None) if backend == "auto" else None
        run = (step or self.backends[self.select(k, backend)]).run
        return run(q, k, v, g, beta, initial_state, scale)


def _no_tokens(
    q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None
) -> tuple[Tensor | None, Tensor]:
    """The state as it was, and no reads; both are functions of all tensors, so that every gradient is there."""
    state, gates = starting_state(k, v, initial_state), g * beta
    state = state + torch.einsum("bthk,bthv,bth->bhkv", *(x.to(state.dtype) for x in (k, v, gates)))
    return None if q is None else (v * ((q * k).sum(-1) * gates)[..., None]).to(v.dtype), state


def _check_shapes(q: Tensor | None, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None) -> None:
    if k.dim() != 4:
        raise ValueError(f"k has shape {tuple(k.shape)}; expected [B, T, H, K]")
    B, T, H, K = k.shape
    expected: list[tuple[str, Tensor | None, tuple[int, ...]]] = [
        ("q", q, (B, T, H, K)),
        ("v", v, (B, T, H, v.shape[-1])),
        ("g", g, (B, T, H)),
        ("beta", beta, (B, T, H)),
        ("initial_state", state, (B, H, K, v.shape[-1])),
    ]
    for name, x, shape in expected:
        if x is not None and x.shape != torch.Size(shape):
            raise ValueError(f"{name} has shape {tuple(x.shape)}; expected {shape} from k {tuple(k.shape)}")
