"""Keys and values of windows that are read as their tokens come, each token in the next slot of its row.

Shape suffixes: B batch, T new tokens, S slots, G heads of keys and values, D head dim, R dims that are rotated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class WindowCache:
    """What attention needs of an open window, for each row of a batch; rows may be filled differently.

    The tensors are written in place, behind ``fill``: two continuations of one cache need a ``clone`` each.

    Attributes:
        keys: per layer of attention, rotated to the position of their slot, ``[B, G, S, D]``.
        values: per layer ``[B, G, S, D]``.
        plain_keys: per layer before rotation, where keys are carried over windows (sliding eviction); else empty.
        present: ``[B, S]`` bool, slots that hold a token; a neutral pad's does not.
        fill: slots in use, row by row, those of earlier windows among them.
        before: P, slots in front that are for tokens of earlier windows (sliding eviction: L - 1; hard: 0).
        whole: whether all slots in use are known to be present.
        apart: whether what is computed for a row must not depend on how others are filled, down to the order of sums:
            every token then looks at all slots, and sees its own.
    """

    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    plain_keys: tuple[Tensor, ...]
    present: Tensor
    fill: tuple[int, ...]
    before: int
    whole: bool
    apart: bool = False

    @property
    def size(self) -> int:
        """S."""
        return self.present.shape[1]

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All of them."""
        return (*self.keys, *self.values, *self.plain_keys, self.present)

    def clone(self) -> "WindowCache":
        """An independent copy."""
        keys, values, plain = ([x.clone() for x in xs] for xs in (self.keys, self.values, self.plain_keys))
        return replace(
            self, keys=tuple(keys), values=tuple(values), plain_keys=tuple(plain), present=self.present.clone()
        )

    @classmethod
    def stack(cls, caches: Sequence["WindowCache"]) -> "WindowCache":
        """One batch of the rows of several caches of one model and size; a copy."""
        first = caches[0]

        def cat(kind: str) -> tuple[Tensor, ...]:
            return tuple(torch.cat(xs) for xs in zip(*(getattr(c, kind) for c in caches), strict=True))

        return cls(
            cat("keys"),
            cat("values"),
            cat("plain_keys"),
            torch.cat([c.present for c in caches]),
            tuple(f for c in caches for f in c.fill),
            first.before,
            all(c.whole for c in caches),
        )

    def row(self, i: int) -> "WindowCache":
        """One row: a view."""

        def of(xs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            return tuple(x[i : i + 1] for x in xs)

        return replace(
            self,
            keys=of(self.keys),
            values=of(self.values),
            plain_keys=of(self.plain_keys),
            present=self.present[i : i + 1],
            fill=self.fill[i : i + 1],
        )

    def claim(self, T: int, pad_BT: Tensor | None = None) -> tuple["WindowCache", "Slots"]:
        """The next T slots of every row: the cache once they are filled, and where they are. Pads are not seen."""
        assert max(self.fill) + T <= self.size, "the window is full"
        cache = replace(self, whole=self.whole and pad_BT is None)
        slots = Slots(cache, T)
        slots.set_present(True if pad_BT is None else ~pad_BT)
        return replace(cache, fill=tuple(f + T for f in self.fill)), slots

    def carried(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """For the next window, ``Memory.kv`` and ``Memory.present`` of the last P tokens; both empty without P."""
        if not self.plain_keys:
            return (), ()
        last = torch.tensor(self.fill)[:, None] - self.before + torch.arange(self.before)
        rows, last = torch.arange(len(self.fill))[:, None], last.to(self.present.device)
        kv = (
            torch.stack((k[rows, :, last], v[rows, :, last]), 2)
            for k, v in zip(self.plain_keys, self.values, strict=False)
        )
        return tuple(kv), (self.present[rows, last].to(self.values[0].dtype),)


@dataclass(frozen=True)
class Slots:
    """T consecutive slots of each row of a cache: those of the tokens that are read now."""

    cache: WindowCache
    T: int
    _seen: dict[int | None, tuple[int, Tensor | None]] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """Behind the last that is looked at."""
        return self.cache.size if self.cache.apart else max(self.cache.fill) + self.T

    @property
    def start(self) -> int | None:
        """The first of them, if it is the same in all rows, and may be."""
        return self.cache.fill[0] if len(set(self.cache.fill)) == 1 and not self.cache.apart else None

    def positions(self) -> Tensor:
        """``[B or 1, T]``."""
        first = self.cache.fill if self.start is None else self.cache.fill[:1]
        return (torch.tensor(first)[:, None] + torch.arange(self.T)).to(self.cache.present.device)

    def of_layer(self, layer: int) -> "LayerSlots":
        """For one layer of attention."""
        return LayerSlots(self, layer)

    def set_present(self, present_BT: Tensor | bool) -> None:
        if self.start is not None:
            self.cache.present[:, self.start : self.stop] = present_BT
        else:
            positions_BT = self.positions()
            rows = torch.arange(len(positions_BT), device=positions_BT.device)[:, None]
            self.cache.present[rows, positions_BT] = present_BT

    def seen(self, width: int | None) -> tuple[int, Tensor | None]:
        """The first slot that any of them sees, and which from there to ``stop`` each sees, ``[B or 1, T, S]`` (None:
        all); ``width``: tokens that a token sees, itself among them."""
        if width not in self._seen:
            self._seen[width] = self._which(width)
        return self._seen[width]

    def _which(self, width: int | None) -> tuple[int, Tensor | None]:
        reaches = [x for x in (self.cache.before or None, None if width is None else width - 1) if x is not None]
        farthest = min(reaches, default=self.stop)
        low = 0 if self.start is None else max(0, self.start - farthest)
        if self.T == 1 and self.start is not None and self.cache.whole:
            return low, None
        columns = torch.arange(low, self.stop, device=self.cache.present.device)
        distance_BTS = self.positions()[..., None] - columns
        near_BTS = (distance_BTS >= 0) & (distance_BTS <= farthest)
        if self.cache.whole:
            return low, near_BTS
        return low, near_BTS & self.cache.present[:, None, low : self.stop] | (distance_BTS == 0)


@dataclass(frozen=True)
class LayerSlots:
    """The slots of one layer of attention."""

    slots: Slots
    layer: int

    @property
    def stop(self) -> int:
        """Behind the last slot that is filled."""
        return self.slots.stop

    def of_positions(self, table_SR: Tensor) -> Tensor:
        """What a table says of the new tokens' positions, ``[T, R]`` or ``[B, T, R]``."""
        start = self.slots.start
        return table_SR[self.slots.positions()] if start is None else table_SR[start : self.stop]

    def write(
        self, plain_BTGD: Tensor, k_BTGD: Tensor, v_BTGD: Tensor, width: int | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fill the slots; returns the keys and values that a new token may see, and which it does (``Slots.seen``).

        Args:
            plain_BTGD: keys before rotation.
            k_BTGD: rotated keys.
            v_BTGD: values.
            width: tokens that a token sees, itself among them.
        """
        cache = self.slots.cache
        self._put(cache.keys[self.layer], k_BTGD)
        self._put(cache.values[self.layer], v_BTGD)
        if cache.plain_keys:
            self._put(cache.plain_keys[self.layer], plain_BTGD)
        low, seen = self.slots.seen(width)
        keys, values = (x[self.layer][:, :, low : self.stop] for x in (cache.keys, cache.values))
        return keys, values, seen

    def _put(self, buffer_BGSD: Tensor, new_BTGD: Tensor) -> None:
        if self.slots.start is not None:
            buffer_BGSD[:, :, self.slots.start : self.stop] = new_BTGD.transpose(1, 2)
        else:
            rows = torch.arange(len(buffer_BGSD), device=buffer_BGSD.device)[:, None]
            buffer_BGSD[rows, :, self.slots.positions()] = new_BTGD.to(buffer_BGSD.dtype)
