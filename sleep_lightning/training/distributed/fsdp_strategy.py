"""Checkpoints of a sharded run are those of one process: whoever loads one takes its share, however many they are."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from sleep_lightning.training.optimizer import MuonAdamW


class ShardedStrategy(SingleDeviceStrategy):
    """Lightning's strategy for one device, which knows that parameters may be shards.

    Args:
        device: of this rank.
        writes: whether this rank writes checkpoints; the others only send their shares to it.
    """

    def __init__(self, device: torch.device, writes: bool) -> None:
        super().__init__(device)
        self._writes = writes

    def lightning_module_state_dict(self) -> dict[str, Any]:
        return self._whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Tensor]:
        return self._whole(super().optimizer_state(optimizer))

    def _whole(self, states: dict[str, Any]) -> dict[str, Any]:
        def gathered(x: Any) -> Any:
            if not isinstance(x, DTensor):
                return x
            whole = x.full_tensor()  # one at a time, and kept where it is written only
            return whole.cpu() if self._writes else None

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
            assert isinstance(optimizer, MuonAdamW)
            inner: dict[str, Optimizer] = {"muon": optimizer.muon, "adamw": optimizer.adamw}
            optimizer.load_state_dict({name: _shares(states[name], one) for name, one in inner.items()})

    def teardown(self) -> None:
        """Weights stay on the device: shards cannot leave that of their mesh."""
        self.precision_plugin.teardown()
        assert self.accelerator is not None
        self.accelerator.teardown()
        self.checkpoint_io.teardown()


def _share(whole: Any, like: Any) -> Any:
    if not isinstance(like, DTensor):
        return whole
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
