import mmap
import time
from pathlib import Path

import pytest
import torch

from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training import resource_usage
from sleep_lightning.training.callbacks.energy import EnergyMeter
from sleep_lightning.training.callbacks.history import History
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.resource_usage import ResourceUsage, forget_peak, peak_resident_bytes, resident_bytes
from sleep_lightning.training.trainer import build_trainer, quiet_lightning
from tests.training.test_module import experiment

CPU = torch.device("cpu")


class OneJouleAReading:
    name = "test"

    def __init__(self) -> None:
        self.readings = 0

    def joules(self) -> float:
        self.readings += 1
        return float(self.readings)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> OneJouleAReading:
    one = OneJouleAReading()
    monkeypatch.setattr(EnergyMeter, "of", classmethod(lambda cls, device: EnergyMeter([one])))
    return one


def test_a_peak_that_has_passed_is_remembered_and_can_be_forgotten() -> None:
    forget_peak()
    before = resident_bytes()
    with mmap.mmap(-1, 64 << 20) as memory:  # the C library may keep what a tensor frees
        memory[:: mmap.PAGESIZE] = b"x" * (len(memory) // mmap.PAGESIZE)
    assert peak_resident_bytes() > before + (60 << 20)
    if Path("/proc/self/clear_refs").exists():
        forget_peak()
        assert peak_resident_bytes() < before + (60 << 20)


def test_validations_are_no_training_time() -> None:
    usage = ResourceUsage()
    usage.begin(CPU)
    time.sleep(0.02)
    usage.pause()
    time.sleep(0.1)  # a validation
    usage.resume()
    time.sleep(0.02)
    usage.pause()
    usage.pause()  # the end, right after a validation
    assert 0.04 <= usage.train_s < 0.1 < usage.wall_s
    rate = usage.measured(steps=10, step_tokens=100)["tokens_per_s"]
    assert rate == pytest.approx(1000 / usage.train_s)


def test_energy_of_some_of_the_nodes_is_not_reported() -> None:
    usage = ResourceUsage()
    usage.begin(CPU, size=4, local_size=2)
    assert usage.energy_sources == "" and usage.energy_j is None


def test_what_a_machine_does_not_report_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EnergyMeter, "of", classmethod(lambda cls, device: EnergyMeter([])))
    usage = ResourceUsage()
    assert set(usage.measured(0, 100)) == {"wall_s", "peak_memory_bytes"}
    usage.begin(CPU)
    assert "energy_j" not in usage.measured(1, 100)
    assert usage.state_dict()["energy_j"] is None


def test_energy_is_read_now_and_then_between_steps(counter: OneJouleAReading, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = ResourceUsage()
    usage.begin(CPU)
    for _ in range(5):
        usage.keep_energy()
    assert counter.readings == 0
    monkeypatch.setattr(resource_usage, "ENERGY_EVERY", 0.0)
    usage.keep_energy()
    assert counter.readings == 1


def test_a_resumed_run_adds_up(counter: OneJouleAReading) -> None:
    first = {"wall_s": 100.0, "train_s": 50.0, "untimed_steps": 0, "energy_j": 400.0}
    first |= {"peak_memory_bytes": 1 << 50, "step_memory_bytes": 1 << 20}
    usage = ResourceUsage()
    usage.load_state_dict(first, steps=10)
    assert usage.energy_j == 400.0  # a finished run that is only reported again
    usage.begin(CPU)
    usage.pause()
    figures = usage.measured(steps=20, step_tokens=100)
    assert 100 < figures["wall_s"] < 101 and 50 <= usage.train_s < 51
    assert figures["tokens_per_s"] == pytest.approx(2000 / usage.train_s)
    assert figures["energy_j"] == 401.0
    assert (figures["peak_memory_bytes"], figures["step_memory_bytes"]) == (1 << 50, 1 << 20)


def test_a_checkpoint_of_older_versions_loads_and_its_unknown_part_is_not_guessed(counter: OneJouleAReading) -> None:
    usage = ResourceUsage()
    usage.load_state_dict({"wall_s": 100.0}, steps=10)
    usage.begin(CPU)
    time.sleep(0.01)
    usage.pause()
    figures = usage.measured(steps=15, step_tokens=100)
    assert figures["tokens_per_s"] == pytest.approx(500 / usage.train_s)  # of the five steps that were timed
    assert figures["wall_s"] > 100
    assert "energy_j" not in figures


def trained(run: RunDirectory, steps: int, checkpoint: Path | None = None) -> tuple[SleepModule, ResourceMonitor]:
    quiet_lightning()
    e = experiment(f"training.max_steps={steps}", "training.val_every=2", f"training.run_dir={run.path}")
    monitor, module = ResourceMonitor(), SleepModule(e)
    trainer = build_trainer(e, run, callbacks=[monitor, History(run.history)])
    trainer.fit(module, datamodule=TaskDataModule(e), ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(run.last)
    return module, monitor


def test_a_peak_never_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux adds resident pages up by CPU, now and then."""
    usage, peaks = ResourceUsage(), iter([5 << 20, 4 << 20, 6 << 20])
    monkeypatch.setattr(usage, "_peak", lambda: next(peaks))
    assert [usage.peak_memory_bytes for _ in range(3)] == [5 << 20, 5 << 20, 6 << 20]


def test_every_validation_says_what_training_took(tmp_path: Path, counter: OneJouleAReading) -> None:
    run = RunDirectory(tmp_path)
    _, first = trained(run, 4)
    module, again = trained(run, 8, run.last)
    assert [row["step"] for row in module.history] == [2, 4, 6, 8]
    for name in ("wall_s", "energy_j", "peak_memory_bytes", "train_flops"):
        values = [row[f"cost/{name}"] for row in module.history]
        assert values == sorted(values) and values[0] > 0, name
    assert all(row["cost/tokens_per_s"] > 0 for row in module.history)
    assert again.usage.train_s > first.usage.train_s
    assert again.predicted_step_memory == first.predicted_step_memory
    old = torch.load(run.last, weights_only=True)
    for key in ("train_s", "untimed_steps", "energy_j", "peak_memory_bytes", "step_memory_bytes"):
        del old[key]
    del old["predicted_step_memory"]
    torch.save(old, run.last)
    assert trained(run, 10, run.last)[0].history[-1]["step"] == 10
