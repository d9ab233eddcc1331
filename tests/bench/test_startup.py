import subprocess
from pathlib import Path

import pytest

from sleep_lightning.bench import startup

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_the_parts_of_a_start_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(startup, "ROUNDS", 1)
    rows = {str(row["contender"]): float(str(row["cpu_seconds"])) for row in startup.bench_startup(0)}
    first_step, whole = rows.pop(startup.FIRST_STEP), rows.pop(startup.WHOLE)
    assert list(rows)[:4] == ["Python", "import torch", "import MLflow", "import Lightning"]
    assert list(rows)[-1] == "end of the process"
    assert all(taken >= 0 for taken in rows.values())
    assert rows["import Lightning"] > rows["MLflow: end the run"] and first_step > rows["import torch"]
    assert whole > first_step


def test_a_fit_that_fails_is_not_timed(tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        startup._fit(["false"], tmp_path)
