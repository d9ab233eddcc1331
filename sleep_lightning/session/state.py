"""All that a session would need to go on: in memory, and as the tensors of a file."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.chain import Chain
from sleep_lightning.session.provenance import Read, Runs, Slept, WindowLine
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import SleepConfig, zero_memory


@dataclass(frozen=True)
class LastWindow:
    """What was closed last.

    Attributes:
        tokens: that were consolidated.
        by_pass: ``|S' - S| / |S'|`` of every head, pass by pass.
        change: the same of the whole window.
    """

    tokens: tuple[int, ...]
    by_pass: tuple[tuple[float, ...], ...]
    change: tuple[float, ...]


@dataclass(frozen=True)
class SessionState:
    """An open window, and where everything before it came from.

    Attributes:
        window: the open window of one sequence.
        tokens_seen: tokens read since the session began or was reset.
        shared: whether another session or snapshot holds the window, which is written in place: copy it first.
        sources: of the tokens in the open window.
        lines: a line for every window that was closed.
        events: what was read and slept on, where texts are kept.
        last: the window that was closed last.
    """

    window: OpenWindow
    tokens_seen: int = 0
    shared: bool = False
    sources: Runs = ()
    lines: Chain[WindowLine] = field(default_factory=Chain)
    events: Chain[Read | Slept] = field(default_factory=Chain)
    last: LastWindow | None = None

    @classmethod
    def fresh(cls, model: HybridLM, config: SleepConfig) -> "SessionState":
        """Nothing has been read."""
        with torch.no_grad():  # the first memory of a compiled model would require a gradient
            return cls(OpenWindow.opened(model, config, zero_memory(model, 1, config)))

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: as many whatever has been read."""
        return sum(x.nbytes for _, x in _tensors(self.window))

    def named_tensors(self) -> dict[str, Tensor]:
        """What a file holds; of tensors with a place per token, the places in use."""
        return {name: _in_use(self.window, name, x) for name, x in _tensors(self.window)}

    def filled(self, fill: int, whole: bool, tensors: Mapping[str, Tensor]) -> "SessionState":
        """This fresh state with ``fill`` tokens in its window, all ``whole`` or not, and the tensors of a file.

        Raises:
            ValueError: it lacks some, has others, or some have another shape or dtype.
        """
        cache = self.window.cache
        cache = replace(cache, fill=(cache.before + fill,), whole=whole)
        start, memory = self.window.start.clone(), self.window.memory.clone()  # which share tensors
        window = replace(self.window, start=start, memory=memory, cache=cache, fill=fill)
        places = dict(_tensors(window))
        if tensors.keys() != places.keys():
            odd = min(tensors.keys() ^ places.keys())[:40]
            raise ValueError(f"its tensors are not those of this model: {odd!r} is only in one of the two")
        for name, place in places.items():
            target, x = _in_use(window, name, place), tensors[name]
            if x.shape != target.shape or x.dtype != target.dtype:
                raise ValueError(
                    f"its tensor {name} is {x.dtype} {tuple(x.shape)}; this model's is {target.dtype} "
                    f"{tuple(target.shape)}"
                )
            target.copy_(x)
        return replace(self, window=window)


@dataclass(frozen=True)
class Snapshot:
    """What ``SleepSession.rollback`` goes back to.

    Attributes:
        state: of the session; shared.
        model, config: that it belongs to.
    """

    state: SessionState
    model: HybridLM
    config: SleepConfig


def _tensors(window: OpenWindow) -> Iterator[tuple[str, Tensor]]:
    for part in ("start", "memory"):
        memory: Memory = getattr(window, part)
        yield from ((f"{part}.{name}", x) for name, x in memory.named_tensors().items())
    for kind in ("keys", "values", "plain_keys"):
        yield from ((f"cache.{kind}.{i}", x) for i, x in enumerate(getattr(window.cache, kind)))
    yield "cache.present", window.cache.present
    for part_of in fields(window):
        if isinstance(x := getattr(window, part_of.name), Tensor):
            yield f"window.{part_of.name}", x


def _in_use(window: OpenWindow, name: str, x: Tensor) -> Tensor:
    kind, _, which = name.partition(".")
    if kind == "cache":
        stop = window.cache.fill[0]
        return x[:, :stop] if which == "present" else x[:, :, :stop]
    return x[:, : window.fill] if kind == "window" and which != "last_BE" else x
