"""Learning-rate schedules: warm-up-stable-decay, or what ``training.schedule`` names."""

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from sleep_lightning.config import TrainingConfig
from sleep_lightning.config.plugins import resolve


def warmup_stable_decay(step: int, config: TrainingConfig) -> float:
    """Factor on the learning rate of step ``step`` (from 0): linear up, flat, linear down to zero."""
    warmup, cooldown = config.warmup * config.max_steps, config.cooldown * config.max_steps
    up = (step + 1) / warmup if warmup else 1.0
    down = (config.max_steps - step) / cooldown if cooldown else 1.0
    return max(0.0, min(1.0, up, down))


class WarmupStableDecay(LambdaLR):
    """``warmup_stable_decay`` times each group's learning rate."""

    def __init__(self, optimizer: Optimizer, config: TrainingConfig) -> None:
        super().__init__(optimizer, lambda step: warmup_stable_decay(step, config))


def build_schedule(optimizer: Optimizer, config: TrainingConfig) -> LRScheduler:
    """The schedule that ``training.schedule`` names, of one step for each step of the optimizer.

    Its first argument is the optimizer; an argument named ``config`` is given the training config.

    Raises:
        ValueError: it cannot be imported or built.
    """
    schedule: LRScheduler = resolve(
        "schedule", config.schedule, optimizer, key="training.schedule", search=config.search_path, config=config
    )
    return schedule
