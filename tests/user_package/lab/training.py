"""An optimizer, one that is built from the model, a schedule and a callback."""

from collections.abc import Callable, Iterable
from pathlib import Path

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class SignSGD(Optimizer):
    """Steps of ``lr`` along the sign of the averaged gradient."""

    def __init__(self, params: Iterable[Tensor], lr: float = 1e-3, momentum: float = 0.9) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    average = self.state[p].setdefault("average", torch.zeros_like(p))
                    average.lerp_(p.grad, 1 - group["momentum"])
                    p.sub_(average.sign(), alpha=group["lr"])
        return None


def no_decay_on_vectors(model: nn.Module, lr: float, weight_decay: float = 0.1) -> Optimizer:
    """AdamW whose weight decay spares norms, gates and biases."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr)


def halving(optimizer: Optimizer, every: int) -> LambdaLR:
    return LambdaLR(optimizer, lambda step: 0.5 ** (step // every))


class WriteSteps(pl.Callback):
    """Appends the number of each step to a file, so that a resumed run shows where it went on."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        with self.file.open("a") as file:
            print(trainer.global_step, file=file)
