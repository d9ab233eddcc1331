"""``strategy="sleep_fsdp"``: the model sharded over all ranks (FSDP2), with checkpoints as one process writes them.

A checkpoint holds whole tensors: any number of ranks loads one, each taking its share.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.strategies import StrategyRegistry
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM
from sleep_lightning.training.distributed.sharded_muon import is_sharded
from sleep_lightning.training.distributed.strategy import SleepDDPStrategy
from sleep_lightning.training.optimizer import MuonAdamW

if TYPE_CHECKING:
    from sleep_lightning.training.distributed.fsdp import Shards


class SleepFSDPStrategy(SleepDDPStrategy):
    """``SleepDDPStrategy`` whose parameters are sharded.

    Attributes:
        shards: the sharded model; None before ``shard``.
    """

    shards: "Shards | None" = None

    def shard(self, model: HybridLM, training: TrainingConfig) -> "Shards":
        """Shard the model in place over all ranks, once; all ranks must call it."""
        if self.shards is None or self.shards.model is not model:
            from sleep_lightning.training.distributed.fsdp import Shards  # torch's sharded tensors take long to import

            self.shards = Shards(model, training, self.root_device)
        return self.shards

    def copies(self) -> list[Parameter]:
        assert self.shards is not None
        return self.shards.copies

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self._whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        return self._whole(super().optimizer_state(optimizer))

    def _whole(self, states: dict[str, Any]) -> dict[str, Any]:
        def gathered(x: Any) -> Any:
            if not is_sharded(x):
                return x
            whole = x.full_tensor()  # one at a time, and kept where it is written only
            return whole.cpu() if self.is_global_zero else None

        return tree_map(gathered, states)

    def load_checkpoint(self, checkpoint_path: Any, weights_only: bool | None = None) -> dict[str, Any]:
        """Mapped into memory: a rank reads its shares, not the file."""
        return torch.load(checkpoint_path, map_location="cpu", mmap=True, weights_only=True)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        assert self.lightning_module is not None
        own = self.lightning_module.state_dict()
        shares = {name: _share(x, own.get(name)) for name, x in checkpoint["state_dict"].items()}
        self.lightning_module.load_state_dict(shares, strict=strict)

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        for optimizer, states in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            if not isinstance(optimizer, MuonAdamW):
                optimizer.load_state_dict(_shares(states, optimizer))
                continue
            inner: dict[str, Optimizer] = {"muon": optimizer.muon, "adamw": optimizer.adamw}
            optimizer.load_state_dict({name: _shares(states[name], one) for name, one in inner.items()})

    def teardown(self) -> None:
        """Weights stay on the device: shards cannot leave that of their mesh."""
        assert self.cluster_environment is not None
        self.cluster_environment.teardown()
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def _share(whole: Any, like: Any) -> Any:
    if not is_sharded(like):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)  # all ranks have it


def _shares(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state dict of an optimizer, with the share of whatever has the shape of its parameter."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    shares: dict[int, dict[str, Any]] = {}
    for i, of in state["state"].items():
        shares[i] = {
            name: (_share(x, parameters[i]) if x.shape == parameters[i].shape else x).clone()  # not the mapped file
            for name, x in of.items()
        }
    return state | {"state": shares}


StrategyRegistry.register("sleep_fsdp", SleepFSDPStrategy, description="SleepModule sharded over all ranks (FSDP2)")
