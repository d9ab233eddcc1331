import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.model import Memory
from sleep_lightning.sleep import SleepConfig, plan_windows, run_window_loop, sleep, wake, zero_memory
from tests.conftest import tiny_batch, tiny_model

L, M = 6, 2


@pytest.mark.parametrize("n_passes", [1, 2])
@pytest.mark.parametrize("loop", ["all", "1/1/0"])
def test_summaries_written_out(n_passes: int, loop: str) -> None:
    """Every window reads [summaries, tokens, slots]; the slots' last hidden states join the summaries."""
    model, batch = tiny_model(pattern="AA", summary_tokens=M), tiny_batch(ring=L)
    config, rows = SleepConfig(L, n_passes, loop=loop), len(batch.tokens)
    windows = plan_windows(batch.labels, L)
    steps = list(run_window_loop(model, batch.tokens, windows, zero_memory(model, rows, config), config))
    summaries, nothing = torch.zeros(rows, 0, 16), Memory(())
    _, core, _ = config.parts(2)
    for window, h, memory in steps:
        tokens = model.embed(batch.tokens[:, window.start : window.stop])
        slots = model.summary.expand(rows, -1, -1)[:, : M if window.sleeps else 0]
        x = torch.cat((summaries, tokens, slots), 1)
        x, _ = model.blocks(x, nothing, part=range(core.start))
        for _ in range(n_passes if window.sleeps else 1):
            x, _ = model.blocks(x, nothing, part=core)
        if window.sleeps:
            summaries = torch.cat((summaries, x[:, -M:]), 1)
        else:
            torch.testing.assert_close(h, x[:, summaries.shape[1] :])
        torch.testing.assert_close(memory.summaries[0], summaries)
    assert summaries.shape == (rows, 3 * M, 16)


def test_gradient_reaches_the_slots_and_the_first_window() -> None:
    model, batch = tiny_model(pattern="AA", summary_tokens=M), tiny_batch(ring=L)
    config = SleepConfig(L)
    memory = zero_memory(model, len(batch.tokens), config)
    *_, (_, h, _) = run_window_loop(model, batch.tokens, plan_windows(batch.labels, L), memory, config)
    assert h is not None
    assert torch.autograd.grad(h.square().sum(), model.summary)[0].abs().max() > 0


def test_an_answer_sees_an_evicted_window_through_its_summary_only() -> None:
    tokens = torch.randint(2, (2, L))
    other = 1 - tokens
    for m, seen in ((0, False), (M, True)):
        model = tiny_model(pattern="AA", summary_tokens=m)
        config = SleepConfig(L)
        start = zero_memory(model, 2, config)
        (h, _), (changed, _) = (wake(model, tokens, sleep(model, x, start, config), config) for x in (tokens, other))
        assert torch.allclose(h, changed) != seen


@pytest.mark.parametrize("override", ["sleep.eviction=sliding", "sleep.carry_conv_state=true", "model.pattern=GG"])
@pytest.mark.parametrize("control", ["model.summary_tokens=2", "sleep.retrieved_windows=1"])
def test_what_it_cannot_be_combined_with(control: str, override: str) -> None:
    with pytest.raises(ValueError, match=f"{control} needs attention"):
        load_experiment(None, ["sleep.n_passes=1", control, override])
