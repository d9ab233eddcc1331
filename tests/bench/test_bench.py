"""The benchmarks measure what they name: peers agree, ratios are ratios. Speed itself is not tested."""

import json
from pathlib import Path

import pytest
import torch

from sleep_lightning.bench.operator import Shape, bench_operator, peers
from sleep_lightning.bench.step import Setting, our_step, shelf_step
from sleep_lightning.bench.timing import interleave, ratio
from sleep_lightning.commands.bench import BENCHES, bench, check


def test_interleaved_ratio() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b"] * 3
    assert len(times["a"]) == len(times["b"]) == 3
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0


def test_operator_peers_compute_the_same_gradients() -> None:
    rows = list(bench_operator(0, (Shape(2, 24, 2, 8, 8),)))
    names = {str(row["contender"]) for row in rows}
    assert {"chunked (ours)", *peers(24)} <= names
    assert len(peers(24)) == 5
    assert all(float(str(row["gradient_difference"])) < 1e-3 for row in rows)


def test_shelf_and_ours_are_the_same_step() -> None:
    setting = Setting(2, batch=2, strings=2, d_model=32)
    experiment = setting.experiment()
    batch = experiment.task.build().batch(2, seed=0, position=0)
    ours, shelf = our_step(experiment, batch), shelf_step(experiment, batch)
    torch.testing.assert_close(ours(), shelf(), rtol=1e-4, atol=1e-4)


def test_command_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(BENCHES, "operator", lambda s: bench_operator(s, (Shape(1, 4, 1, 4, 4),)))
    assert bench(["operator"], 0.01, str(tmp_path / "b.json")) == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["rows"]
    assert content["environment"]["threads"]
    assert "fla naive chunk" in capsys.readouterr().out


def test_unknown_bench_is_refused() -> None:
    with pytest.raises(ValueError, match="bench 'speed' is unknown; use one of operator, step"):
        check(["speed"], 1)
    with pytest.raises(ValueError, match="--seconds 0"):
        check([], 0)
