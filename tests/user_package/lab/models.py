"""A model that is not the hybrid: blocks of linear attention, whose sums are the memory."""

import torch
from torch import Tensor, nn

from sleep_lightning.model import Memory, WindowModel


class LinearLM(nn.Module, WindowModel):
    def __init__(self, vocab_size: int, width: int = 16, depth: int = 2) -> None:
        super().__init__()
        self.vocab_size, self.n_blocks, self.width = vocab_size, depth, width
        self.embedding = nn.Embedding(vocab_size, width)
        self.qkv = nn.ModuleList(nn.Linear(width, 3 * width, bias=False) for _ in range(depth))
        self.mlp = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)) for _ in range(depth)
        )
        self.head = nn.Linear(width, vocab_size)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        return self.embedding(tokens_BT)

    def blocks(
        self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None
    ) -> tuple[Tensor, Memory]:
        states = list(memory.states)
        for i in range(self.n_blocks) if part is None else part:
            q, k, v = (x.tanh() for x in self.qkv[i](h).chunk(3, -1))
            h = h + (q @ k.transpose(1, 2)).tril() @ v + q @ states[i][:, 0]
            h = h + self.mlp[i](h)
            states[i] = states[i] + (k.transpose(1, 2) @ v)[:, None]
        return h, Memory(tuple(states))

    def logits(self, h: Tensor) -> Tensor:
        return self.head(h).float()

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        zeros = torch.zeros(batch_size, 1, self.width, self.width, device=self.head.weight.device)
        return Memory((zeros,) * self.n_blocks)

    def writers(self, *, cached: bool = False) -> range:
        return range(self.n_blocks)
