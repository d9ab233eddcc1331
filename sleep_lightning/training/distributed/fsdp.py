"""One model over all ranks (FSDP2): each keeps rows of every matrix, of its gradient and of its optimizer's state.

Every block is one unit that FSDP gathers before it runs; embedding and head are the unit around them. Matrices are
sharded; norms, gates, convolutions and summaries are too small to be worth it: all ranks keep them whole.

A weight here takes part in many passes over many windows, and its gradient is known only when the backward has been
through all of them. So gradients stay whole until the step's last backward is over, and one reduce-scatter a unit
adds them up then. Between steps everything is sharded.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from sleep_lightning.config import TrainingConfig
from sleep_lightning.model import HybridLM
from sleep_lightning.model.parameter_groups import hidden_matrices
from sleep_lightning.training.distributed.sharded_muon import local


class _Whole(nn.Module):
    """The unit around all others. Its forward is there for FSDP's hooks: it gathers, and its backward adds up."""

    def __init__(self, model: HybridLM) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return x.clone()


class Shards:
    """Shards a model in place over all ranks, each of which must do the same things with it in the same order.

    Args:
        model: on CPU or on the device, alike in all ranks; each unit goes to the device as it is sharded. On the meta
            device: then the shares have no values yet.
        training: precision and when to gather.
        device: of this rank.
    """

    def __init__(self, model: HybridLM, training: TrainingConfig, device: torch.device) -> None:
        self.model = model
        embeddings = set(chain(model.embedding.parameters(), model.head.parameters()))
        matrices = {p for p, _ in hidden_matrices(model)} | embeddings
        copies = {p for p in model.parameters() if p not in matrices}
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        self._drops = training.reshard_after_forward
        lower = torch.bfloat16 if training.precision == "bf16" else None
        # what autocast makes of a matrix anyway; inputs stay as they are: the memory is fp32
        policy = MixedPrecisionPolicy(
            param_dtype=lower, reduce_dtype=torch.float32 if lower else None, cast_forward_inputs=False
        )
        self._units: list[FSDPModule] = []
        for block in model.stack:
            unit = fully_shard(
                block, mesh=mesh, reshard_after_forward=self._drops, mp_policy=policy, ignored_params=copies
            )
            register_fsdp_forward_method(block, "run")
            self._units.append(unit)
        self._whole = _Whole(model)
        self._root = fully_shard(self._whole, mesh=mesh, reshard_after_forward=False, ignored_params=copies)
        self._units.append(self._root)
        for unit in self._units:
            unit.set_gradient_divide_factor(1.0)  # ranks' gradients are summands
            unit.set_force_sum_reduction_for_comms(True)  # gloo knows no other
        self._root.set_requires_gradient_sync(False)
        if any(p.is_meta for p in model.parameters()):
            self._whole.to_empty(device=device)
            model.restore_buffers()
        self._nothing = torch.zeros((), device=device)
        self.gather()
        self.scatter()

    @property
    def shards(self) -> list[Tensor]:
        """The parameters that ranks have shares of; only between steps."""
        return [p for p in self.model.parameters() if isinstance(p, DTensor)]

    @property
    def copies(self) -> list[nn.Parameter]:
        """The parameters that all ranks have whole."""
        return [p for p in self.model.parameters() if not isinstance(p, DTensor)]

    @torch.no_grad()
    def gather(self) -> None:
        """Make embedding and head whole, for any number of passes; blocks follow when they are used."""
        self._root.set_reshard_after_backward(self._drops)
        self._root.set_reshard_after_backward(False, recurse=False)
        self._whole(self._nothing)

    def scatter(self) -> None:
        """Keep the own share only."""
        for unit in self._units:
            unit.reshard()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Everything whole, also what is else dropped after each use."""
        for unit in self._units:
            unit.set_reshard_after_forward(False, recurse=False)
            unit.unshard()
        try:
            yield
        finally:
            for unit in self._units[:-1]:
                unit.set_reshard_after_forward(self._drops, recurse=False)
            self.scatter()

    def reduce_gradients(self) -> Tensor:
        """Replace the gradients of all backward calls since ``gather`` by their sums over ranks, each rank its share.

        Returns:
            The sum of squares of this rank's share.
        """
        self._root.set_requires_gradient_sync(True)
        self._root.set_reshard_after_backward(True)
        self._whole(self._nothing.clone().requires_grad_()).backward()
        self._root.set_requires_gradient_sync(False)
        gradients = [local(p.grad) for p in self.shards if p.grad is not None]
        if not gradients:
            return torch.zeros_like(self._nothing)
        return torch.stack(torch._foreach_norm(gradients)).square().sum()

    @torch.no_grad()
    def clip_gradients(self, squares: Tensor, clip_norm: float) -> Tensor:
        """Scale all gradients, reduced already, to an L2 norm of at most ``clip_norm``; returns the norm before.

        Args:
            squares: what ``reduce_gradients`` returned, of all ranks added up.
            clip_norm: may be infinite.
        """
        copies = [p.grad for p in self.copies if p.grad is not None]
        if copies:
            squares = squares + torch.stack(torch._foreach_norm(copies)).square().sum()
        norm = squares.sqrt()
        gradients = copies + [local(p.grad) for p in self.shards if p.grad is not None]
        torch._foreach_mul_(gradients, (clip_norm / (norm + 1e-6)).clamp(max=1.0))  # as torch's clip_grad_norm_
        return norm
