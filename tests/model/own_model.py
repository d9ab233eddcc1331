"""A model that is not the hybrid, as a user would write it: linear attention whose state is the memory."""

import torch
from torch import Tensor, nn

from sleep_lightning.model import Memory, WindowModel


class LinearAttention(nn.Module):
    """``y_t = W_o q_t^T S_t``, ``S_t = S_{t-1} + k_t v_t^T`` over the tokens of a window."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x_BTE: Tensor, S_BKV: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = (y.tanh() for y in self.qkv(x_BTE).chunk(3, -1))
        y = (q @ k.transpose(1, 2)).tril() @ v + q @ S_BKV
        return self.out(y), S_BKV + k.transpose(1, 2) @ v


class OwnModel(nn.Module, WindowModel):
    """Blocks of linear attention; the last one has an MLP instead and writes nothing."""

    def __init__(self, vocab_size: int, width: int = 8, n_blocks: int = 3) -> None:
        super().__init__()
        self.vocab_size, self.n_blocks, self.width = vocab_size, n_blocks, width
        self.embedding = nn.Embedding(vocab_size, width)
        self.layers = nn.ModuleList(LinearAttention(width) for _ in range(n_blocks - 1))
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, width))
        self.head = nn.Linear(width, vocab_size)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        return self.embedding(tokens_BT)

    def blocks(
        self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None
    ) -> tuple[Tensor, Memory]:
        states = list(memory.states)
        for i in range(self.n_blocks) if part is None else part:
            if i == self.n_blocks - 1:
                h = h + self.mlp(h)
                continue
            y, state = self.layers[i](h, states[i][:, 0])
            h, states[i] = h + y, state[:, None]
        return h, Memory(tuple(states))

    def logits(self, h: Tensor) -> Tensor:
        return self.head(h).float()

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        weight = self.head.weight
        return Memory(tuple(weight.new_zeros(batch_size, 1, self.width, self.width) for _ in range(self.n_blocks - 1)))

    def writers(self, *, cached: bool = False) -> list[int]:
        return list(range(self.n_blocks - 1))


def own_model() -> OwnModel:
    torch.manual_seed(0)
    return OwnModel(3)
