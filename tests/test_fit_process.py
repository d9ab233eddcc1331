"""A run seen from outside, through the files it leaves."""

import json
from pathlib import Path

import pytest

from sleep_lightning.fit_process import FitProcess
from sleep_lightning.run_directory import RunDirectory, write_json
from tests.sweep.sweeps import small_sweep


def test_a_history_is_parsed_only_when_it_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, parsed = FitProcess(small_sweep().base, RunDirectory(tmp_path)), []
    plain = json.loads
    monkeypatch.setattr(json, "loads", lambda text: parsed.append(text) or plain(text))
    assert run.history == [] and run.flops_spent == 0
    for steps in (2, 4):
        rows = [{"step": step, "cost/train_flops": 1e6 * step, "exact_match": 0.1} for step in range(2, steps + 1, 2)]
        write_json(run.directory.history, {"history": rows})
        for _ in range(3):
            assert run.history == rows
            assert run.flops_spent == 1e6 * steps
    assert len(parsed) == 2


def test_a_run_that_saved_upon_sigterm_counts_to_its_last_step(tmp_path: Path) -> None:
    run = FitProcess(small_sweep().base, RunDirectory(tmp_path))
    write_json(run.directory.history, {"history": [{"step": 2, "cost/train_flops": 2e6, "exact_match": 0.1}]})
    write_json(run.directory.summary, {"status": "KILLED", "train_flops": 3_000_000})
    assert run.summary is None
    assert run.flops_spent == 3e6
    write_json(run.directory.history, {"history": [{"step": 4, "cost/train_flops": 4e6, "exact_match": 0.1}]})
    assert run.flops_spent == 4e6, "it went on since"
