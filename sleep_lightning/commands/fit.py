"""``fit``: train, validate, record, and say where everything lies."""

import math
import shlex
from dataclasses import asdict, dataclass
from typing import IO, Any

import lightning.pytorch as pl
from rich.console import Console

from sleep_lightning.commands.report import measured_line, print_facts, score_table
from sleep_lightning.config import Experiment, load_experiment, redact
from sleep_lightning.run_directory import RunDirectory, load_checkpoint, write_json
from sleep_lightning.tracking.figures import draw_learning_curve
from sleep_lightning.tracking.mlflow_logger import MLflowRun, Status
from sleep_lightning.training.allocator import tune_allocator
from sleep_lightning.training.datamodule import TaskDataModule
from sleep_lightning.training.environment import check_device, describe_environment
from sleep_lightning.training.failure import remedy
from sleep_lightning.training.history import RecordHistory
from sleep_lightning.training.interruption import SaveOnException, StopOnSignal
from sleep_lightning.training.matmul import choose_fp32_matmul
from sleep_lightning.training.metrics import Score
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.progress import RichProgress, with_unit
from sleep_lightning.training.resource_usage import MEASURED
from sleep_lightning.training.trainer import build_trainer, quiet_lightning


@dataclass(frozen=True)
class Job:
    """A checked request to train: the experiment, where it goes (held against other processes), whether it goes on, and
    its MLflow run."""

    experiment: Experiment
    run: RunDirectory
    resume: bool
    logger: MLflowRun | None
    lock: IO[str]


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
        experiment = load_experiment(config, overrides)
        check_device(experiment)
        run = RunDirectory.create(experiment)
        lock = run.lock()
        logger = open_tracking(experiment, run)
        run.record_experiment(experiment)  # last: what was refused before may be tried again in the same place
        return Job(experiment, run, False, logger, lock)
    if config is not None:
        raise ValueError(
            f"--config {config} with --resume: a run goes on with its own config.yaml; drop one of the two"
        )
    run = RunDirectory.open(resume) if resume else RunDirectory.newest()
    lock = run.lock()
    experiment = load_experiment(run.config, overrides)
    check_device(experiment)
    if experiment.tracking.enabled and "***" in experiment.tracking.uri:
        raise ValueError(f"tracking.uri={experiment.tracking.uri!r} was saved without its password; give it again")
    if run.last.exists():
        load_checkpoint(run.last)
    return Job(experiment, run, True, open_tracking(experiment, run), lock)


def fit(job: Job) -> int:
    """Train. Returns the exit code: 0; 128 + signal number if a signal ended the run (it can be resumed); 1 if it
    diverged or memory ran out."""
    experiment, run, logger = job.experiment, job.run, job.logger
    console = Console()
    quiet_lightning()
    status: Status = "FAILED"
    stop = StopOnSignal(run.last)
    try:
        trainer = build_trainer(
            experiment,
            run,
            logger,
            [
                RichProgress(),
                stop,
                RecordHistory(run.history),
                SaveOnException(run.checkpoints / "exception.ckpt"),
            ],
        )
        pl.seed_everything(experiment.training.seed, verbose=False)
        module, data = SleepModule(experiment), TaskDataModule(experiment)
        environment = describe_environment(trainer.strategy.root_device, experiment.model)
        environment["allocator"] = tune_allocator(experiment.training.allocator)
        environment["fp32_matmul"] = choose_fp32_matmul(experiment.training.fp32_matmul)
        console.print(f"run {run.path}: {_headline(experiment, module)}", highlight=False, soft_wrap=True)
        if logger is not None:
            logger.log_hyperparams(_flat_params(experiment))
            logger.set_tags({f"environment.{name}": value for name, value in environment.items()})
            logger.log_artifact(run.config)
        checkpoint = run.last if job.resume and run.last.exists() else None
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        if stop.received is None:
            trainer.save_checkpoint(run.last)
        environment["energy"] = module.usage.energy_sources or "not told"
        scores = final_scores(trainer, module, data)
        status = "FINISHED" if stop.received is None else "KILLED"
        summary = _summary(experiment, run, module, status, environment, logger)
        write_json(run.summary, summary)
        if module.history:
            draw_learning_curve(module.history, run.path / "learning_curve.png", _headline(experiment, module))
        if logger is not None:
            _log_results(logger, run, module, summary)
        console.print(score_table(scores, f"validation at step {module.steps}"))
        print_facts(console, _facts(experiment, run, summary))
    except (KeyboardInterrupt, SystemExit):  # Lightning turns a second Ctrl-C into SystemExit
        status = "KILLED"
        console.print(
            f"stopped at once; go on with: python -m sleep_lightning fit --resume {shlex.quote(str(run.path))}"
        )
        return 130
    except Exception as error:
        if (sentence := remedy(error)) is None:
            raise
        Console(stderr=True).print(f"error: {sentence}", highlight=False, soft_wrap=True)
        return 1
    finally:
        if logger is not None:
            logger.end(status)
    return 0 if stop.received is None else 128 + stop.received


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


def _headline(experiment: Experiment, module: SleepModule) -> str:
    s, m = experiment.sleep, experiment.model
    return (
        f"{experiment.task.name}, {m.pattern} d={m.d_model} ({with_unit(sum(p.numel() for p in module.parameters()))} "
        f"parameters), windows of {s.window_size}, N={s.n_passes}"
    )


def _flat_params(experiment: Experiment) -> dict[str, Any]:
    return {f"{section}.{key}": x for section, keys in experiment.to_dict().items() for key, x in keys.items()}


def _summary(
    experiment: Experiment,
    run: RunDirectory,
    module: SleepModule,
    status: Status,
    environment: dict[str, str],
    logger: MLflowRun | None,
) -> dict[str, Any]:
    score = module.scores["all"]
    cost, measured = module.cost_so_far(), module.usage.measured(module.steps, module.step_tokens)
    return {
        "status": status,
        "steps": module.steps,
        "exact_match": score.exact_match,
        "token_accuracy": score.token_accuracy,
        "loss": score.loss,
        "majority_baseline": score.baselines.majority_exact_match,
        "uniform_baseline": score.baselines.uniform_exact_match,
        "majority_token_baseline": score.baselines.majority_token_accuracy,
        "slices": {name: asdict(s) for name, s in module.scores.items()},
        "tokens": int(cost["cost/tokens"]),
        "train_flops": int(cost["cost/train_flops"]),
        "wall_s": round(measured["wall_s"], 2),
        "measured": {name: measured.get(name) for name in MEASURED},
        "predicted": {"train_flops": module.step_flops.run(), "step_memory_bytes": module.predicted_step_memory},
        "checkpoint": str(run.last),
        "best_checkpoint": str(run.best) if run.best.exists() else None,
        "mlflow_run_id": None if logger is None else logger.run_id,
        "state_bytes": module.model.state_bytes(carry_conv_state=experiment.sleep.carry_conv_state),
        "data_digests": module.digests,
        "seed": experiment.training.seed,
        "environment": environment,
    }


def _log_results(logger: MLflowRun, run: RunDirectory, module: SleepModule, summary: dict[str, Any]) -> None:
    for file in (run.summary, run.path / "learning_curve.png"):
        if file.exists():
            logger.log_artifact(file)
    final = {f"final/{name}": value for name, value in module.scores["all"].as_metrics().items()}
    for prefix, kind in (("cost/", "measured"), ("cost/predicted_", "predicted")):
        final |= {f"{prefix}{name}": value for name, value in summary[kind].items() if value is not None}
    if module.train_flops:  # MLflow draws linear axes only
        final["cost/log10_train_flops"] = math.log10(module.train_flops)
    logger.log_metrics(final | module.cost_so_far(), module.steps)
    logger.set_tags({"environment.energy": summary["environment"]["energy"]})


def _facts(experiment: Experiment, run: RunDirectory, summary: dict[str, Any]) -> dict[str, str]:
    directory = shlex.quote(str(run.path))
    facts = {
        "trained": f"{summary['steps']} steps, {with_unit(summary['tokens'])} tokens, "
        f"{with_unit(summary['train_flops'])}FLOP, {summary['wall_s']:.0f} s",
        "measured": measured_line(summary["measured"], summary["predicted"]),
        "checkpoint": summary["checkpoint"],
    }
    if layers := summary["state_bytes"]:
        facts["memory"] = f"{with_unit(sum(layers))}B a sequence, in {len(layers)} layers of {experiment.model.pattern}"
    if (picture := run.path / "learning_curve.png").exists():
        facts["picture"] = str(picture)
    if experiment.tracking.enabled:
        uri = experiment.tracking.uri
        page = f"mlflow server --backend-store-uri {shlex.quote(uri)}" if uri.startswith("sqlite") else redact(uri)
        facts["MLflow"] = f"run {summary['mlflow_run_id']}; see it: {page}"
    if summary["status"] == "KILLED":
        facts["go on"] = f"python -m sleep_lightning fit --resume {directory}"
    else:
        facts["next"] = f"python -m sleep_lightning test --checkpoint {directory}"
    return facts
