"""A model whose embedding is that of a frozen prelude: it runs without gradient, or is looked up."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from sleep_lightning.config import Experiment
from sleep_lightning.config.prelude import why_not_frozen
from sleep_lightning.model import HybridLM, Memory, WindowModel
from sleep_lightning.training.prelude_cache import PreludeCache, fingerprint


class FrozenPrelude(WindowModel):
    """A hybrid as sleep reads it: ``embed`` gives the hidden states behind the prelude, ``blocks`` runs the rest.

    Every sequence goes through the prelude by itself: products of larger matrices may be summed up in another order,
    and what is looked up must be what would be computed, to the bit, in whatever batch it comes.

    Args:
        model: whose prelude neither learns nor holds memory (``why_not_frozen``).
        experiment: ``training.prelude_cache`` is opened at the first look-up, when the weights are in place.

    Attributes:
        cache: None without one, and before it is opened.
        prelude: the first blocks.
    """

    def __init__(self, model: HybridLM, experiment: Experiment) -> None:
        self.model, self._training = model, experiment.training
        self.prelude = experiment.sleep.parts(model.n_blocks)[0]
        self.n_blocks, self.vocab_size, self.neutral_pad = model.n_blocks, model.vocab_size, model.neutral_pad
        self.cache: PreludeCache | None = None

    @classmethod
    def of(cls, model: WindowModel, experiment: Experiment) -> "FrozenPrelude | None":
        """None for an experiment that has no frozen prelude."""
        return cls(model, experiment) if isinstance(model, HybridLM) and why_not_frozen(experiment) is None else None

    @torch.no_grad()
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """``[B, T] -> [B, T, d_model]``, behind the prelude."""
        t = self._training
        if t.prelude_cache is not None and self.cache is None:
            own = fingerprint(self.model, self.prelude, t.precision)
            self.cache = PreludeCache(Path(t.prelude_cache), own, int(t.prelude_cache_gb * 1e9))
        return torch.cat([self._row(row) for row in tokens_BT.split(1)])

    def flush(self) -> None:
        """Write what is new to disk."""
        if self.cache is not None:
            self.cache.flush()

    def _row(self, tokens_1T: Tensor) -> Tensor:
        if self.cache is not None and (known := self.cache.get(tokens_1T[0])) is not None:
            return known[None].to(tokens_1T.device)
        h = self.model.embed(tokens_1T)
        h, _ = self.model.blocks(h, Memory(()), self.padding(tokens_1T), self.prelude)
        if self.cache is not None:
            self.cache.put(tokens_1T[0], h[0])
        return h

    def blocks(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        *,
        recompute_mlp: bool = False,
        mlps: bool = True,
    ) -> tuple[Tensor, Memory]:
        """Those of ``part`` that are not in the prelude."""
        rest = self._rest(part)
        if not rest:
            return h, memory
        return self.model.blocks(h, memory, pad, rest, recompute_mlp=recompute_mlp, mlps=mlps)

    def write(
        self,
        h: Tensor,
        memory: Memory,
        pad: Tensor | None = None,
        part: range | None = None,
        *,
        recompute_mlp: bool = False,
        mlps: bool = True,
    ) -> Memory:
        return self.model.write(h, memory, pad, self._rest(part), recompute_mlp=recompute_mlp, mlps=mlps)

    def _rest(self, part: range | None) -> range:
        part = range(self.n_blocks) if part is None else part
        return range(max(part.start, self.prelude.stop), part.stop)

    def logits(self, h: Tensor) -> Tensor:
        return self.model.logits(h)

    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        return self.model.zero_memory(batch_size, carry_conv_state=carry_conv_state, cached_tokens=cached_tokens)

    def writers(self, *, cached: bool = False) -> Sequence[int]:
        return self.model.writers(cached=cached)

    def loop_norm(self, h: Tensor) -> Tensor:
        return self.model.loop_norm(h)
