"""All ranks train the same experiment, or none does."""

from typing import TYPE_CHECKING

import lightning.pytorch as pl

if TYPE_CHECKING:
    from sleep_lightning.training.module import SleepModule


class SameExperiment(pl.Callback):
    """Compares every rank's experiment with rank zero's before anything is trained; tracking may differ.

    Raises:
        ValueError: in each rank that was started with another experiment.
    """

    def setup(self, trainer: pl.Trainer, pl_module: "SleepModule", stage: str) -> None:  # type: ignore[override]
        own = {name: x for name, x in pl_module.experiment.values().items() if name != "tracking"}
        del own["training"]["search_path"]  # nodes may keep the user's modules in different places
        if trainer.world_size > 1 and trainer.strategy.broadcast(own) != own:
            raise ValueError(
                f"rank {trainer.global_rank} was started with another experiment than rank zero; start all alike"
            )
