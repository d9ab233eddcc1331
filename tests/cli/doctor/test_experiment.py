"""One experiment against the machine: device, kernels, memory."""

import pytest
import torch

from sleep_lightning.cli.doctor import experiment
from sleep_lightning.config import Experiment, load_experiment
from tests.cli.cli import ROOT
from tests.cli.doctor.rows import by_check, sole

Patch = pytest.MonkeyPatch


@pytest.fixture
def rule110() -> Experiment:
    return load_experiment(ROOT / "conf" / "rule110.yaml", ["model.d_model=16", "training.batch_size=8"])


@pytest.mark.parametrize(("free", "state"), [(1.0, "error"), (1.1, "warning"), (2.0, "ok")])
def test_memory(free: float, state: str, rule110: Experiment, monkeypatch: Patch) -> None:
    monkeypatch.setattr(experiment, "free_memory", lambda device: int(free * 10**6))
    monkeypatch.setattr("sleep_lightning.cost.step_memory.predict_step_memory", lambda e, model: 1_000_001)
    row = sole(experiment.check_step_memory(rule110))
    assert row.state == state
    assert ("training.checkpointing=pass" in row.remedy) == (state != "ok")


def test_memory_that_is_not_predicted(rule110: Experiment) -> None:
    rule110.training.compile = True
    assert "not predicted" in sole(experiment.check_step_memory(rule110)).found


def test_what_cannot_run_here(rule110: Experiment, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rule110.training.accelerator = "cuda"
    row = sole(experiment.check_device_and_backends(rule110))
    assert row.state == "error" and "training.accelerator='cuda'" in row.found and "cpu" in row.remedy
    assert not list(experiment.check_step_memory(rule110))
    rule110.training.accelerator, rule110.model.backend = "cpu", "fla"
    row = sole(experiment.check_device_and_backends(rule110))
    assert row.state == "error" and "model.backend='fla'" in row.found and row.remedy == "use auto"


def test_its_own_precision_and_rules_are_judged(rule110: Experiment) -> None:
    rule110.model.pattern, rule110.training.precision = "AGHD", "bf16"
    rule110.training.accelerator, rule110.model.backend = "cpu", "chunked"
    rows = by_check(experiment.check_device_and_backends(rule110))
    assert rows.keys() == {"experiment: device"} | {
        f"experiment: {rule} on cpu" for rule in ("gated_delta_rule", "gated_hebbian")
    }
    for row in rows.values():
        assert row.state == "ok", row
    assert "12 tokens: chunked" in row.found and "bf16" in row.found
