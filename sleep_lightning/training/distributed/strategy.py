"""``strategy="sleep_ddp"``: data-parallel training of window-by-window steps."""

from datetime import timedelta
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.utilities.distributed import _init_dist_connection
from lightning.fabric.utilities.optimizer import _optimizers_to_device
from lightning.pytorch.strategies import DDPStrategy, StrategyRegistry
from lightning.pytorch.trainer.states import TrainerFn, TrainerStatus
from torch.nn import Parameter

from sleep_lightning.training.distributed.epoch_loop import EpochLoop
from sleep_lightning.training.distributed.exchange import broadcast_from_rank_zero
from sleep_lightning.training.distributed.launcher import RankLauncher
from sleep_lightning.training.distributed.place import detect_environment
from sleep_lightning.training.distributed.rendezvous import rendezvous

TIMEOUT = timedelta(minutes=5)
"""How long ranks wait for each other: for the slowest to start, and in every exchange."""


class SleepDDPStrategy(DDPStrategy):
    """Lightning's DDP without the wrapper.

    A training step here has many backward calls and calls the blocks itself, so torch's DistributedDataParallel, which
    synchronises in a backward through its own forward, does not fit. ``SleepModule`` adds gradients, losses and votes
    to stop up in one exchange a step. Nothing is exchanged in a signal handler.

    Args:
        timeout: how long ranks wait for each other.
        cluster_environment: None detects torchrun, ``srun``, or launches the other ranks of this node.
        kwargs: as ``DDPStrategy``.
    """

    def __init__(
        self,
        timeout: timedelta | None = None,
        cluster_environment: ClusterEnvironment | None = None,
        **kwargs: Any,
    ) -> None:
        environment = detect_environment() if cluster_environment is None else cluster_environment
        super().__init__(cluster_environment=environment, timeout=TIMEOUT if timeout is None else timeout, **kwargs)

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher = RankLauncher(self.cluster_environment, self.num_processes, self.num_nodes)

    def setup_distributed(self) -> None:
        """Connect the ranks. Unlike Lightning's, it leaves the RNG alone: a run with ranks is that of one process."""
        self.set_world_ranks()
        self._process_group_backend = self._get_process_group_backend()
        device = self.root_device if self.root_device.type != "cpu" else None
        if device is not None:
            torch.cuda.set_device(device)
        assert self.cluster_environment is not None
        ours = isinstance(self.cluster_environment, LightningEnvironment)
        store = rendezvous(self.world_size) if ours else {}  # else at the address that torchrun or SLURM gives
        _init_dist_connection(
            self.cluster_environment,
            self._process_group_backend,
            timeout=self._timeout,
            device_id=device,
            **store,
        )

    def barrier(self, *args: Any, **kwargs: Any) -> None:
        """Wait for all ranks; for none once training has failed, as the others may be gone."""
        module = self.lightning_module
        if module is not None and module.trainer.state.status == TrainerStatus.INTERRUPTED:
            return
        super().barrier(*args, **kwargs)

    def setup(self, trainer: pl.Trainer) -> None:
        if not isinstance(loop := trainer.fit_loop.epoch_loop, EpochLoop):
            trainer.fit_loop.epoch_loop = EpochLoop.instead_of(loop)
        fits = trainer.state.fn == TrainerFn.FITTING
        assert self.accelerator is not None and self.lightning_module is not None
        self.accelerator.setup(trainer)
        self.precision_plugin.convert_module(self.lightning_module)
        self.model_to_device()
        broadcast_from_rank_zero(self.copies())
        if fits:
            self.setup_optimizers(trainer)
        self.setup_precision_plugin()
        if fits:
            _optimizers_to_device(self.optimizers, self.root_device)

    def copies(self) -> list[Parameter]:
        """The parameters that all ranks hold whole."""
        assert self.lightning_module is not None
        return list(self.lightning_module.parameters())


StrategyRegistry.register("sleep_ddp", SleepDDPStrategy, description="data-parallel SleepModule, one exchange a step")
