"""One experiment against the machine: device, kernels, memory."""

from pathlib import Path

import pytest
import torch

from sleep_lightning.cli.doctor import kernels, memory
from sleep_lightning.cli.doctor.finding import run_checks
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.machine.memory import memory_left
from tests.cli.cli import ROOT
from tests.cli.doctor.rows import by_check, sole

Patch = pytest.MonkeyPatch


@pytest.fixture
def rule110() -> Experiment:
    return load_experiment(ROOT / "conf" / "rule110.yaml", ["model.d_model=16", "training.batch_size=8"])


@pytest.mark.parametrize(("free", "state"), [(1.0, "error"), (1.1, "warning"), (2.0, "ok")])
def test_memory(free: float, state: str, rule110: Experiment, monkeypatch: Patch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: int(free * 10**6))
    monkeypatch.setattr("sleep_lightning.cli.doctor.memory.predict_step_memory", lambda e, model: 1_000_001)
    row = sole(memory.check_step_memory(rule110))
    assert row.state == state
    assert ("training.checkpointing=pass" in row.remedy) == (state != "ok")


def test_memory_that_is_not_predicted(rule110: Experiment) -> None:
    rule110.training.compile = True
    assert "not predicted" in sole(memory.check_step_memory(rule110)).found


def test_what_cannot_run_here(rule110: Experiment, monkeypatch: Patch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    rule110.training.accelerator = "cuda"
    row = sole(memory.check_step_memory(rule110))
    assert row.state == "error" and "training.accelerator='cuda'" in row.found and "cpu" in row.remedy
    rule110.training.accelerator, rule110.model.backend = "cpu", "fla"
    row = sole(memory.check_step_memory(rule110))
    assert row.state == "error" and "model.backend='fla'" in row.found and row.remedy == "use auto"
    row = sole(run_checks([("experiment: memory rules", lambda: kernels.check_rules(rule110))]))
    assert row.state == "error" and "model.backend='fla'" in row.found


def test_its_own_precision_and_rules_are_judged(rule110: Experiment) -> None:
    rule110.model.pattern, rule110.training.precision = "AGHD", "bf16"
    rule110.training.accelerator, rule110.model.backend = "cpu", "chunked"
    rows = by_check(kernels.check_rules(rule110))
    assert rows.keys() == {f"experiment: {rule} on cpu" for rule in ("gated_delta_rule", "gated_hebbian")}
    for row in rows.values():
        assert row.state == "ok", row
    assert "12 tokens: chunked" in row.found and "bf16" in row.found


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_control_groups(version: int, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.write_text("5:memory:/a/b\n4:cpu,cpuacct:/a/b\n3:devices:/\n" if version == 1 else "0::/a/b\n")
    files = {
        1: {"memory/a/b/memory.limit_in_bytes": "1000\n", "memory/a/b/memory.usage_in_bytes": "400\n"},
        2: {
            "a/b/memory.max": "1000\n",
            "a/b/memory.current": "400\n",
            "a/memory.max": "max\n",
            "a/memory.current": "999\n",
        },
    }[version]
    assert memory_left(tmp_path, own) is None
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert memory_left(tmp_path, own) == 600
    assert memory_left(tmp_path, tmp_path / "not Linux") is None
