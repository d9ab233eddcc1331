import pytest

from sleep_lightning.bench import storage
from sleep_lightning.bench.scale import bench_scale

pytestmark = pytest.mark.process


def test_every_storage_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WRITERS", (1, 2))
    monkeypatch.delenv(storage.POSTGRESQL_VARIABLE, raising=False)
    monkeypatch.setattr(storage, "bench_scale", lambda: iter(()))
    rows = list(storage.bench_storage(0.05))
    assert [(row["contender"], row["writers"]) for row in rows] == [
        ("journal", 1),
        ("journal", 2),
        ("SQLite", 1),
        ("SQLite", 2),
    ]
    assert all(isinstance(row["trials_per_second"], float) and row["trials_per_second"] > 0 for row in rows)


def test_what_is_there_already_is_measured() -> None:
    rows = list(bench_scale((2, 3)))
    assert len(rows) == 12 and {row["what"] for row in rows} == {"storage at size"}
    assert all(row["ratio"] == 1 for row in rows[:6])
    assert all(isinstance(row["us_each"], float) and row["us_each"] > 0 for row in rows)
