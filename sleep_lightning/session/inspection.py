"""What a memory is like: every head's norm, rank and half-life, and what the last window and its passes changed."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.session.provenance import WindowLine
from sleep_lightning.session.state import SessionState
from sleep_lightning.sleep import SleepConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Head:
    """One head of a block of fast weights.

    Attributes:
        block: index of the block.
        head: index of the head in it.
        rule: name of the memory rule's module.
        norm: Frobenius norm of its state.
        effective_rank: exp of the entropy of the singular values' shares (Roy and Vetterli, 2007); 0 of a zero state.
        half_life: tokens in which its decay gate alone halves the state, at the mean log decay over the open window's
            tokens, or those of the last window; inf without decay, None if nothing has been read.
        change: ``|S' - S| / |S'|`` of the last window.
        by_pass: the same of each of its passes.
    """

    block: int
    head: int
    rule: str
    norm: float
    effective_rank: float
    half_life: float | None
    change: float | None
    by_pass: tuple[float, ...]


@dataclass(frozen=True)
class Inspection:
    """What ``SleepSession.inspect`` found; ``print`` shows the table.

    Attributes:
        heads: of all fast weights, first block to last.
        tokens_seen: by the session.
        window: the last line of provenance, if a window was closed.
    """

    heads: tuple[Head, ...]
    tokens_seen: int
    window: WindowLine | None

    def table(self) -> str:
        """A line per head."""
        passes = max((len(h.by_pass) for h in self.heads), default=0)
        names = ["block", "head", "rule", "norm", "eff. rank", "half-life", "last window"]
        rows = [names + [f"pass {n}" for n in range(1, passes + 1)]]
        for h in self.heads:
            half_life = "" if h.half_life is None else "never" if math.isinf(h.half_life) else f"{h.half_life:.3g}"
            cells = [str(h.block), str(h.head), h.rule, f"{h.norm:.3g}", f"{h.effective_rank:.2f}", half_life]
            rows.append([*cells, "" if h.change is None else f"{h.change:.1%}", *(f"{c:.1%}" for c in h.by_pass)])
        return aligned(rows)

    __str__ = table

    def figure(self) -> "Figure":
        """The same as a picture: norm and rank of every head, and its change by pass.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from sleep_lightning.session.picture import figure_of

        return figure_of(self)


@dataclass(frozen=True)
class Difference:
    """How two memories differ; ``print`` shows the table.

    Attributes:
        blocks: the blocks of fast weights.
        distance: ``|S - S'| / max(|S|, |S'|)`` of each; 0: equal.
        cosine: of the two states of each; 0 if one is zero.
        same_windows: windows at the beginning that both have closed.
        only_self, only_other: lines of those that only one has.
    """

    blocks: tuple[int, ...]
    distance: tuple[float, ...]
    cosine: tuple[float, ...]
    same_windows: int
    only_self: tuple[WindowLine, ...]
    only_other: tuple[WindowLine, ...]

    def table(self) -> str:
        """A line per block."""
        rows = [["block", "distance", "cosine"]]
        rows += [
            [str(b), f"{d:.3g}", f"{c:.4f}"] for b, d, c in zip(self.blocks, self.distance, self.cosine, strict=True)
        ]
        return (
            f"{aligned(rows)}\n{self.same_windows} windows in common, {len(self.only_self)} of one alone, "
            f"{len(self.only_other)} of the other"
        )

    __str__ = table


def inspect_state(model: HybridLM, config: SleepConfig, state: SessionState) -> Inspection:
    """Measure the memory of the open window's last token."""
    memory, last = state.window.memory, state.last
    half_lives = _half_lives(model, state)
    heads, i = [], 0
    for layer, (block, mixer) in enumerate(_fast_weights(model)):
        S_HKV = memory.states[layer][0].double()
        for head in range(len(S_HKV)):
            norm, rank = float(S_HKV[head].norm()), _effective_rank(S_HKV[head])
            change, by_pass = (
                None if last is None else last.change[i],
                tuple(p[i] for p in last.by_pass) if last else (),
            )
            half_life = None if half_lives is None else half_lives[i]
            heads.append(Head(block, head, type(mixer).__name__, norm, rank, half_life, change, by_pass))
            i += 1
    return Inspection(tuple(heads), state.tokens_seen, state.lines.last)


def compare_states(model: HybridLM, a: SessionState, b: SessionState) -> Difference:
    """The memories behind their last tokens, and their provenance."""
    distance, cosine = [], []
    for x, y in zip(a.window.memory.states, b.window.memory.states, strict=True):
        x, y = x.double().flatten(), y.double().flatten()
        most = max(float(x.norm()), float(y.norm()))
        distance.append(float((x - y).norm()) / most if most else 0.0)
        product = float(x.norm() * y.norm())
        cosine.append(float(x @ y) / product if product else 0.0)
    ours, theirs = list(a.lines), list(b.lines)
    same = next((i for i, (p, q) in enumerate(zip(ours, theirs, strict=False)) if p.hash != q.hash), None)
    same = min(len(ours), len(theirs)) if same is None else same
    blocks = tuple(block for block, _ in _fast_weights(model))
    return Difference(blocks, tuple(distance), tuple(cosine), same, tuple(ours[same:]), tuple(theirs[same:]))


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)


def _fast_weights(model: HybridLM) -> Iterable[tuple[int, FastWeights]]:
    return ((i, b.mixer) for i, b in enumerate(model.stack) if isinstance(b.mixer, FastWeights))


def _effective_rank(S_KV: Tensor) -> float:
    if not bool(S_KV.isfinite().all()):
        return math.nan
    singular = torch.linalg.svdvals(S_KV)
    share = singular / singular.sum()
    return float(torch.special.entr(share).sum().exp()) if float(singular.sum()) > 0 else 0.0


@torch.no_grad()
def _half_lives(model: HybridLM, state: SessionState) -> list[float] | None:
    """Of every head, from the gates of the tokens that were read last; None if there are none."""
    ids = state.window.tokens_BL[0, : state.window.fill].tolist() or list(state.last.tokens if state.last else ())
    if not ids:
        return None
    tokens_BT = torch.tensor([ids], device=state.window.tokens_BL.device)
    h, memory, pad = model.embed(tokens_BT), state.window.start, model.padding(tokens_BT)
    found: list[float] = []
    for i, block in enumerate(model.stack):
        if isinstance(block.mixer, FastWeights):
            g_H = block.project(h, read=False).g.double()[0].mean(0)
            found += [math.log(2) / -g if g < 0 else math.inf for g in g_H.tolist()]
        h, memory = model.blocks(h, memory, pad, range(i, i + 1))
    return found
