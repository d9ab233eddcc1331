import pytest

from sleep_lightning.sweep import storage_bench


def test_every_storage_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage_bench, "WRITERS", (1,))
    monkeypatch.delenv(storage_bench.POSTGRESQL_VARIABLE, raising=False)
    rows = list(storage_bench.bench_storage(0.05))
    assert [row["contender"] for row in rows] == ["journal", "SQLite"]
    assert all(isinstance(row["trials_per_second"], float) and row["trials_per_second"] > 0 for row in rows)
