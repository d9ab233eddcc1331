"""What a session's file says beside its tensors, and which is refused."""

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin

from sleep_lightning.model import HybridLM
from sleep_lightning.session.chain import Chain
from sleep_lightning.session.core import Policy, check_passes
from sleep_lightning.session.cost import Cost
from sleep_lightning.session.fingerprint import fingerprint
from sleep_lightning.session.provenance import Read, Slept, WindowLine
from sleep_lightning.session.state import LastWindow, SessionState
from sleep_lightning.session.state_file import read_state, write_state
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.session.write_policy import WritePolicy
from sleep_lightning.sleep import SleepConfig

T = TypeVar("T")
MEASURED = ("change", "by_pass")
"""Of a memory, which may hold infinities and NaN."""


@dataclass(frozen=True)
class Saved:
    """What is needed to go on, beside the model."""

    id: str
    config: SleepConfig
    policy: Policy
    writes: WritePolicy | None
    keep_texts: bool
    expires_at: float | None
    state: SessionState
    cost: Cost


@dataclass(frozen=True)
class Header:
    """The part of it that is no tensor."""

    id: str
    sleep: SleepConfig
    policy: Policy
    writes: WritePolicy | None
    keep_texts: bool
    expires_at: float | None
    tokens_seen: int
    window_fill: int
    window_whole: bool
    sources: tuple[tuple[str, int], ...]
    lines: tuple[WindowLine, ...]
    events: tuple[Read | Slept, ...]
    last: LastWindow | None
    cost: Cost


def save_state(path: Path, model: HybridLM, saved: Saved) -> None:
    """Write all that is needed to go on. Raises OSError."""
    state, window = saved.state, saved.state.window
    header = Header(
        saved.id,
        saved.config,
        saved.policy,
        saved.writes,
        saved.keep_texts,
        saved.expires_at,
        state.tokens_seen,
        window.fill,
        window.cache.whole,
        state.sources,
        tuple(state.lines),
        tuple(state.events),
        state.last,
        saved.cost,
    )
    belongs = {"model": fingerprint(model), "dtype": str(window.h_out_BLE.dtype)}
    write_state(path, belongs | asdict(header), state.named_tensors())


def load_state(path: Path, model: HybridLM) -> Saved:
    """Read what ``save_state`` wrote. Raises ValueError if it is not of this model, or not whole; OSError."""
    said, tensors = read_state(path)
    mine, belongs = fingerprint(model), said.get("model")
    if belongs != mine:
        raise ValueError(
            f"{path} belongs to a model with the fingerprint {str(belongs)[:12]}, and this one has {mine[:12]}; load "
            f"the weights that it was written with"
        )
    try:
        h: Header = _parsed(Header, {k: v for k, v in said.items() if k in Header.__dataclass_fields__}, "it")
        if not (0 <= h.window_fill <= h.sleep.window_size and h.window_fill <= h.tokens_seen):
            raise ValueError(f"window_fill is {h.window_fill} of {h.tokens_seen} tokens")
        if sum(n for _, n in h.sources) != h.window_fill:
            raise ValueError(f"sources are of {h.sources}, not of {h.window_fill} tokens")
        fresh = SessionState.fresh(model, h.sleep)
        window = fresh.filled(h.window_fill, h.window_whole, tensors).window
        _check_content(h, window, model.vocab_size)
        _check_events(h)
    except ValueError as error:
        raise ValueError(f"{path} does not fit this model: {error}; give a file by SleepSession.save") from error
    state = SessionState(window, h.tokens_seen, False, h.sources, _chain(h.lines), _chain(h.events), h.last)
    return Saved(h.id, h.sleep, h.policy, h.writes, h.keep_texts, h.expires_at, state, h.cost)


def _check_content(h: Header, window: OpenWindow, vocab_size: int) -> None:
    """Raises ValueError for tokens and sizes that the model cannot have: a checksum says nothing of who wrote them."""
    tokens = [window.tokens_BL[0, : window.fill].tolist(), *(e.tokens for e in h.events if isinstance(e, Read))]
    if (last := h.last) is not None:
        heads = sum(x.shape[1] for x in window.start.states)
        if len(last.tokens) > h.sleep.window_size or {len(x) for x in (last.change, *last.by_pass)} != {heads}:
            raise ValueError(f"last is not of a window of {h.sleep.window_size} tokens and {heads} heads")
        tokens.append(last.tokens)
    for token in (end for some in tokens if some for end in (min(some), max(some))):
        if not 0 <= token < vocab_size:
            raise ValueError(f"token {str(token)[:20]} is not one of the model's, 0 to {vocab_size - 1}")


def _check_events(h: Header) -> None:
    """Raises ValueError unless what was kept, read again, makes as many windows as there are lines."""
    read = fill = closed = 0
    for event in h.events if h.keep_texts else ():
        if isinstance(event, Read):
            read, fill = read + len(event.tokens), fill + len(event.tokens)
            if h.policy != "manual":
                closed, fill = closed + fill // h.sleep.window_size, fill % h.sleep.window_size
        elif fill:
            closed, fill = closed + 1, 0
        if fill > h.sleep.window_size:
            raise ValueError(f"events read {fill} tokens into a window of {h.sleep.window_size}")
        if isinstance(event, Slept):
            check_passes(event.n_passes)
    if h.keep_texts and (read, fill, closed) != (h.tokens_seen, h.window_fill, len(h.lines)):
        raise ValueError(f"events are of {read} tokens and {closed} windows, not of {h.tokens_seen} and {len(h.lines)}")


def _chain(items: tuple[T, ...]) -> Chain[T]:
    chain: Chain[T] = Chain()
    for item in items:
        chain = chain.plus(item)
    return chain


def _parsed(kind: Any, value: Any, name: str) -> Any:
    """A JSON value as a type of a header; raises ValueError for anything else."""
    origin, of = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        known = typing.get_type_hints(kind)
        if not isinstance(value, dict) or value.keys() != known.keys():
            odd = sorted(value.keys() ^ known.keys()) if isinstance(value, dict) else value
            raise ValueError(f"{name} lacks or does not know {odd}")
        return kind(**{key: _parsed(of_key, value[key], key) for key, of_key in known.items()})  # type: ignore[operator]
    if origin in (typing.Union, UnionType):
        for one in of:
            try:
                return _parsed(one, value, name)
            except ValueError:
                continue
    elif origin is typing.Literal:
        if value in of:
            return value
    elif origin is tuple and isinstance(value, list):
        if len(of) == 2 and of[1] is Ellipsis:
            return tuple(_parsed(of[0], x, name) for x in value)
        if len(of) == len(value):
            return tuple(_parsed(one, x, name) for one, x in zip(of, value, strict=True))
    elif origin in (dict, Mapping) and isinstance(value, dict):
        return {_parsed(of[0], k, name): _parsed(of[1], v, name) for k, v in value.items()}
    elif kind is float and type(value) in (int, float):
        if (type(value) is float and name in MEASURED) or abs(value) < 1e300:
            return value
    elif (kind is type(None) and value is None) or type(value) is kind:
        return value
    raise ValueError(f"{name} is {str(value)[:60]!r}")
