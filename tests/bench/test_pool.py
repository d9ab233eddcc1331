"""What ``bench pool`` measures: sessions in memory are not loaded, those that do not fit are."""

from typing import Any

import pytest

from sleep_lightning.bench.pool import PoolSize, bench_pool


@pytest.mark.long
def test_rows() -> None:
    size = PoolSize(d_model=16, pattern="AG", window=8, sessions=6, room=2, read=10, callers=(1, 2), calls=8)
    *rows, load, save = list[dict[str, Any]](bench_pool(0, size))
    kinds = ["a question, in memory", "a token, in memory", "a question, on disk", "a token, on disk"]
    assert [(row["contender"], row["callers"]) for row in rows] == [(kind, n) for kind in kinds for n in (1, 2)]
    assert all(0 < row["call_p50_ms"] <= row["call_p99_ms"] and row["per_second"] > 0 for row in rows)
    assert {row["loads_per_call"] for row in rows if "in memory" in row["contender"]} == {0}
    assert all(row["loads_per_call"] > 0.9 for row in rows if "on disk" in row["contender"])
    assert all(row["bytes_in_memory"] <= 2 * row["session_bytes"] and row["timed"] >= 8 for row in rows)
    assert (load["contender"], save["contender"]) == ("load, alone", "save, alone")
    assert load["file_bytes"] > 0 and save["call_p50_ms"] > 0
