"""What ``training.optimizer`` names; by default Muon on the hidden matrices and AdamW on the rest, as one optimizer.

Muon is torch.optim.Muon's algorithm (Keller Jordan's), with two differences that change no result: matrices of one
shape are orthogonalised as batches, and a fused projection (q, k, v, ... stacked by rows in one weight) is
orthogonalised part by part, as separate weights would be. A sharded matrix is gathered and orthogonalised on one rank.
"""

import inspect
import math
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from sleep_lightning.config import TrainingConfig
from sleep_lightning.config.plugins import load_plugin
from sleep_lightning.model import WindowModel
from sleep_lightning.model.parameter_groups import hidden_matrices, together, vocabulary_matrices
from sleep_lightning.training.distributed.sharded_muon import is_sharded, local, map_whole

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NEWTON_SCHULZ_STEPS = 5


def orthogonalize(x_NRC: Tensor) -> Tensor:
    """Newton-Schulz towards the nearest semi-orthogonal matrix, a batch ``[N, R, C]`` at a time, in bf16."""
    a, b, c = NEWTON_SCHULZ
    tall = x_NRC.shape[1] > x_NRC.shape[2]
    x = (x_NRC.transpose(1, 2) if tall else x_NRC).bfloat16()
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(NEWTON_SCHULZ_STEPS):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


class Muon(Optimizer):
    """Nesterov momentum, orthogonalised; the update of an R x C matrix is scaled by ``sqrt(max(1, R / C))``.

    Args:
        matrices: 2-D parameters, each with the row counts of the matrices stacked in it.
        lr: learning rate.
        weight_decay: decoupled, ``lr * weight_decay`` a step.
        momentum: of the exponential moving average.
    """

    def __init__(
        self, matrices: list[tuple[nn.Parameter, tuple[int, ...]]], lr: float, weight_decay: float, momentum: float
    ) -> None:
        group = {"params": [p for p, _ in matrices]}  # of none, if adapters alone learn
        super().__init__([group], {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.splits: dict[Tensor, tuple[int, ...]] = dict(matrices)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group([p for p in group["params"] if p.grad is not None], group)
        return loss

    def _step_group(self, params: list[Tensor], group: dict[str, Any]) -> None:
        if not params:
            return
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        grads, weights = [local(grad) for grad in grads], [local(p) for p in params]
        buffers = [local(self.state[p]["momentum_buffer"]) for p in params]
        torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
        torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
        splits = [self.splits[p] for p in params]
        if sharded := [p for p in params if is_sharded(p)]:  # all of them, or none
            updates = list(torch._foreach_lerp(grads, buffers, group["momentum"]))
            steps = map_whole(lambda whole, numbers: _steps(whole, [splits[i] for i in numbers]), updates, sharded)
            torch._foreach_add_(weights, steps, alpha=-group["lr"])
        else:
            _add_steps(weights, grads, buffers, group["momentum"], splits, -group["lr"])


def _add_steps(
    targets: list[Tensor],
    grads: list[Tensor],
    buffers: list[Tensor],
    momentum: float,
    splits: list[tuple[int, ...]],
    alpha: float,
) -> None:
    """Add ``alpha`` times the scaled, orthogonalised update (the gradient, moved towards the buffer) of each matrix."""
    by_shape: dict[torch.Size, list[tuple[Tensor, Tensor, Tensor]]] = defaultdict(list)
    for target, grad, buffer, rows in zip(targets, grads, buffers, splits, strict=True):
        for parts in zip(target.split(rows), grad.split(rows), buffer.split(rows), strict=True):
            by_shape[parts[0].shape].append(parts)
    for (n_rows, columns), matrices in by_shape.items():
        n = together(n_rows, columns)
        for some in (matrices[i : i + n] for i in range(0, len(matrices), n)):
            updates = torch._foreach_lerp([grad for _, grad, _ in some], [buffer for *_, buffer in some], momentum)
            steps = orthogonalize(torch.stack(list(updates)))
            for (part, *_), step in zip(some, steps, strict=True):
                part.add_(step, alpha=alpha * math.sqrt(max(1, n_rows / columns)))


def _steps(updates: list[Tensor], splits: list[tuple[int, ...]]) -> list[Tensor]:
    steps = [torch.zeros_like(update) for update in updates]
    _add_steps(steps, updates, updates, 0.0, splits, 1.0)
    return steps


class MuonAdamW(Optimizer):
    """One optimizer out of two, so that one step is one step to schedulers, checkpoints and trainers."""

    def __init__(self, muon: Muon, adamw: AdamW) -> None:
        self.muon, self.adamw = muon, adamw
        super().__init__([*muon.param_groups, *adamw.param_groups], {})
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [*self.muon.param_groups, *self.adamw.param_groups]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = self.muon.step(closure)
        self.adamw.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return {"muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.muon.load_state_dict(state_dict["muon"])
        self.adamw.load_state_dict(state_dict["adamw"])
        self._share_groups()


def muon_adamw(model: WindowModel, config: TrainingConfig) -> MuonAdamW:
    """Muon on ``hidden_matrices``; AdamW (0.9, 0.95) on the rest, with decay on embedding and head only. What never
    learns is in neither."""
    matrices = [(p, rows) for p, rows in hidden_matrices(model) if p.requires_grad]
    vocabulary = [p for p in vocabulary_matrices(model) if p.requires_grad]
    taken = {*(p for p, _ in matrices), *vocabulary}
    other = [p for p in model.parameters() if p.requires_grad and p not in taken]
    groups: list[dict[str, Any]] = [{"params": vocabulary}, {"params": other, "weight_decay": 0.0}]
    adamw = AdamW(groups, config.adamw_lr, betas=(0.9, 0.95), weight_decay=config.weight_decay, fused=True)
    return MuonAdamW(Muon(matrices, config.muon_lr, config.weight_decay, config.momentum), adamw)


def rate_name(optimizer: object) -> str:
    """Under which name its learning rate, that of its first group, is logged: ``muon_lr``, ``adamw_lr``, ``sgd_lr``."""
    own = getattr(optimizer, "optimizer", optimizer)  # Lightning wraps it
    return f"{'muon' if isinstance(own, MuonAdamW) else type(own).__name__.lower()}_lr"


def build_optimizer(model: WindowModel, config: TrainingConfig) -> Optimizer:
    """The optimizer that ``training.optimizer`` names.

    Its first argument is the model's parameters, or the model if that argument is named ``model``; an argument named
    ``config`` is given the training config.

    Raises:
        ValueError: it cannot be imported or built.
    """
    plugin = load_plugin("optimizer", config.optimizer, "training.optimizer", config.search_path)
    wants_model = next(iter(inspect.signature(plugin.target).parameters), None) == "model"
    learning = (p for p in model.parameters() if p.requires_grad)
    optimizer: Optimizer = plugin.build(model if wants_model else learning, config=config)
    return optimizer
