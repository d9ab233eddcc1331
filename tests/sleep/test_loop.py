"""What is looped, when, and what passes attend to: against networks written out block by block."""

import pytest
import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.model.attention import Attention
from sleep_lightning.sleep import PassRecord, SleepConfig, plan_windows, run_window_loop, sleep, wake, zero_memory
from tests.conftest import tiny_batch, tiny_model

L = 6


def run_blocks(model: HybridLM, indices: list[int], h: Tensor, states: dict[int, Tensor], back: dict[int, Tensor]):  # type: ignore[no-untyped-def]
    """Blocks one after another by their index. ``back``: per attention block the inputs before, which it may see.

    Returns hidden states, states, and per attention block the inputs of this time.
    """
    states, own = dict(states), {}
    for i in indices:
        block = model.stack[i]
        x = block.mixer_norm(h)
        if isinstance(block.mixer, Attention):
            before = back.get(i, x[:, :0])
            h = h + last_window_attention(block.mixer, torch.cat((before, x), 1))[:, before.shape[1] :]
            own[i] = x
        else:
            out = block.mixer(x, states[i])
            states[i], h = out.state, h + out.y
        h = block.feed_forward(h)
    return h, states, own


def last_window_attention(attention: Attention, x_BTE: Tensor) -> Tensor:
    """Each token over the L up to itself, one query at a time."""
    outputs = [attention(x_BTE[:, max(0, t - L + 1) : t + 1])[:, -1:] for t in range(x_BTE.shape[1])]
    return torch.cat(outputs, 1)


def zero_states(model: HybridLM, rows: int) -> dict[int, Tensor]:
    layers = [i for i, letter in enumerate(model.config.pattern) if letter != "A"]
    return dict(zip(layers, model.zero_memory(rows).states, strict=True))


@pytest.mark.parametrize("eviction", ["hard", "sliding"])
@pytest.mark.parametrize("n_passes", [1, 3])
@pytest.mark.parametrize(
    ("pattern", "loop"),
    [
        ("AGAG", "all"),
        ("AGAGA", "1/2/2"),
        ("GAGAG", "2/2/1"),
        ("AGAGAA", "2/2/2"),
        ("AGAG", "0/3/1"),
        ("GAAG", "1/3/0"),
        ("HADAJ", "2/2/1"),
    ],
)
def test_sleep_and_wake_are_the_unrolled_network(pattern: str, loop: str, n_passes: int, eviction) -> None:  # type: ignore[no-untyped-def]
    """Prelude once, core N times, coda once over each window; attention looks back on the final pass before."""
    model, batch = tiny_model(pattern=pattern).double(), tiny_batch(ring=L)
    config = SleepConfig(L, n_passes, loop=loop, eviction=eviction)
    prelude, core, coda = map(list, config.parts(len(pattern)))
    states, back = zero_states(model, len(batch.tokens)), dict[int, Tensor]()
    windows = plan_windows(batch.labels, L)
    steps = list(run_window_loop(model, batch.tokens, windows, zero_memory(model, len(batch.tokens), config), config))
    for window, h, memory in steps:
        expected, final = model.embed(batch.tokens[:, window.start : window.stop]), dict[int, Tensor]()
        for part in (prelude, *[core] * (n_passes if window.sleeps else 1), coda):
            expected, states, own = run_blocks(model, part, expected, states, back)
            final |= own
        if eviction == "sliding":
            back = {i: torch.cat((back.get(i, x[:, :0]), x), 1)[:, -(L - 1) :] for i, x in final.items()}
        for actual, state in zip(memory.states, states.values(), strict=True):
            torch.testing.assert_close(actual, state, rtol=1e-4, atol=1e-5)
        if h is not None:
            torch.testing.assert_close(h, expected, rtol=1e-4, atol=1e-5)


def test_the_coda_runs_once_a_window() -> None:
    """Counted by hooks: 1, N and 1 calls of a prelude, core and coda block."""
    model, tokens = tiny_model(pattern="GGGA"), torch.randint(2, (2, L))
    calls = dict.fromkeys(range(3), 0)
    for i in calls:
        model.stack[i].mixer.register_forward_hook(lambda *_, i=i: calls.update({i: calls[i] + 1}))
    sleep(model, tokens, model.zero_memory(2), SleepConfig(L, 4, loop="1/1/2"))
    assert calls == {0: 1, 1: 4, 2: 1}


def test_pass_input_embed_feeds_the_core_what_the_prelude_made() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    records: list[PassRecord] = []
    sleep(
        model, tokens, model.zero_memory(2), SleepConfig(L, 3, loop="1/3/0", pass_input="embed"), observe=records.append
    )
    assert records[0].h_in is records[1].h_in is records[2].h_in
    assert not torch.equal(records[0].h_in, model.embed(tokens))


@pytest.mark.parametrize("loop", ["all", "1/2/1"])
@pytest.mark.parametrize("pass_input", ["hidden", "inject"])
def test_loops_when_awake_do_not_look_ahead(loop: str, pass_input) -> None:  # type: ignore[no-untyped-def]
    """Changing the last token changes nothing before it, though every pass reads the memory."""
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    memory = model.zero_memory(2).map(torch.randn_like)
    config = SleepConfig(L, wake_passes=3, loop=loop, pass_input=pass_input)
    h, after = wake(model, tokens, memory, config)
    other = tokens.clone()
    other[:, -1] = 1 - other[:, -1]
    changed, _ = wake(model, other, memory, config)
    torch.testing.assert_close(h[:, :-1], changed[:, :-1])
    assert not torch.allclose(h[:, -1], changed[:, -1])
    once, _ = wake(model, tokens, memory)
    assert not torch.allclose(h, once)
    assert isinstance(after, Memory)


def test_three_passes_awake_written_out() -> None:
    model, tokens = tiny_model(), torch.randint(2, (2, L))
    memory = model.zero_memory(2).map(torch.randn_like)
    expected = model.embed(tokens)
    for _ in range(3):
        expected, after = model.blocks(expected, memory)
    h, written = wake(model, tokens, memory, SleepConfig(L, wake_passes=3))
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(written.states, after.states)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"loop": "some"}, r"sleep\.loop='some' must be all, or"),
        ({"loop": "1/0/1"}, r"sleep\.loop='1/0/1' must be all, or"),
        ({"loop": "1/2"}, r"sleep\.loop='1/2' must be all, or"),
        ({"wake_passes": 0}, r"sleep\.wake_passes=0 must be at least 1"),
    ],
)
def test_impossible_loops_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SleepConfig(**overrides)  # type: ignore[arg-type]


def test_loops_must_cover_the_stack() -> None:
    with pytest.raises(ValueError, match=r"sleep\.loop='1/2/3' counts 6 blocks, the model has 4"):
        SleepConfig(loop="1/2/3").parts(4)
