"""``fit``: train, validate, record, and say where everything lies."""

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.cli.console import print_facts, score_table
from sleep_lightning.cli.fit_report import facts_of, flat_params, headline, log_results, summarize
from sleep_lightning.config import Experiment, load_experiment
from sleep_lightning.runs.directory import RunDirectory, load_checkpoint, write_json
from sleep_lightning.tracking.figures.runs import draw_learning_curve
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.training.callbacks.history import RecordHistory
from sleep_lightning.training.callbacks.preemption import SaveOnException, StopOnSignal, StopReason
from sleep_lightning.training.callbacks.progress_bar import RichProgress
from sleep_lightning.training.callbacks.time_limit import requeue, stop_time, was_requeued
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.distributed.launch import OtherRanks
from sleep_lightning.training.distributed.ranks import Ranks
from sleep_lightning.training.errors import remedy
from sleep_lightning.training.metrics import Score
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.runtime.environment import check_device, describe_environment
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul
from sleep_lightning.training.trainer import build_trainer, quiet_lightning


@dataclass(frozen=True)
class Job:
    """A checked request to train.

    Attributes:
        experiment: what.
        ranks: who.
        run: where it goes; None in all ranks but the first, which alone writes.
        resume: whether it goes on.
        logger: its MLflow run.
        lock: holds the directory against other processes.
        arguments: of the command line of the other ranks.
    """

    experiment: Experiment
    ranks: Ranks
    run: RunDirectory | None = None
    resume: bool = False
    logger: MLflowRun | None = None
    lock: IO[str] | None = None
    arguments: tuple[str, ...] = ()


def prepare(config: str | None, overrides: list[str], resume: str | None) -> Job:
    """All that can go wrong before any compute.

    Args:
        config: YAML file.
        overrides: ``key=value`` arguments.
        resume: run directory to go on with; "" for the newest; None for a new run.

    Raises:
        ValueError: bad input.
    """
    if resume is None:
        experiment, ranks = _checked(load_experiment(config, overrides))
        run_dir = experiment.training.run_dir
        if run_dir is not None and was_requeued(experiment.training) and RunDirectory(Path(run_dir)).config.exists():
            return prepare(None, overrides, run_dir)
        if not ranks.first:
            return Job(experiment, ranks)
        run = RunDirectory.create(experiment)
        lock = run.lock()
        logger = open_tracking(experiment, run)
        run.record_experiment(experiment)  # last: what was refused before may be tried again in the same place
        source = [] if config is None else ["--config", config]
        return Job(experiment, ranks, run, False, logger, lock, ("fit", *source, *overrides))
    if config is not None:
        raise ValueError(
            f"--config {config} with --resume: a run goes on with its own config.yaml; drop one of the two"
        )
    run = RunDirectory.open(resume) if resume else RunDirectory.newest()
    experiment, ranks = _checked(load_experiment(run.config, overrides))
    if not ranks.first:
        return Job(experiment, ranks)
    lock = run.lock()
    if experiment.tracking.enabled and "***" in experiment.tracking.uri:
        raise ValueError(f"tracking.uri={experiment.tracking.uri!r} was saved without its password; give it again")
    if run.last.exists():
        load_checkpoint(run.last)
    arguments = ("fit", "--resume", str(run.path), *overrides)
    return Job(experiment, ranks, run, True, open_tracking(experiment, run), lock, arguments)


def _checked(experiment: Experiment) -> tuple[Experiment, Ranks]:
    check_device(experiment)
    return experiment, Ranks.of(experiment.training)


@dataclass
class _Ending:
    """How a run ends, as far as it is known; ``reason`` if it is stopped early."""

    status: Status = "FAILED"
    exit_code: int = 1
    reason: StopReason | None = None


def fit(job: Job) -> int:
    """Train. Returns the exit code: 0; a ``StopReason`` if the run was stopped and can be resumed (0 in all ranks but
    the first: srun may kill it, as it writes, when another fails); 1 if it diverged, memory ran out or another rank was
    lost."""
    quiet_lightning()
    ending = _Ending()

    def close() -> None:
        if job.logger is not None:
            job.logger.end(ending.status)

    try:
        with (
            OtherRanks(job.ranks, job.arguments, lost=close),
            job.ranks.connected(check_device(job.experiment).type),
        ):
            _train(job, ending)
    except (KeyboardInterrupt, SystemExit):  # Lightning turns a second Ctrl-C into SystemExit
        ending.status, ending.exit_code = "KILLED", StopReason.SIGINT
        if job.run is not None:
            directory = shlex.quote(str(job.run.path))
            Console().print(f"stopped at once; go on with: python -m sleep_lightning fit --resume {directory}")
    except Exception as error:
        if (sentence := remedy(error)) is None:
            raise
        if job.ranks.first:
            Console(stderr=True).print(f"error: {sentence}", highlight=False, soft_wrap=True, markup=False)
    finally:
        close()
    if job.ranks.first and (done := requeue(job.experiment.training, ending.reason)) is not None:
        Console(stderr=True).print(done, highlight=False, soft_wrap=True, markup=False)
    return ending.exit_code if job.ranks.first or ending.reason is None else 0


def _train(job: Job, ending: _Ending) -> None:
    """What all ranks do in step. The first one also writes and prints."""
    experiment, ranks, logger = job.experiment, job.ranks, job.logger
    run, checkpoint = _told(job)
    stop = StopOnSignal(run.last, stop_time(experiment.training), announces=ranks.first)
    callbacks: list[pl.Callback] = [stop]
    if ranks.first:
        callbacks = [RichProgress(), stop, RecordHistory(run.history)]
        if experiment.training.sharding == "none":  # shards are saved by all ranks, and the others know nothing
            callbacks.append(SaveOnException(run.checkpoints / "exception.ckpt"))
    trainer = build_trainer(experiment, run, logger, callbacks, ranks)
    pl.seed_everything(experiment.training.seed, verbose=False)
    module, data = SleepModule(experiment, ranks), TaskDataModule(experiment)
    environment = describe_environment(trainer.strategy.root_device, experiment.model)
    environment["allocator"] = tune_allocator(experiment.training.allocator)
    environment["fp32_matmul"] = choose_fp32_matmul(experiment.training.fp32_matmul)
    environment["ranks"] = f"{ranks.size} ({ranks.local_size} a node)"
    console = Console(quiet=not ranks.first)
    console.print(f"run {run.path}: {headline(experiment, module)}", highlight=False, soft_wrap=True)
    if logger is not None:
        logger.log_hyperparams(flat_params(experiment))
        logger.set_tags({f"environment.{name}": value for name, value in environment.items()})
        logger.log_artifact(run.config)
    trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    if stop.reason is None:
        trainer.save_checkpoint(run.last)
    environment["energy"] = module.usage.energy_sources or "not told"
    scores = final_scores(trainer, module, data)
    ending.status = "FINISHED" if stop.reason is None else "KILLED"
    ending.exit_code, ending.reason = stop.reason or 0, stop.reason
    if not ranks.first:
        return
    summary = summarize(experiment, run, module, ending.status, environment, logger)
    write_json(run.summary, summary)
    if module.history:
        draw_learning_curve(module.history, run.path / "learning_curve.png", headline(experiment, module))
    if logger is not None:
        log_results(logger, run, module, summary)
    console.print(score_table(scores, f"validation at step {module.steps}"))
    print_facts(console, facts_of(experiment, run, summary))


def _told(job: Job) -> tuple[RunDirectory, Path | None]:
    """The directory and the checkpoint to go on from, which the first rank has chosen.

    Raises:
        ValueError: this rank was started with another experiment.
    """
    own = {name: section for name, section in job.experiment.to_dict().items() if name != "tracking"}
    del own["training"]["search_path"]
    mine = None
    if job.run is not None:
        mine = (job.run, job.run.last if job.resume and job.run.last.exists() else None, own)
    told = job.ranks.told_by_first(mine)
    assert told is not None
    if told[2] != own:
        raise ValueError(f"rank {job.ranks.rank} was started with another experiment than the first; start all alike")
    return told[0], told[1]


def open_tracking(experiment: Experiment, run: RunDirectory) -> MLflowRun | None:
    """The MLflow run of a run directory, begun or continued. Raises ValueError if the store cannot be used."""
    t = experiment.tracking
    if not t.enabled:
        return None
    name = t.run_name or run.path.name
    logger = MLflowRun(t.uri, t.experiment, name, run.mlflow_run_id, t.flush_seconds, run.path / "metrics_unsent.jsonl")
    run.record_mlflow_run(logger.run_id)
    if t.parent_run_id is not None:
        logger.set_tags({"mlflow.parentRunId": t.parent_run_id})
    return logger


def final_scores(trainer: pl.Trainer, module: SleepModule, data: TaskDataModule) -> dict[str, Score]:
    """Validation scores of the final weights, whatever step the last validation was at."""
    if not module.scores or module.history[-1]["step"] != module.steps:
        trainer.validate(module, datamodule=data, verbose=False)
    return dict(module.scores)
