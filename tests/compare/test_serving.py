import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.compare.asking import ReadWindow, asker
from sleep_lightning.compare.serving import as_json, metrics, serve, serving_markdown
from sleep_lightning.compare.table import build_rows
from sleep_lightning.cost.answering import Asked, answer_cost
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tracking.figures.serving import draw_serving
from tests.compare.test_table import finished
from tests.conftest import tiny_model


@pytest.mark.long
def test_a_page_of_what_answers_cost(tmp_path: Path) -> None:
    runs = [finished(tmp_path, "n4", seed, exact, {}) for seed, exact in enumerate((0.5, 0.7))]
    page = serve(build_rows(runs, []), runs)
    [served] = page
    assert (served.context, served.question, served.exact_match) == (16, 2, [0.5, 0.7])
    assert served.questions == pytest.approx(8, rel=0.05), "context over question, but for what no last pass runs"
    assert served.answer_ms and served.answer_ms > 0
    file = tmp_path / "n4-seed0" / "answer_n4.json"
    kept = json.loads(file.read_text())
    assert kept == {"answer_flops": served.answer_flops, "answer_ms": served.answer_ms}
    assert serve(build_rows(runs, []), runs) == page, "what was timed is not timed again"
    lines = serving_markdown(page).splitlines()
    assert lines[0] == "what an answer costs: a question of 2 tokens behind 16, to its first token"
    assert lines[2] == "| arm | N | exact match | answer | ms | held | reading | sleep | Q* |"
    assert lines[4].startswith("| n4 | 4 | 0.600 ± 0.141 | ") and lines[4].endswith(" | 7.77 |")
    names = {"answer_flops", "answer_ms", "held_bytes", "reading_flops", "sleep_flops", "questions"}
    assert metrics(served).keys() == names
    assert as_json(page)[0]["held_bytes"] == served.held_bytes
    draw_serving(page, tmp_path / "serving.png", "title")
    assert (tmp_path / "serving.png").stat().st_size > 5000


@pytest.mark.long
def test_an_arm_that_keeps_nothing_does_not_lend_its_marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An arm has one colour and marker in both panels, and all stand in the legend."""
    runs = [finished(tmp_path, name, 0, 0.5, {}) for name in ("a", "b", "c")]
    page = serve(build_rows(runs, []), runs)
    page = [replace(served, held_bytes=bytes_) for served, bytes_ in zip(page, (8, 0, 9), strict=True)]
    kept: list[Any] = []
    monkeypatch.setattr("sleep_lightning.tracking.figures.serving.save_figure", lambda figure, _: kept.append(figure))
    draw_serving(page, tmp_path / "serving.png", "title")
    colors = [{c.get_label(): c.lines[0].get_color() for c in axes.containers} for axes in kept[0].axes]
    assert colors[0] == colors[1] == {"a": "C0", "b": "C1", "c": "C2"}
    named = [text.get_text() for text in kept[0].axes[1].get_legend().get_texts()]
    assert {"a", "b", "c"} < set(named)


@pytest.mark.parametrize(
    ("pattern", "sleep", "context", "model"),
    [
        ("AH", {}, 8, {}),
        ("AH", {}, 10, {}),
        ("AH", {"eviction": "sliding"}, 9, {}),
        ("AH", {"wake_passes": 3}, 8, {}),
        ("AH", {"retrieved_windows": 1}, 8, {}),
        ("AA", {"window_size": 16}, 8, {}),
        ("AA", {}, 8, {"summary_tokens": 2}),
        ("AG", {}, 7, {}),
    ],
)
def test_what_is_timed_is_what_is_counted(
    pattern: str, sleep: dict[str, Any], context: int, model: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is asked again and again: nothing of a question stays."""
    monkeypatch.setenv(build.SWITCH, "0")  # the counter does not see into the C++ kernels
    lm, config = tiny_model(pattern=pattern, vocab_size=7, **model), SleepConfig(**{"window_size": 4} | sleep)
    ask = asker(lm, config, asked := Asked(context, 3))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        first = ask()
    assert counter.get_total_flops() == pytest.approx(answer_cost(lm, config, asked).answer_flops, rel=0.01)
    assert first == ask() and first in range(7)


def test_tokens_of_a_full_cache_go_on_until_there_is_no_room() -> None:
    window = ReadWindow(tiny_model(pattern="AA", vocab_size=7), SleepConfig(8), read=5, more=3)
    first = [window.token() for _ in range(3)]
    assert [window.token() for _ in range(3)] == first and window.ask(2) in range(7)
    assert window.nbytes == answer_cost(window._model, SleepConfig(8), Asked(5, 2)).held_bytes
