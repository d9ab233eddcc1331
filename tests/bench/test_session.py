"""What ``bench session`` measures: sessions whose answers do not grow, and what stands in their place."""

from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.bench import session
from sleep_lightning.bench.contenders import Size
from sleep_lightning.timing import percentile, percentiles
from sleep_lightning.tracking.figures.serving import draw_session

NAMES = ["sleep N=1", "sleep N=3", "loops N=3", "deeper x3", "full cache", "retrieval", "compaction"]


@pytest.mark.long
def test_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LEAST_TOKENS", "LEAST_ANSWERS", "LEAST_SLOW"):
        monkeypatch.setattr(session, name, 5)
    size = Size(d_model=16, pattern="AG", window=8, question=2, passes=(1, 3), tokens_read=(24, 240))
    *rows, even = list[dict[str, Any]](session.bench_session(0, size))
    assert [(r["contender"], r["tokens_read"]) for r in rows] == [(name, read) for read in (24, 240) for name in NAMES]
    assert all(0 < r["answer_p50_ms"] <= r["answer_p99_ms"] for r in rows)
    assert all(0 < r["token_p50_ms"] <= r["token_p99_ms"] for r in rows if r["tokens_timed"])
    by = {(r["contender"], r["tokens_read"]): r for r in rows}
    short, more = ({name: by[name, read] for name in NAMES} for read in (24, 240))
    for key in ("bytes", "answer_mflops", "token_mflops", "parameters"):
        assert more["sleep N=3"][key] == short["sleep N=3"][key] == short["sleep N=1"][key]
    assert more["full cache"]["bytes"] == 10 * short["full cache"]["bytes"]
    for name in ("full cache", "retrieval", "compaction"):
        assert more[name]["answer_mflops"] > short[name]["answer_mflops"] and more[name]["bytes"] > short[name]["bytes"]
    for name in ("loops N=3", "deeper x3"):
        assert more[name]["answer_mflops"] == short[name]["answer_mflops"] > 2 * short["sleep N=3"]["answer_mflops"]
    assert 0.9 < by["full cache", 24]["parameters"] / by["sleep N=1", 24]["parameters"] < 1.1
    assert (even["what"], even["N"]) == (session.BREAK_EVEN, 3) and even["sleep_ms"] > 0
    assert even["break_even_by_flops"] == pytest.approx(even["sleep_mflops"] / even["more_mflops_per_answer"])
    draw_session([*rows, even], tmp_path / "session.png")
    assert (tmp_path / "session.png").stat().st_size > 20_000


def test_percentiles() -> None:
    times = [float(i) for i in range(100, 0, -1)]
    assert (percentile(times, 50), percentile(times, 99), percentile([3.0], 99)) == (50, 99, 3)
    assert percentiles("x", [0.002]) == {"x_p50_ms": 2, "x_p99_ms": 2}
    assert percentiles("x", []) == {"x_p50_ms": None, "x_p99_ms": None}
