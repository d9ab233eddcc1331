"""``fit``: train, validate, record, and say where everything lies."""

import os
import shlex
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger

from sleep_lightning.cli.console import plain_console, print_facts, say, score_table, time_line
from sleep_lightning.cli.console_log import copied_output
from sleep_lightning.cli.fit_report import facts_of, headline, log_results, summarize
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.config.pretrained_model import check_weights
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.runs.checkpoint import RESUME, instead_of
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json
from sleep_lightning.runs.infrastructure import Cause
from sleep_lightning.runs.resume import changes, check_same_kind, checkpoint_to_resume, record_session
from sleep_lightning.runs.signals import SignalsInterrupt, StopReason
from sleep_lightning.tracking.datasets import datasets_of
from sleep_lightning.tracking.figures.runs import draw_learning_curve
from sleep_lightning.tracking.loggers import build_loggers, open_mlflow, written_names
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.tracking.mlflow_run import commit_tags
from sleep_lightning.training.callbacks.agreement import SameExperiment
from sleep_lightning.training.callbacks.checkpoints import keep_if_best
from sleep_lightning.training.callbacks.exception_checkpoint import SaveOnException
from sleep_lightning.training.callbacks.history import History
from sleep_lightning.training.callbacks.latest_step import LatestStep
from sleep_lightning.training.callbacks.pass_diagnostics import PassDiagnostics
from sleep_lightning.training.callbacks.preemption import Preemption, requeue, stop_time, was_requeued
from sleep_lightning.training.callbacks.progress_bar import SleepProgressBar
from sleep_lightning.training.callbacks.resource_monitor import ResourceMonitor
from sleep_lightning.training.callbacks.system_metrics import SystemMetrics
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.launcher import RankLauncher
from sleep_lightning.training.distributed.place import Place
from sleep_lightning.training.errors import exit_code, is_of_restore, remedy
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.rate import keep_rate, known_rate
from sleep_lightning.training.runtime.environment import check_device, describe_environment
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul
from sleep_lightning.training.runtime.memory import check_step
from sleep_lightning.training.trainer import build_trainer, plugged_callbacks, quiet_lightning, validate_final_weights


@dataclass(frozen=True)
class Job:
    """A checked request to train.

    Attributes:
        experiment: what is trained.
        place: this process among the ranks.
        run: where it goes; None in the other ranks of a new run, as rank zero alone creates it.
        checkpoint: to resume from; None: from the start.
        step: of the checkpoint.
        changes: what a resume changes: key -> value before, value now.
        mlflow: its MLflow run; None without, and in the other ranks.
        loggers: all loggers of this process, MLflow's included.
        lock: holds the directory against other processes.
    """

    experiment: Experiment
    place: Place
    run: RunDirectory | None = None
    checkpoint: Path | None = None
    step: int = 0
    changes: dict[str, tuple[Any, Any]] = field(default_factory=dict)
    mlflow: MLflowRun | None = None
    loggers: list[Logger] = field(default_factory=list)
    lock: IO[str] | None = None


def prepare(config: str | None, overrides: list[str], resume: str | None) -> Job:
    """All that can go wrong before any compute.

    Args:
        config: YAML file.
        overrides: ``key=value`` arguments.
        resume: run directory to resume; "" for the newest; None for a new run.

    Raises:
        ValueError: bad input.
    """
    if resume is None:
        experiment, place = _checked(load_experiment(config, overrides))
        check_weights(experiment)
        run_dir = experiment.training.run_dir
        if run_dir is not None and was_requeued(experiment.training) and RunDirectory(Path(run_dir)).config.exists():
            return prepare(None, overrides, run_dir)
        if not place.first:
            return Job(experiment, place)
        run, lock = RunDirectory.create(experiment)
        try:
            return _tracked(Job(experiment, place, run, lock=lock))
        except BaseException:
            if run_dir is None:  # nobody else has its name
                run.discard()
            raise
    if config is not None:
        raise ValueError(
            f"--config {config} with --resume: a run resumes with its own config.yaml; drop one of the two"
        )
    run = RunDirectory.open(resume) if resume else RunDirectory.newest()
    moved = [change for change in overrides if change.startswith("training.search_path=")]  # a plug-in's new place
    saved = run.load_config(moved)
    check_same_kind(saved.to_dict(), overrides, str(run.path))
    experiment, place = _checked(run.load_config(overrides))
    changed = changes(saved, experiment)
    if not place.first:  # rank zero looks into the checkpoint for all
        return Job(experiment, place, run, run.last if os.path.exists(run.last) else None)
    lock = run.lock()
    checkpoint, step = checkpoint_to_resume(run, saved, experiment.training.max_steps)
    experiment.check_tracking()
    return _tracked(Job(experiment, place, run, checkpoint, step, changed, lock=lock))


def _tracked(job: Job) -> Job:
    """With its loggers, and the experiment on disk: last, as what was refused before may be tried again there."""
    run = job.run
    assert run is not None
    mlflow = open_tracking(job.experiment, run)
    try:
        loggers = build_loggers(job.experiment, run, mlflow)
        run.record_experiment(job.experiment)
    except BaseException:
        if mlflow is not None:
            mlflow.end("FAILED")
        raise
    return replace(job, mlflow=mlflow, loggers=loggers)


def _checked(experiment: Experiment) -> tuple[Experiment, Place]:
    check_step(experiment, check_device(experiment))
    experiment = experiment.pinned()
    return experiment, Place.of(experiment.training)


@dataclass
class _Ending:
    """How a run ends, as far as it is known; ``reason`` if it is stopped early; ``ranks``: of this node."""

    status: Status = "FAILED"
    exit_code: int = 1
    reason: StopReason | None = None
    ranks: RankLauncher | None = None


def fit(job: Job) -> int:
    """Train. Returns the exit code: 0; a ``StopReason`` if the run was stopped and can be resumed (0 in all ranks but
    rank zero: srun may kill it, as it writes, when another fails); 2 if a plug-in cannot be built or used; 65 if it
    diverged; that of a ``Cause`` if the machine had no space or memory, or lost a rank or a service."""
    quiet_lightning()
    ending = _Ending()
    console_log = job.run.console if job.run is not None and job.place.first else None
    with SignalsInterrupt() as signals, copied_output(console_log):
        try:
            _train(job, ending)
        except (KeyboardInterrupt, SystemExit):  # Lightning turns a KeyboardInterrupt into SystemExit
            ending.status, ending.exit_code = "KILLED", signals.exit_code
            if job.run is not None:
                directory = shlex.quote(str(job.run.path))
                print(
                    f"stopped at once; resume with: python -m sleep_lightning fit --resume {directory}", file=sys.stderr
                )
        except Exception as error:
            if (sentence := remedy(error)) is None:
                if (file := job.checkpoint) is not None and is_of_restore(error):
                    if not job.place.first:  # rank zero says it: a failure here might end it before
                        return 0
                    raise DamagedFile(file, f"{type(error).__name__}: {error}", instead_of(file, RESUME)) from error
                raise
            ending.exit_code = exit_code(error)
            if ending.exit_code == Cause.NODE and ending.ranks is not None:
                ending.exit_code = ending.ranks.exit_code(Cause.NODE)
            if job.place.first:
                say(plain_console(stderr=True), f"error: {sentence}")
        finally:
            with signals.held():
                _close(job, ending)
            if job.lock is not None:
                job.lock.close()
    if job.place.first and (done := requeue(job.experiment.training, ending.reason)) is not None:
        say(plain_console(stderr=True), done)
    return ending.exit_code if job.place.first or ending.reason is None else 0


def _close(job: Job, ending: _Ending) -> None:
    if job.mlflow is not None:
        if job.run is not None and job.run.console.exists():
            job.mlflow.log_artifact(job.run.console)
        job.mlflow.end(ending.status)


def _train(job: Job, ending: _Ending) -> None:
    """What all ranks do in step. Rank zero also writes and prints."""
    experiment, place, run, mlflow = job.experiment, job.place, job.run, job.mlflow
    monitor, stop = ResourceMonitor(), Preemption(deadline=stop_time(experiment.training))
    history = History(None if run is None else run.history)
    callbacks: list[pl.Callback] = [monitor, SleepProgressBar(), SameExperiment(), PassDiagnostics(), history]
    callbacks.append(LatestStep(None if run is None else run.latest_step))
    callbacks += [*plugged_callbacks(experiment), stop]
    if job.loggers and experiment.tracking.system_metrics:
        callbacks.append(SystemMetrics())
    if run is not None and experiment.training.sharding == "none":  # shards are saved by all ranks, or not at all
        callbacks.append(SaveOnException(run.checkpoints / "exception.ckpt"))
    trainer = build_trainer(experiment, run, job.loggers, callbacks, saves=True)
    launcher = trainer.strategy.launcher
    if isinstance(launcher, RankLauncher):
        ending.ranks = launcher
        launcher.on_lost = lambda: _close(job, ending)
    pl.seed_everything(experiment.training.seed, verbose=False)
    module, data = SleepModule(experiment), TaskDataModule(experiment)
    environment = describe_environment(trainer.strategy.root_device, experiment.model)
    environment["allocator"] = tune_allocator(experiment.training.allocator)
    environment["fp32_matmul"] = choose_fp32_matmul(experiment.training.fp32_matmul)
    environment["ranks"] = f"{place.size} ({place.local_size} a node)"
    console = plain_console(quiet=not place.first)
    if run is not None:
        differing = record_session(run, job.step, experiment.training.max_steps, job.changes, environment)
        if differing and job.checkpoint is not None:
            say(console, f"not bit-exact from here on: {'; '.join(differing)}")
        say(console, f"run {run.path}: {headline(experiment, module)}")
        if job.step >= (end := experiment.training.max_steps):
            left = f"nothing left to train: {job.step} of {end} steps are done; more with training.max_steps="
            say(console, left)
        elif (rate := known_rate(experiment)) is not None:
            flops = StepFlops(experiment, module.model).run() * (1 - job.step / end)
            say(console, f"time: {time_line(flops, rate)}")
        if mlflow is not None:
            mlflow.set_tags(commit_tags(environment["git_commit"]))
            mlflow.set_tags({f"environment.{name}": value for name, value in environment.items()})
            mlflow.set_tags({f"resume.{key}": f"{old} -> {new}" for key, (old, new) in job.changes.items()})
            for context, dataset in datasets_of(experiment, data.task).items():
                mlflow.log_dataset(dataset, context)
            mlflow.log_artifact(run.config)
    trainer.fit(module, datamodule=data, ckpt_path=job.checkpoint, weights_only=True)
    logged = last_logged(trainer)
    environment["energy"] = monitor.usage.energy_sources or "not reported"
    if validate_final_weights(trainer, module, data):
        monitor.log_all(trainer)
    if stop.reason is None:  # else it is resumed, and validates when it would have
        history.add_last(trainer, module)
        keep_if_best(trainer)
    logged |= last_logged(trainer) | monitor.cost_so_far() | monitor.measured_so_far()
    if isinstance(launcher, RankLauncher):
        launcher.end_ranks()
    ending.status = "FINISHED" if stop.reason is None else "KILLED"
    ending.exit_code, ending.reason = stop.reason or 0, stop.reason
    if not place.first or run is None:
        return
    summary = summarize(experiment, run, module, monitor, history.digests, ending.status, environment, mlflow, logged)
    keep_rate(experiment, summary)
    if module.history:
        draw_learning_curve(module.history, run.path / "learning_curve.png", headline(experiment, module))
    with nullcontext() if mlflow is None else mlflow.held():  # summary.json says that all of this is done
        if mlflow is not None:
            log_results(mlflow, run, experiment, summary)
            mlflow.finish(ending.status)
        write_json(run.summary, summary)
    console.print(score_table(module.scores, f"validation at step {module.steps}"))
    print_facts(console, facts_of(experiment, run, summary, None if mlflow is None else mlflow.runs_page))


def open_tracking(experiment: Experiment, run: RunDirectory) -> MLflowRun | None:
    """The MLflow run of a run directory, new or resumed; a copied directory gets one of its own, with the tag
    ``copied_from``. Raises ValueError if the store cannot be used."""
    t = experiment.tracking
    if not t.mlflow:
        return None
    name = t.run_name or run.path.name
    before, original = run.mlflow_run_id, run.original()
    run_id = before if original is None else None
    logger = open_mlflow(t, run, name, run_id, t.flush_seconds, written_names(experiment))
    if original is not None and before is not None:
        logger.set_tags({"copied_from": before})
    if t.parent_run_id is not None:
        logger.set_tags({"mlflow.parentRunId": t.parent_run_id})
    return logger


def last_logged(trainer: pl.Trainer) -> dict[str, float]:
    """The last value of what the module and the callbacks have logged in a stage."""
    return {name: float(value) for name, value in trainer.callback_metrics.items()}
