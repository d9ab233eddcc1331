import pytest

from sleep_lightning.bench import startup


@pytest.mark.slow
def test_the_parts_of_a_start_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "ROUNDS", 1)
    rows = {str(row["contender"]): float(str(row["cpu_seconds"])) for row in startup.bench_startup(0)}
    whole = rows.pop(startup.WHOLE)
    assert list(rows)[:3] == ["Python", "import torch", "import lightning.pytorch"]
    assert list(rows)[-1] == "end of the process"
    assert all(taken >= 0 for taken in rows.values())
    assert rows["import lightning.pytorch"] > rows["MLflow: end the run"] and whole > rows["import torch"]
