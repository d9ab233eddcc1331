import pytest

from sleep_lightning.bench import storage

pytestmark = pytest.mark.process


def test_every_storage_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "WRITERS", (1, 2))
    monkeypatch.delenv(storage.POSTGRESQL_VARIABLE, raising=False)
    rows = list(storage.bench_storage(0.05))
    assert [(row["contender"], row["writers"]) for row in rows] == [
        ("journal", 1),
        ("journal", 2),
        ("SQLite", 1),
        ("SQLite", 2),
    ]
    assert all(isinstance(row["trials_per_second"], float) and row["trials_per_second"] > 0 for row in rows)
