"""fit from the outside: results, resuming to the bit, signals, kill -9, MLflow."""

import json
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.frontier import Point
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.trial import curve_of
from tests.cli.cli import fit_arguments, run, start

pytestmark = pytest.mark.process

STEPS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    cwd = tmp_path_factory.mktemp("whole")
    done = run(cwd, *fit_arguments("run", STEPS))
    assert done.returncode == 0, done.stderr
    (cwd / "output").write_text(done.stdout + done.stderr)
    return cwd


def checkpoint(cwd: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(cwd / "run" / "checkpoints" / f"{name}.ckpt", weights_only=True)  # type: ignore[no-any-return]


def assert_same(a: Any, b: Any, where: str = "") -> None:
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{i}]")
    else:
        assert a == b, where


def assert_same_training(one: Path, other: Path) -> None:
    a, b = checkpoint(one), checkpoint(other)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "rng", "global_step", "TaskDataModule"):
        assert_same(a[key], b[key], key)


def mlflow_run(cwd: Path) -> Any:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{cwd}/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "sleep_lightning"]
    [found] = client.search_runs([experiment.experiment_id])
    return client, found


def test_leaves_what_it_promises(whole: Path) -> None:
    summary = json.loads((whole / "run" / "summary.json").read_text())
    assert summary["status"] == "FINISHED"
    assert summary["steps"] == STEPS
    assert summary["tokens"] == STEPS * 8 * 14
    assert 0 <= summary["exact_match"] <= 1
    assert (summary["answers"], f"± {summary['exact_match_se']:.3f}" in (whole / "output").read_text()) == (64, True)
    assert summary["uniform_baseline"] == 0.25
    assert 0.25 < summary["majority_baseline"] < 0.6
    assert summary["train_flops"] > 1e6
    assert summary["wall_s"] > 0
    measured, expected = summary["measured"], summary["predicted"]
    assert measured["tokens_per_s"] > summary["tokens"] / summary["wall_s"]  # training alone, not imports
    assert measured["peak_memory_bytes"] > measured["step_memory_bytes"] > 1e6
    assert measured["energy_j"] is None or measured["energy_j"] > 0
    assert expected["train_flops"] == summary["train_flops"] and expected["step_memory_bytes"] > 1e5
    assert summary["state_bytes"] and all(n > 0 for n in summary["state_bytes"])
    assert (whole / summary["checkpoint"]).exists()
    assert (whole / "run" / "learning_curve.png").stat().st_size > 5000
    output = (whole / "output").read_text()
    for text in (
        "majority",
        "uniform",
        "tokens/s in training, peak memory",
        "FLOP",
        "B a sequence, in",
        "python -m sleep_lightning test --checkpoint run",
        "mlflow",
    ):
        assert text in output


def test_the_run_is_in_mlflow(whole: Path) -> None:
    client, found = mlflow_run(whole)
    summary = json.loads((whole / "run" / "summary.json").read_text())
    assert found.info.run_id == summary["mlflow_run_id"]
    assert found.info.status == "FINISHED"
    assert found.data.params["sleep.n_passes"] == "2"
    assert found.data.metrics["val/exact_match"] == summary["exact_match"] == summary["metrics"]["val/exact_match"]
    assert found.data.metrics["val/exact_match_se"] == summary["exact_match_se"]
    assert found.data.tags["environment.gated_delta_rule"] in ("chunked", "native")
    assert len(client.get_metric_history(found.info.run_id, "train/loss")) == STEPS
    for name in ("val/exact_match", "val/majority_exact_match", "val/uniform_exact_match", "cost/train_flops"):
        assert len(client.get_metric_history(found.info.run_id, name)) >= STEPS // 5
    for name in ("wall_s", "tokens_per_s", "peak_memory_bytes", "step_memory_bytes"):
        history = client.get_metric_history(found.info.run_id, f"cost/{name}")
        assert {m.step for m in history} == {5, 10, 15, 20}
        assert found.data.metrics[f"cost/{name}"] == pytest.approx(summary["measured"][name], rel=0.5)
    assert found.data.metrics["cost/predicted_step_memory_bytes"] == summary["predicted"]["step_memory_bytes"]
    assert ("cost/energy_j" in found.data.metrics) == (summary["measured"]["energy_j"] is not None)
    assert found.data.tags["environment.energy"]
    for n in (1, 2):
        assert found.data.metrics[f"sleep/memory_change/pass_{n}"] > 0
        assert found.data.metrics[f"sleep/memory_grad_norm/pass_{n}"] > 0
    artifacts = {a.path for a in client.list_artifacts(found.info.run_id)}
    assert artifacts == {"config.yaml", "summary.json", "learning_curve.png", "console.log", "checkpoints"}
    assert [a.path for a in client.list_artifacts(found.info.run_id, "checkpoints")] == ["checkpoints/best.ckpt"]


def test_mlflow_s_own_fields_are_filled(whole: Path) -> None:
    client, found = mlflow_run(whole)
    tags = found.data.tags
    assert tags["mlflow.source.name"] == "sleep-lightning fit" and tags["mlflow.user"]
    commit = tags["environment.git_commit"]
    assert commit == "unknown" or tags["mlflow.source.git.commit"] == commit.removesuffix("-dirty")
    assert client.get_experiment(found.info.experiment_id).tags["mlflow.experimentKind"] == "custom_model_development"
    datasets = {one.tags[0].value: one.dataset for one in found.inputs.dataset_inputs}
    assert datasets.keys() == {"training", "validation"}
    assert datasets["training"].name == "rule110" and datasets["training"].digest != datasets["validation"].digest
    assert json.loads(datasets["validation"].profile)["num_rows"] == 64


def test_nothing_is_logged_twice_and_no_chart_is_a_point(whole: Path) -> None:
    client, found = mlflow_run(whole)
    metrics = found.data.metrics
    assert "system/cpu_utilization_percentage" in metrics
    for name in metrics:
        steps = [m.step for m in client.get_metric_history(found.info.run_id, name)]
        assert len(steps) == len(set(steps)) > 1, name


def test_what_was_printed_is_kept(whole: Path) -> None:
    log, output = (whole / "run" / "console.log").read_text(), (whole / "output").read_text()
    assert "python -m sleep_lightning test --checkpoint run" in log
    assert "\x1b" not in log and log.count("exact match") >= output.count("exact match") > 0


def test_sigterm_saves_is_marked_killed_and_resumes_to_the_bit(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *fit_arguments("run", STEPS, "training.val_every=3", "training.checkpoint_every=1000"))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step 3:"):
            assert json.loads((tmp_path / "run" / "latest_step.json").read_text())["step"] >= 1
            process.send_signal(signal.SIGTERM)
            break
    rest = process.stdout.read()
    assert process.wait(120) == 128 + signal.SIGTERM, rest
    assert "--resume run" in rest
    killed = mlflow_run(tmp_path)[1]
    assert killed.info.status == "KILLED" and "cost/train_flops" in killed.data.metrics
    assert not [name for name in killed.data.metrics if name.startswith("final/")], "it is comparable with none"
    assert not (tmp_path / "run" / "latest_step.json").exists()
    stopped_at = checkpoint(tmp_path)["global_step"]
    assert 3 <= stopped_at < STEPS
    done = run(tmp_path, "fit", "--resume", "run", "training.val_every=5")
    assert done.returncode == 0, done.stderr
    assert_same_training(whole, tmp_path)
    client, found = mlflow_run(tmp_path)  # the same run, and only one
    assert found.info.status == "FINISHED"
    steps = [m.step for m in client.get_metric_history(found.info.run_id, "train/loss")]
    assert sorted(steps) == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_kill_9_loses_only_the_work_since_the_last_checkpoint(whole: Path, tmp_path: Path) -> None:
    process = start(tmp_path, *fit_arguments("run", STEPS))
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.wait(30)
    assert checkpoint(tmp_path)["global_step"] >= 5
    done = run(tmp_path, "fit", "--resume", "run")
    assert done.returncode == 0, done.stderr
    assert_same_training(whole, tmp_path)
    assert mlflow_run(tmp_path)[1].info.status == "FINISHED"


@pytest.mark.process
def test_the_last_step_may_be_the_best(tmp_path: Path) -> None:
    """Though ``val_every`` leaves it out. Ranks save together; a longer run resumes from both checkpoints."""
    keys = ["training.muon_lr=0.003", "training.adamw_lr=0.003", "tracking.enabled=false"]
    done = run(tmp_path, *fit_arguments("run", 7, *keys))
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    validated = [row["loss"] for row in checkpoint(tmp_path)["history"]]
    assert summary["loss"] < min(validated) and summary["exact_match"] == 0.0
    best = checkpoint(tmp_path, "best")
    assert best["global_step"] == 7
    assert_same(best["state_dict"], checkpoint(tmp_path)["state_dict"])
    done = run(tmp_path, "fit", "--resume", "run", "training.max_steps=10")
    assert done.returncode == 0 and "best" not in done.stderr, done.stderr
    assert checkpoint(tmp_path, "best")["global_step"] == 10


def test_validate_test_and_predict_read_the_run(whole: Path, tmp_path: Path) -> None:
    summary = json.loads((whole / "run" / "summary.json").read_text())
    last = summary["checkpoint"]
    done = run(whole, "validate", "--checkpoint", last, "--output", str(tmp_path / "v.json"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "v.json").read_text())["slices"]["all"]["exact_match"] == summary["exact_match"]
    done = run(whole, "test", "--checkpoint", "run", "sleep.n_passes=3", "--output", str(tmp_path / "t.json"))
    assert done.returncode == 0, done.stderr
    assert "test, N=3" in done.stdout
    done = run(whole, "predict", "--checkpoint", "run", "--rows", "3")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(r["answer"]) for r in rows] == [2, 2, 2]
    assert all(r["exact_match"] == (r["answer"] == r["label"]) for r in rows)


def test_a_checkpoint_of_another_run_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(whole / "run", tmp_path / "run")
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace("n_strings: ", "n_strings: 1"))
    assert main(["test", "--checkpoint", str(tmp_path / "run")]) == 2
    assert "best.ckpt is of another run (task is not that of " in capsys.readouterr().err
    assert main(["test", "--checkpoint", str(tmp_path / "run" / "checkpoints" / "last.ckpt")]) == 0
    assert "test, N=2, " in (out := capsys.readouterr().out) and "last.ckpt" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "model.d_modle=3"], "did you mean model.d_model?"),
        (["fit", "--config", "none.yaml"], "--config none.yaml: No such file or directory"),
        (["fit", "training.accelerator=cuda"], "training.accelerator='cuda'"),
        (["fit", "model.backend=fast"], "model.backend='fast' is unknown"),
        (["fit", "--resume", "nowhere"], "nowhere is not a run directory"),
        (["fit", "--resume"], "there is no run under runs/"),
        (
            ["fit", "tracking.uri=sqlite:////dev/null/x.db"],
            "tracking.uri='sqlite:////dev/null/x.db' cannot be used",
        ),
        (["test", "--checkpoint", "nothing.ckpt"], "--checkpoint nothing.ckpt does not exist"),
        (["test", "--checkpoint", "junk.ckpt"], "junk.ckpt is damaged (File is not a zip file)"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    if torch.cuda.is_available() and "cuda" in arguments[-1]:
        pytest.skip("there is a CUDA device")
    (tmp_path / "junk.ckpt").write_bytes(b"junk")
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if "INFO" not in text]
    assert line.startswith("error: ")
    assert message in line
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").rglob("*.ckpt"))


def test_resuming_a_finished_run_reports_it_again(whole: Path) -> None:
    before = json.loads((whole / "run" / "summary.json").read_text())
    done = run(whole, "fit", "--resume", "run")
    assert done.returncode == 0, done.stderr
    after = json.loads((whole / "run" / "summary.json").read_text())
    assert (after["steps"], after["exact_match"]) == (before["steps"], before["exact_match"])
    steps = before["steps"]
    assert f"nothing left to train: {steps} of {steps} steps are done; more with training.max_steps=" in done.stdout


def test_a_refused_run_leaves_its_directory_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(fit_arguments("run", 1, "tracking.uri=sqlite:////dev/null/x.db")) == 2
        assert "tracking.uri=" in capsys.readouterr().err


def test_training_that_diverges_ends_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(fit_arguments("run", STEPS, "training.muon_lr=1e30", "training.log_every=3")) == os.EX_DATAERR
    [line] = [text for text in capsys.readouterr().err.splitlines() if "diverged" in text]
    assert line.startswith("error: training diverged: the training loss is nan at step 3; try a lower training.muon_lr")
    assert not (tmp_path / "run" / "summary.json").exists()
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert mlflow_run(tmp_path)[1].info.status == "FAILED"


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        ("early_stopping, init_args: {monitor: val/los}", "error: training.callbacks: Early stopping conditioned on"),
        (
            "model_checkpoint, init_args: {monitor: val/los, dirpath: best}",
            "error: Lightning: `ModelCheckpoint(monitor=",
        ),
    ],
)
def test_a_metric_that_nobody_logs_is_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], callback: str, message: str
) -> None:
    monitors = f"training.callbacks=[{{class_path: {callback}}}]"
    arguments = fit_arguments(str(tmp_path / "run"), 2, "training.val_every=1", "tracking.enabled=false", monitors)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and "val/loss" in error and "Traceback" not in error


def test_a_sweep_reads_the_curve_of_a_run(whole: Path) -> None:
    run = RunDirectory(whole / "run")
    curve = curve_of(FitProcess(load_experiment(run.config), run))
    summary = json.loads(run.summary.read_text())
    assert len(curve) == STEPS // 5
    assert curve[-1] == Point(summary["train_flops"], summary["exact_match"])


def test_a_run_directory_is_not_overwritten(whole: Path) -> None:
    done = run(whole, *fit_arguments("run", STEPS))
    assert done.returncode == 2
    assert "fit --resume run" in done.stderr


def test_overrides_that_do_not_fit_the_weights_are_refused(whole: Path) -> None:
    done = run(whole, "test", "--checkpoint", "run", "model.d_model=32")
    assert done.returncode == 2
    assert done.stderr == (
        "error: model.d_model=32 does not fit --checkpoint run, which was trained with model.d_model=16; drop it\n"
    )
