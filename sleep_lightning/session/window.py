"""The window that is being read: what of it the next token, and its sleep, will need.

Shape suffixes: B batch, T new tokens, L tokens of a window, E d_model.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.open_window import close_window, open_window, with_layers_of
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.sleep import FirstPass, PassRecord, SleepConfig, sleep_after_reading


@dataclass(frozen=True)
class OpenWindow:
    """A window of the hybrid in its first pass; reading returns another.

    The tensors that hold a place per token are written in place, behind ``fill``: two continuations of one window need
    a ``clone`` each.

    Attributes:
        start: memory when it was opened.
        memory: memory now; every block has read every token.
        cache: keys and values of attention.
        tokens_BL: token ids so far; the rest is not used.
        h_in_BLE: what the looped blocks were given, where a later pass wants it; else None.
        h_out_BLE: what came out of them: the input of pass 2.
        fill: tokens so far.
        last_BE: final hidden states of the last token read, in this window or before; zeros before the first.
    """

    start: Memory
    memory: Memory
    cache: WindowCache
    tokens_BL: Tensor
    h_in_BLE: Tensor | None
    h_out_BLE: Tensor
    fill: int
    last_BE: Tensor

    @classmethod
    def opened(cls, model: HybridLM, config: SleepConfig, start: Memory, last_BE: Tensor | None = None) -> "OpenWindow":
        """An empty window behind the memory ``start``."""
        memory, cache = open_window(model, start, config.window_size)
        rows, device = len(cache.fill), cache.present.device
        tokens_BL = torch.zeros(rows, config.window_size, dtype=torch.int64, device=device)
        h_out_BLE = model.embed(tokens_BL[:1, :1]).new_zeros(rows, config.window_size, model.config.d_model)
        h_in_BLE = None if config.pass_input == "hidden" else torch.zeros_like(h_out_BLE)
        last_BE = h_out_BLE[:, 0].clone() if last_BE is None else last_BE
        return cls(start, memory, cache, tokens_BL, h_in_BLE, h_out_BLE, 0, last_BE)

    def read(self, model: HybridLM, config: SleepConfig, tokens_BT: Tensor) -> tuple["OpenWindow", Tensor]:
        """The window with T more tokens, and their final hidden states ``[B, T, E]``."""
        run = run_tokens(model, config, self.memory, self.cache, tokens_BT)
        window = self.filled(tokens_BT, run.h_in, run.h_out)
        return replace(window, memory=run.memory, cache=run.cache, last_BE=run.h[:, -1]), run.h

    def filled(self, tokens_BT: Tensor, h_in_BTE: Tensor, h_out_BTE: Tensor) -> "OpenWindow":
        """With T more tokens and what the loop made of them, in place."""
        new = slice(self.fill, self.fill + tokens_BT.shape[1])
        if self.h_in_BLE is not None:
            self.h_in_BLE[:, new] = h_in_BTE
        self.h_out_BLE[:, new], self.tokens_BL[:, new] = h_out_BTE, tokens_BT
        return replace(self, fill=new.stop)

    def close(
        self,
        model: HybridLM,
        config: SleepConfig,
        observe: Callable[[PassRecord], None] | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> Memory:
        """The memory behind the window: ``sleep`` over it, of which its reading was the first pass.

        Args:
            model: that has read it.
            config: N and its options.
            observe: called after every pass of the loop.
            stop: asked between passes; True leaves out the rest of the loop.
        """
        read = close_window(self.memory, self.cache, carry_conv_state=config.carry_conv_state)
        prelude, core, _ = config.parts(model.n_blocks)
        memory_in = with_layers_of(model, prelude, self.start, read)
        memory_out = with_layers_of(model, core, memory_in, read)
        h_out = self.h_out_BLE[:, : self.fill]
        h_in = h_out if self.h_in_BLE is None else self.h_in_BLE[:, : self.fill]
        first = FirstPass(h_in, h_out, memory_in, memory_out)
        if config.n_passes > 1:
            tokens_BT = self.tokens_BL[:, : self.fill]
            return sleep_after_reading(model, tokens_BT, first, config, observe=observe, stop=stop)
        if observe is not None:
            observe(PassRecord(1, h_in, h_out, memory_in, memory_out))
        return read

    def clone(self) -> "OpenWindow":
        """A copy that is read on independently: what is never written in place is shared."""
        return replace(
            self,
            cache=self.cache.clone(),
            tokens_BL=self.tokens_BL.clone(),
            h_in_BLE=None if self.h_in_BLE is None else self.h_in_BLE.clone(),
            h_out_BLE=self.h_out_BLE.clone(),
        )


class TokensRun(NamedTuple):
    """The first pass over new tokens.

    Attributes:
        h_in: what the looped blocks were given, ``[B, T, E]``.
        h_out: what came out of them.
        h: final hidden states.
        memory, cache: behind them.
    """

    h_in: Tensor
    h_out: Tensor
    h: Tensor
    memory: Memory
    cache: WindowCache


def run_tokens(
    model: HybridLM, config: SleepConfig, memory: Memory, cache: WindowCache, tokens_BT: Tensor
) -> TokensRun:
    """All blocks on the next T tokens of open windows, row by row behind what the cache holds of each."""
    prelude, core, coda = config.parts(model.n_blocks)
    pad_BT = model.padding(tokens_BT)
    cache, slots = cache.claim(tokens_BT.shape[1], pad_BT)
    h_in, memory = model.extend(model.embed(tokens_BT), memory, slots, pad_BT, prelude)
    h_out, memory = model.extend(h_in, memory, slots, pad_BT, core)
    h, memory = model.extend(h_out, memory, slots, pad_BT, coda)
    return TokensRun(h_in, h_out, h, memory, cache)
