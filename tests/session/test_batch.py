"""Sessions in one forward: as if each was alone, whatever its neighbours hold."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.session.batch import Rows, close_rows, own
from sleep_lightning.session.batching import BatchingEngine, powers_of_two
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import SleepConfig, zero_memory
from sleep_lightning.testing.tiny import tiny_model

L, VOCAB = 8, 11
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hard": ({}, {}),
    "sliding": ({"n_heads": 4, "kv_heads": 2}, {"eviction": "sliding", "carry_conv_state": True}),
    "core": ({"qk_norm": True}, {"loop": "1/2/1", "pass_input": "inject"}),
    "hebbian": ({"pattern": "HADA"}, {}),
}


class Setting:
    """A model and windows that have read something: window i a whole window, then i % L more tokens."""

    def __init__(self, kind: str) -> None:
        model, sleep = KINDS[kind]
        self.model: HybridLM = tiny_model(**{"vocab_size": VOCAB, "pattern": "GAJA"} | model).eval()
        self.config = SleepConfig(**{"window_size": L, "n_passes": 3} | sleep)

    def window(self, seed: int, fill: int) -> OpenWindow:
        tokens = torch.randint(VOCAB, (1, L + fill), generator=torch.Generator().manual_seed(seed))
        opened = OpenWindow.opened(self.model, self.config, zero_memory(self.model, 1, self.config))
        opened, _ = opened.read(self.model, self.config, tokens[:, :L])
        memory = opened.close(self.model, self.config)
        opened = OpenWindow.opened(self.model, self.config, memory, opened.last_BE)
        return opened.read(self.model, self.config, tokens[:, L:])[0] if fill else opened

    def read(self, windows: list[OpenWindow], tokens_BT: Tensor, times: int = 2) -> list[tuple[OpenWindow, Tensor]]:
        """``times`` T tokens, so that what was stacked is gone on from."""
        rows, hidden = Rows(self.model, self.config), [torch.empty(1, 0, self.model.config.d_model)] * len(windows)
        for _ in range(times):
            made = rows.read(windows, tokens_BT)
            windows = [window for window, _ in made]
            hidden = [torch.cat((h, new), 1) for h, (_, new) in zip(hidden, made, strict=True)]
        return list(zip(windows, hidden, strict=True))


def values(window: OpenWindow) -> list[Tensor]:
    """All that later tokens depend on."""
    stop = window.cache.fill[0]
    cache = [x[:, :, :stop] for x in (*window.cache.keys, *window.cache.values, *window.cache.plain_keys)]
    return [*window.memory.named_tensors().values(), *cache, window.last_BE, window.h_out_BLE[:, : window.fill]]


def assert_close(a: list[Tensor], b: list[Tensor], atol: float = 1e-5) -> None:
    for x, y in zip(a, b, strict=True):
        torch.testing.assert_close(x, y, rtol=0, atol=atol)


@pytest.fixture(params=KINDS)
def setting(request: pytest.FixtureRequest) -> Setting:
    with torch.no_grad():
        return Setting(request.param)


@torch.no_grad()
def test_ragged_rows_are_as_if_alone(setting: Setting) -> None:
    fills = [0, 3, 5, 1]
    for T in (1, 2):
        tokens_BT = torch.randint(VOCAB, (len(fills), T), generator=torch.Generator().manual_seed(9))
        together = setting.read([setting.window(i, fill) for i, fill in enumerate(fills)], tokens_BT, 3 - T)
        for i, (window, h) in enumerate(together):
            alone = setting.window(i, fills[i])
            for _ in range(3 - T):
                alone, h_alone = alone.read(setting.model, setting.config, tokens_BT[i : i + 1])
            assert_close(values(window), values(alone))
            torch.testing.assert_close(h[:, -T:], h_alone, rtol=0, atol=1e-5)
            assert window.cache.fill == alone.cache.fill and window.fill == alone.fill and not window.cache.apart


@torch.no_grad()
def test_sleepers_are_as_if_alone(setting: Setting) -> None:
    counted: list[list[int]] = [[], [], []]
    windows = [setting.window(i, 5) for i in range(3)]
    observers = [lambda record, n=n: n.append((record.n, len(record.h_in))) for n in counted]
    together = close_rows(setting.model, setting.config, windows, observers)
    for i, memory in enumerate(together):
        alone = setting.window(i, 5).close(setting.model, setting.config)
        assert_close(list(memory.named_tensors().values()), list(alone.named_tensors().values()))
        assert all(x._base is None for x in memory.named_tensors().values())
    assert counted == [[(1, 1), (2, 1), (3, 1)]] * 3


def hostile(window: OpenWindow, how: str) -> OpenWindow:
    """A neighbour whose state holds what no model makes."""
    value = {"nan": torch.nan, "huge": 3e38}[how]
    poison = [window.memory.map(lambda x: torch.full_like(x, value)) for _ in range(2)]
    cache = window.cache.clone()
    for x in (*cache.keys, *cache.values, *cache.plain_keys):
        x.fill_(value)
    last = torch.full_like(window.last_BE, value)
    start = window.start.map(lambda x: torch.full_like(x, value))
    h_in = None if window.h_in_BLE is None else torch.full_like(window.h_in_BLE, value)
    h_out = torch.full_like(window.h_out_BLE, value)
    changed = replace(window, start=start, memory=poison[0], cache=cache, last_BE=last)
    return replace(changed, h_in_BLE=h_in, h_out_BLE=h_out)


@torch.no_grad()
@pytest.mark.parametrize("how", ["nan", "huge"])
def test_hostile_neighbours_change_no_bit(setting: Setting, how: str) -> None:
    """At equal batch shape; the neighbours are filled otherwise, and one was reset, too."""
    tokens_BT = torch.randint(VOCAB, (4, 1), generator=torch.Generator().manual_seed(9))
    victims = {0: 2, 2: 4}

    def read(neighbours: list[OpenWindow], others: int) -> list[list[Tensor]]:
        windows = [neighbours[0], neighbours[1], neighbours[0], neighbours[1]]
        windows = [setting.window(i, victims[i]) if i in victims else windows[i].clone() for i in range(4)]
        tokens = tokens_BT.clone()
        tokens[[1, 3]] = others
        made = setting.read(windows, tokens)
        return [[*values(made[i][0]), made[i][1]] for i in victims]

    friendly = read([setting.window(7, 1), setting.window(8, 3)], 0)
    attacked = read([hostile(setting.window(7, 5), how), hostile(setting.window(8, 0), how)], 5)
    for before, after in zip(friendly, attacked, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        assert all(x.isfinite().all() for x in after)

    def sleep(neighbour: OpenWindow) -> list[Tensor]:
        windows = [setting.window(0, 4), neighbour, setting.window(2, 4)]
        memories = close_rows(setting.model, setting.config, windows, [None] * 3)
        return [x for i in (0, 2) for x in memories[i].named_tensors().values()]

    pairs = zip(sleep(setting.window(1, 4)), sleep(hostile(setting.window(1, 4), how)), strict=True)
    assert all(torch.equal(a, b) and b.isfinite().all() for a, b in pairs)


@torch.no_grad()
def test_a_row_that_leaves_keeps_no_batch_alive(setting: Setting) -> None:
    tokens_BT = torch.zeros(2, 1, dtype=torch.int64)
    (window, _), _ = setting.read([setting.window(0, 1), setting.window(1, 2)], tokens_BT)
    assert window.cache.present._base is not None
    mine = own(window)
    assert_close(values(mine), values(window), atol=0)
    assert all(x._base is None for x in (*mine.cache.tensors, *mine.memory.named_tensors().values(), mine.last_BE))
    assert own(mine) is mine


def test_no_worker_is_left_once_it_is_shut_down() -> None:
    """A thread that still runs when the interpreter ends would abort it."""
    setting = Setting("hard")
    before = set(threading.enumerate())
    engine = BatchingEngine(setting.model, setting.config, 4)
    with ThreadPoolExecutor(2) as threads:
        windows = [threads.submit(setting.window, seed, 0) for seed in (1, 2)]
        closing = [threads.submit(engine.close, setting.config, window.result()) for window in windows]
        memories = [one.result() for one in closing]
        threads.submit(engine.logits, torch.zeros(1, 1, setting.model.config.d_model)).result()
    names = {thread.name for thread in set(threading.enumerate()) - before}
    assert {"reading", "sleeping"} <= names and all(memory.named_tensors() for memory in memories)
    engine.shut_down()
    assert set(threading.enumerate()) <= before
    engine.shut_down()


def test_one_that_fails_fails_alone() -> None:
    setting = Setting("hard")
    engine = BatchingEngine(setting.model, setting.config, 4)
    good = torch.zeros(1, 1, setting.model.config.d_model)
    bad = torch.zeros(1, 1, 3)
    with ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(engine.logits, h) for h in (good, bad, good, bad)]
        errors = [one.exception() for one in asked]
    assert [error is None for error in errors] == [True, False, True, False]
    engine.shut_down()
    assert powers_of_two(13) == [8, 4, 1] and powers_of_two(1) == [1]
