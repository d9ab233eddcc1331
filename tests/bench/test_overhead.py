import time
from pathlib import Path

import pytest

from sleep_lightning.bench import overhead
from sleep_lightning.config import load_experiment
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.tasks.rule110 import Rule110
from tests.cli.cli import SMALL


@pytest.mark.long
def test_what_is_slow_beside_the_step_is_overhead_and_the_step_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overhead, "SKIPPED", 2)
    experiment = load_experiment(None, [*SMALL, "training.max_steps=8", "training.val_every=1000"])
    work, rest = overhead._fit(experiment, tmp_path)
    draw = Rule110.batch

    def slowly(task: Rule110, *args: int, **kwargs: int) -> TaskBatch:
        time.sleep(0.05)
        return draw(task, *args, **kwargs)

    monkeypatch.setattr(Rule110, "batch", slowly)
    _, more = overhead._fit(experiment, tmp_path)
    assert 0 < rest < 0.05 < more and work > 0
    gradients = overhead.StepGradients.accumulate
    monkeypatch.setattr(overhead.StepGradients, "accumulate", lambda *a: (time.sleep(0.1), gradients(*a))[1])
    slow_work, more = overhead._fit(experiment, tmp_path)
    assert slow_work > 0.1 > more
