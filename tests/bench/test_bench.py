"""The benchmarks measure what they name: peers agree, ratios are ratios. Speed itself is not tested."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.bench.operator import Shape, bench_operator, peers
from sleep_lightning.bench.session import ANSWERING, BREAK_EVEN
from sleep_lightning.bench.step import Setting, baseline_step, bench_step, our_step
from sleep_lightning.bench.worker import Worker
from sleep_lightning.cli import bench as commands
from sleep_lightning.cli.bench import BENCHES, DOING, OF_A_MODEL, bench, check
from sleep_lightning.timing import interleave, ratio


def test_interleaved_ratio() -> None:
    order: list[str] = []
    times = interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=3)
    assert order == ["a", "a", "b", "b"] * 3
    assert len(times["a"]) == len(times["b"]) == 3
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0
    order.clear()
    interleave({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, seconds=0, rounds=2, warm=False)
    assert order == ["a", "a", "b", "b", "a", "b"]


def say(text: str) -> Callable[[], object]:
    return lambda: Path(text).write_text(f"{os.getpid()} {torch.get_num_threads()}")


def fail() -> Callable[[], object]:
    def call() -> None:
        raise SystemExit(7)

    return call


@pytest.mark.process
def test_a_worker_is_a_process_with_our_threads(tmp_path: Path) -> None:
    with Worker(say, str(tmp_path / "said")) as worker:
        worker()
    pid, threads = (tmp_path / "said").read_text().split()
    assert int(pid) != os.getpid()
    assert int(threads) == torch.get_num_threads()


@pytest.mark.process
def test_a_worker_that_dies_is_an_error_and_no_wait() -> None:
    with Worker(fail) as worker, pytest.raises(RuntimeError, match="died with exit code 7"):
        worker()


@pytest.mark.long
def test_operator_peers_compute_the_same_gradients() -> None:
    rows = list(bench_operator(0, (Shape(2, 24, 2, 8, 8),)))
    names = {str(row["contender"]) for row in rows}
    assert {"chunked (ours)", *peers(24)} <= names
    assert len(peers(24)) == 5
    assert all(float(str(row["gradient_difference"])) < 1e-3 for row in rows)


@pytest.mark.long
def test_baseline_and_ours_are_the_same_step() -> None:
    setting = Setting(2, batch=2, strings=2, d_model=32)
    experiment = setting.experiment()
    batch = experiment.task.build().batch(2, seed=0, position=0)
    ours, baseline = our_step(experiment, batch), baseline_step(experiment, batch)
    torch.testing.assert_close(ours(), baseline(), rtol=1e-4, atol=1e-4)


@pytest.mark.process
def test_command_writes_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(BENCHES, "operator", lambda s: bench_operator(s, (Shape(1, 4, 1, 4, 4),)))
    assert bench(["operator"], 0.01, tmp_path / "b.json") == 0
    content = json.loads((tmp_path / "b.json").read_text())
    assert content["rows"]
    assert content["environment"]["threads"]
    said = capsys.readouterr().out
    assert "fla naive chunk" in said
    assert said.index("operator: the memory rules forward and backward") < said.index("fla naive chunk")


def test_tables_come_as_they_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def slow(seconds: float) -> Iterator[dict[str, object]]:
        yield {"what": "first", "contender": "a", "median_ms": 1.0}
        yield {"what": "second", "contender": "b", "median_ms": 2.0}
        assert "first" in capsys.readouterr().out
        yield {"what": "third", "contender": "c", "median_ms": 3.0}

    monkeypatch.setitem(BENCHES, "operator", slow)
    assert bench(["operator"], 0.01, None) == 0
    assert "third" in capsys.readouterr().out


def test_sessions_are_drawn_beside_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def rows(seconds: float) -> Iterator[dict[str, object]]:
        row = {"what": ANSWERING, "shape": "s", "contender": "sleep N=1", "N": 1, "tokens_read": 8}
        yield row | {"answer_p50_ms": 1.0, "sessions_per_gib": 2.0, "token_max_ms": None}
        yield {"what": BREAK_EVEN, "shape": "s", "N": 4, "break_even_by_ms": None, "break_even_by_flops": 8.0}

    monkeypatch.setitem(BENCHES, "session", rows)
    assert bench(["session"], 0.01, tmp_path / "a.json") == 0
    assert (tmp_path / "a_session.png").stat().st_size > 20_000
    said = capsys.readouterr().out
    assert "None" not in said and " - " in said


def test_no_picture_replaces_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "draw_coordinates", lambda rows, file: file.write_text("coordinates"))
    monkeypatch.setattr(commands, "draw_injection", lambda rows, file: file.write_text("injection"))
    monkeypatch.setattr(commands, "injection_table", lambda rows: "")
    for names in (["coordinates", "injection"], ["coordinates"], ["injection"]):
        files = commands._written(tmp_path / "b.json", [{"what": name} for name in names], {})
        assert [file.read_text() for file in files if file.suffix == ".png"] == names


def test_what_every_bench_does_is_said() -> None:
    assert DOING.keys() == BENCHES.keys() | OF_A_MODEL.keys()


def test_unknown_bench_is_refused() -> None:
    with pytest.raises(ValueError, match="bench 'speed' is unknown; use one of operator, step"):
        check(["speed"], 1)
    with pytest.raises(ValueError, match="--seconds 0"):
        check([], 0)


@pytest.mark.slow
def test_contenders_timed_in_turn_are_compared_with_the_baseline_too() -> None:
    setting = Setting(2, batch=2, strings=1, d_model=32, in_turn=True)
    *steps, matmul = bench_step(0.5, (setting,), with_compile=False)
    assert steps[0]["contender"] == "baseline" and len(steps) >= 3
    assert {row["rounds"] for row in steps} == {5}
    assert steps[0]["times_faster_than_baseline"] == 1
    assert matmul["what"] == "large matmul"


@pytest.mark.long
def test_what_is_written_is_in_mlflow_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow import MlflowClient

    row = {"what": "a thing", "shape": "s", "contender": "ours", "ms": 1.5}
    monkeypatch.setitem(BENCHES, "pool", lambda seconds: iter([row]))
    uri, output = f"sqlite:///{tmp_path}/m.db", tmp_path / "b.json"
    monkeypatch.chdir(tmp_path)
    assert main(["bench", "pool", "--output", str(output), "--mlflow", uri]) == 0
    client = MlflowClient(uri)
    [run] = client.search_runs([client.get_experiment_by_name("bench").experiment_id])
    assert (run.info.run_name, run.info.status) == ("pool", "FINISHED") and "torch" in run.data.params
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["b.json"]
    written = Path(client.download_artifacts(run.info.run_id, "b.json", str(tmp_path))).read_text()
    assert json.loads(written)["rows"] == [row]

    def fails(seconds: float) -> Iterator[dict[str, object]]:
        yield row
        raise ZeroDivisionError

    monkeypatch.setitem(BENCHES, "pool", fails)
    with pytest.raises(ZeroDivisionError):
        main(["bench", "pool", "--output", str(output), "--mlflow", uri])
    assert {r.info.status for r in client.search_runs([run.info.experiment_id])} == {"FINISHED", "FAILED"}


def test_mlflow_without_a_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "pool", "--mlflow", "sqlite:///m.db"]) == 2
    assert "--mlflow sqlite:///m.db records the files of --output; give one" in capsys.readouterr().err
