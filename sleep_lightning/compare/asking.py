"""A question asked again and again, to be timed: what was read before it is random numbers, which take as long."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sleep_lightning.cost.answering import Asked, Piece, pieces, reads_token_by_token
from sleep_lightning.model import HybridLM, Memory, WindowModel
from sleep_lightning.model.open_window import open_window
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.sleep import SleepConfig, Window, retrieve, wake, zero_memory
from sleep_lightning.timing import interleave

Ask = Callable[[], int]
"""Asks; returns the first token of the answer. What was read before stays as it was."""
SECONDS, TIMES, WARM = 0.5, 20, 3
"""What questions are timed for: all of them together, calls of each at least, and calls before."""
DRAWN = 4096
"""Slots whose random numbers are repeated."""


class ReadWindow:
    """A window of a hybrid of which some tokens have been read already; with all tokens in it: a full cache.

    Args:
        model: the hybrid.
        config: its sleep.
        read: tokens before the first that is timed.
        more: room for those that are.

    Attributes:
        nbytes: keys and values of what was read.
    """

    def __init__(self, model: HybridLM, config: SleepConfig, read: int, more: int) -> None:
        self._model = model
        memory = some_memory(model, config)
        self._memory, cache = open_window(model, memory, read + more)
        stop = cache.before + read
        for x in (*cache.keys, *cache.values, *cache.plain_keys):
            _fill(x[:, :, :stop])
        cache.present[:, :stop] = True
        self._start = self._cache = replace(cache, fill=(stop,))
        self._tokens_BT = some_tokens(model, more)
        self.nbytes = sum(x[:, :, :stop].nbytes for x in (*cache.keys, *cache.values))

    def token(self) -> int:
        """Read one token and choose the next; the window goes on from it, and when it is full, from its start."""
        if self._cache.fill[0] == self._cache.size:
            self._cache = self._start
        chosen, self._cache = self._read(1, self._cache)
        return chosen

    def ask(self, question: int) -> int:
        """Read a question and choose the first token of its answer; the next is read from the start again."""
        return self._read(question, self._start)[0]

    @torch.no_grad()
    def _read(self, T: int, cache: WindowCache) -> tuple[int, WindowCache]:
        cache, slots = cache.claim(T)
        h, _ = self._model.extend(self._model.embed(self._tokens_BT[:, :T]), self._memory, slots)
        return choice(self._model, h), cache


def _fill(x_BGSD: Tensor) -> None:
    """With random numbers, the same again after ``DRAWN`` slots."""
    for part in x_BGSD.split(DRAWN, 2):
        if part.data_ptr() == x_BGSD.data_ptr():
            part.normal_()
        else:
            part.copy_(x_BGSD[:, :, : part.shape[2]])


def asker(model: WindowModel, config: SleepConfig, asked: Asked) -> Ask:
    """How a model answers (``cost/answering.py`` counts the same)."""
    if not reads_token_by_token(model, config):
        return whole_window_asker(model, config, asked)
    found = list(pieces(config.window_size, asked))
    windows = [(ReadWindow(model, config, p.first - p.start, n := p.stop - p.first), n) for p in found]
    return lambda: [window.ask(n) for window, n in windows][-1]


def whole_window_asker(model: WindowModel, config: SleepConfig, asked: Asked) -> Ask:
    """The same by running the question's windows at once, with ``wake_passes``, retrieved windows and summaries."""
    tokens_BT = some_tokens(model, sum(asked))
    answers_BT = torch.zeros_like(tokens_BT, dtype=torch.bool)
    found, memory = list(pieces(config.window_size, asked)), some_memory(model, config)
    if model.summary_tokens:
        S = model.summary_tokens * (asked.context // config.window_size)
        like_BSE = memory.summaries[0]
        memory = replace(memory, summaries=(torch.randn(1, S, like_BSE.shape[2], device=like_BSE.device),))

    @torch.no_grad()
    def run(piece: Piece) -> Tensor:
        window = Window(piece.start, piece.stop, sleeps=False)
        retrieved = retrieve(model, tokens_BT, answers_BT, window, config)
        return wake(model, tokens_BT[:, piece.start : piece.stop], memory, config, retrieved)[0]

    return lambda: choice(model, [run(piece) for piece in found][-1])


@torch.no_grad()
def choice(model: WindowModel, h_BTE: Tensor) -> int:
    """The likeliest token behind the last."""
    return int(model.logits(h_BTE[:, -1:]).argmax())


def some_memory(model: WindowModel, config: SleepConfig) -> Memory:
    """Of one sequence, random numbers throughout."""
    memory = zero_memory(model, 1, config)
    drawn = memory.map(lambda x: torch.randn_like(x) if x.is_floating_point() else x)
    return replace(drawn, present=tuple(map(torch.ones_like, memory.present)))


def some_tokens(model: WindowModel, T: int) -> Tensor:
    """``[1, T]``, none of them a neutral pad."""
    device = next(iter(model.parameters())).device
    tokens_BT = torch.arange(T, device=device)[None] % model.vocab_size
    pad_BT = model.padding(tokens_BT)
    return tokens_BT if pad_BT is None else torch.where(pad_BT, (tokens_BT + 1) % model.vocab_size, tokens_BT)


def answer_seconds(asks: Sequence[Ask]) -> list[float]:
    """The shortest of calls of each, in turn, behind a few that warm up: what others do on the machine only adds."""
    if not asks:
        return []
    taken = interleave({str(i): ask for i, ask in enumerate(asks)}, SECONDS, WARM + TIMES, warm=False)
    return [min(times[WARM:]) for times in taken.values()]
