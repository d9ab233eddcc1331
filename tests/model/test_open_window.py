"""A window read in pieces is the window read at once; rows of a batch may be filled differently."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.open_window import close_window, open_window, with_layers_of
from sleep_lightning.model.window_cache import WindowCache
from sleep_lightning.sleep import SleepConfig, wake, zero_memory
from tests.conftest import tiny_model
from tests.model.styles import STYLES

L = 6


def read(model: HybridLM, tokens: Tensor, memory: Memory, cache: WindowCache) -> tuple[Tensor, Memory, WindowCache]:
    pad = model.padding(tokens)
    cache, slots = cache.claim(tokens.shape[1], pad)
    h, memory = model.extend(model.embed(tokens), memory, slots, pad)
    return h, memory, cache


def start_of(model: HybridLM, config: SleepConfig, rows: int) -> Memory:
    """A memory with something in it, and a cache that is full in row 0 and empty in the others."""
    memory = zero_memory(model, rows, config).map(torch.randn_like)
    present = tuple((torch.arange(rows)[:, None] == 0).expand_as(p).to(p.dtype) for p in memory.present)
    return Memory(memory.states, memory.conv, memory.kv, present)


@pytest.mark.parametrize("sleep", [{}, {"eviction": "sliding"}, {"eviction": "sliding", "carry_conv_state": True}])
@pytest.mark.parametrize("style", ["mixed", *STYLES])
@torch.no_grad()
def test_pieces_are_the_whole_window(style: str, sleep: dict[str, Any]) -> None:
    options: dict[str, Any] = {"mixed": {"pattern": "GAHDJA", "attention_windows": [4, 0]}} | STYLES
    model, config = tiny_model(**{"vocab_size": 11} | options[style]).double(), SleepConfig(L, **sleep)
    tokens, start = torch.randint(3, (3, L)), start_of(model, config, 3)
    expected_h, expected = wake(model, tokens, start, config)
    memory, cache = open_window(model, start, L)
    hidden = []
    for piece in tokens.split((1, 2, 1, 2), 1):
        h, memory, cache = read(model, piece, memory, cache)
        hidden.append(h)
    torch.testing.assert_close(torch.cat(hidden, 1), expected_h, rtol=1e-10, atol=1e-10)
    closed = close_window(memory, cache, carry_conv_state=config.carry_conv_state)
    assert closed.named_tensors().keys() == expected.named_tensors().keys()
    for name, x in closed.named_tensors().items():
        torch.testing.assert_close(x, expected.named_tensors()[name], rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("sleep", [{}, {"eviction": "sliding"}])
@pytest.mark.parametrize("neutral_pad", [None, 2])
@torch.no_grad()
def test_rows_at_different_places(sleep: dict[str, Any], neutral_pad: int | None) -> None:
    """A batch of rows that are filled differently gives what each gives alone."""
    model = tiny_model(pattern="GAJA", attention_windows=[3, 0]).double()
    model.neutral_pad = neutral_pad
    config, fills = SleepConfig(L, **sleep), (0, 4, 2)
    start, tokens = start_of(model, config, len(fills)), torch.randint(3, (3, L))
    alone, opened = [], []
    for row, fill in enumerate(fills):
        memory, cache = open_window(model, start.map(lambda x, row=row: x[row : row + 1]), L)  # type: ignore[misc]
        if fill:
            _, memory, cache = read(model, tokens[row : row + 1, :fill], memory, cache)
        opened.append((memory, cache.clone()))
        alone.append(read(model, tokens[row : row + 1, fill : fill + 2], memory, cache))
    memories = zip(*(m.named_tensors().values() for m, _ in opened), strict=True)
    whole = iter([torch.cat(xs) for xs in memories])
    memory, cache = opened[0][0].map(lambda _: next(whole)), WindowCache.stack([c for _, c in opened])
    pieces = torch.cat([tokens[row : row + 1, fill : fill + 2] for row, fill in enumerate(fills)])
    h, memory, cache = read(model, pieces, memory, cache)
    closed = close_window(memory, cache, carry_conv_state=False)
    for row, (h_alone, memory_alone, cache_alone) in enumerate(alone):
        torch.testing.assert_close(h[row : row + 1], h_alone, rtol=1e-10, atol=1e-10)
        expected = close_window(memory_alone, cache_alone, carry_conv_state=False).named_tensors()
        for name, x in closed.named_tensors().items():
            torch.testing.assert_close(x[row : row + 1], expected[name], rtol=1e-10, atol=1e-10, msg=name)
        for mine, theirs in zip(cache.row(row).tensors, cache_alone.tensors, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)


@torch.no_grad()
def test_what_lies_behind_the_last_token_does_not_matter() -> None:
    """Slots of an answer that was thrown away, or of a hostile neighbour's row, are never seen."""
    model = tiny_model(pattern="AGA")
    memory, cache = open_window(model, zero_memory(model, 2, SleepConfig(L)), L)
    _, memory, cache = read(model, torch.tensor([[0, 1], [1, 0]]), memory, cache)
    expected = read(model, torch.tensor([[2], [1]]), memory, cache.clone())[0]
    for x in (*cache.keys, *cache.values):
        x[:, :, 2:] = torch.nan
    assert torch.equal(read(model, torch.tensor([[2], [1]]), memory, cache)[0], expected)


def test_layers_of_a_part() -> None:
    model = tiny_model(pattern="AGGAG")
    assert model.layers_of(range(1, 4)) == (range(2), range(1, 2))
    assert model.layers_of(range(5, 5)) == (range(3, 3), range(2, 2))
    zeros = zero_memory(model, 1, SleepConfig(L, eviction="sliding", carry_conv_state=True))
    ones = zeros.map(torch.ones_like)
    merged = with_layers_of(model, range(1, 4), zeros, ones)
    assert [int(x.max()) for x in merged.states] == [1, 1, 0] == [int(x.max()) for x in merged.conv]
    assert [int(x.max()) for x in merged.kv] == [0, 1]


def test_a_window_takes_no_more_tokens_than_it_has_slots() -> None:
    model = tiny_model()
    _, cache = open_window(model, zero_memory(model, 1, SleepConfig(L)), L)
    with pytest.raises(AssertionError, match="full"):
        cache.claim(L + 1)
