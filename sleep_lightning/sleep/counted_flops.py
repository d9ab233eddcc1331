"""FLOPs of a model that does not say them: its own operations are run on one sequence and their products counted.

They run on the model's own device; on the meta device nothing is computed. Operations that torch does not dispatch
(kernels that are called directly) are not seen.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor

from sleep_lightning.model import Flops, Memory, WindowModel

COMPONENT = "model"


def counted_pass_flops(
    model: WindowModel,
    T: int,
    blocks: range,
    writes_only: bool,
    cached_tokens: int,
    carry_conv_state: bool = False,
    **options: bool,
) -> Flops:
    """FLOPs of a pass of some blocks over T tokens of one sequence; arguments as in ``WindowModel.pass_flops``."""
    if not blocks:
        return Flops()
    memory = model.zero_memory(1, carry_conv_state=carry_conv_state, cached_tokens=cached_tokens)
    memory = memory.map(lambda x: x.detach().requires_grad_())
    h = _hidden(model, T)

    def run() -> list[Tensor]:
        if writes_only:
            return _tensors(model.write(h, memory, None, blocks, **options))
        h_out, written = model.blocks(h, memory, None, blocks, **options)
        return [h_out, *_tensors(written)]

    return _counted(run, [h, *_tensors(memory), *model.parameters()], COMPONENT)


def logits_flops(model: WindowModel, T: int) -> int:
    """FLOPs of ``model.logits`` on T tokens of one sequence: as the model says, else counted."""
    said = model.logits_flops(T)
    if said is not None:
        return said
    h = _hidden(model, T)
    return _counted(lambda: [model.logits(h)], [h, *model.parameters()], COMPONENT).forward.total()


def width_of(model: WindowModel) -> int:
    """``d_model``: numbers of a token's embedding."""
    return _hidden(model, 1).shape[-1]


def summary_bytes(model: WindowModel) -> int:
    """Bytes of the summaries that a window leaves, each as wide as a token; 0 without compaction."""
    return model.summary_tokens * _hidden(model, 1).nbytes


def _hidden(model: WindowModel, T: int) -> Tensor:
    device = next(iter(model.parameters())).device
    with torch.no_grad():
        return model.embed(torch.zeros(1, T, dtype=torch.int64, device=device)).requires_grad_()


def _tensors(memory: Memory) -> list[Tensor]:
    return list(memory.named_tensors().values())


def _counted(run: Callable[[], list[Tensor]], leaves: list[Tensor], component: str) -> Flops:
    from torch.utils.flop_counter import FlopCounterMode  # only where a model does not say its FLOPs

    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        outputs = [x for x in run() if x.requires_grad and x.numel()]
        forward = counter.get_total_flops()
        kept = [x.grad for x in leaves]
        if outputs:  # not torch.autograd.grad, which the counter's hooks do not support
            torch.autograd.backward(outputs, [torch.ones_like(x) for x in outputs])
        backward = counter.get_total_flops() - forward
    for x, grad in zip(leaves, kept, strict=True):
        x.grad = grad
    return Flops(Counter({component: forward}), Counter({component: backward}))
