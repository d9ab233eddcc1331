"""A sweep whose runs are stand-ins for ``fit``: seconds long, with checkpoints. A script, so that it can be killed.

``stand_in.py supervise FOLDER TRIALS WORKERS [OPTIONS]`` is the supervisor (OPTIONS: more keys of the sweep, as JSON),
``stand_in.py fit RUN_DIR N [SECONDS]`` a run (SECONDS: of a step).
"""

import fcntl
import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

STEPS, EVERY = 6, 2
ANSWERS = 1_000_000
"""Scored in each validation."""


def step_seconds() -> str:
    """As the variable STAND_IN_SECONDS says."""
    return os.environ.get("STAND_IN_SECONDS", "0.02")


def fit(directory: Path, n_passes: float, seconds: float) -> None:
    """Six steps, a checkpoint every second one; every step leaves a line."""
    (directory / "config.yaml").touch()
    with (directory / "gpus").open("a") as file:
        file.write(f"{os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
    lock = (directory / "lock").open("a+")  # as fit does
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit("is being trained by another process") from None
    lock.truncate(0)
    print(os.getpid(), file=lock, flush=True)
    if (directory / "summary.json").exists():
        (directory / "again").touch()
    checkpoint = directory / "last"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    history = (directory / "history.jsonl").read_text().splitlines() if done else []
    for step in range(done + 1, STEPS + 1):
        time.sleep(seconds)
        with (directory / "steps").open("a") as file:
            file.write(f"{step}\n")
        if step % EVERY == 0:
            value = 0.1 * n_passes * step / STEPS
            history = [row for row in history if json.loads(row)["step"] < step]
            row = {"step": step, "cost/train_flops": 1e6 * n_passes * step, "exact_match": value, "answers": ANSWERS}
            history.append(json.dumps(row))
            _write(directory / "history.jsonl", "".join(f"{row}\n" for row in history))
            _write(checkpoint, str(step))
    result = {"exact_match": 0.1 * n_passes, "token_accuracy": 0.5, "loss": 1.0, "wall_s": 1.0}
    result |= {"train_flops": 1e6 * n_passes * STEPS, "status": "FINISHED"}
    _write(directory / "summary.json", json.dumps(result))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def stand_for_fit() -> None:
    """From now on, runs are stand-ins."""
    from sleep_lightning.runs.process import FitProcess

    def command(self: FitProcess) -> list[str]:
        arguments = ["fit", str(self.directory.path.absolute()), str(self.experiment.sleep.n_passes), step_seconds()]
        return [sys.executable, "-S", __file__, *arguments]  # -S: no site packages, it starts in milliseconds

    for name in ("command", "begin_command", "resume_command"):
        setattr(FitProcess, name, command)


def supervise(folder: Path, trials: int, workers: int, options: dict[str, Any]) -> None:
    import optuna

    from sleep_lightning.runs.signals import SignalsInterrupt
    from sleep_lightning.sweep.folder import save_sweep, sole_supervisor
    from sleep_lightning.sweep.launchers import RayOptions, SlurmOptions
    from sleep_lightning.sweep.launchers.choose import choose_launcher
    from sleep_lightning.sweep.study import open_study
    from sleep_lightning.sweep.supervisor import Supervisor
    from tests.sweep.sweeps import small_sweep

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    stand_for_fit()
    if "slurm" in options:
        options["slurm"] = SlurmOptions(**options["slurm"])
    if "ray" in options:
        options["ray"] = RayOptions(**options["ray"])
    with SignalsInterrupt(), sole_supervisor(folder):
        sweep = small_sweep(trials=trials, workers=workers, **options)
        launcher = choose_launcher(sweep.spec, folder)
        study = open_study(sweep, folder)
        save_sweep(sweep, folder)
        supervisor = Supervisor(sweep, study, folder, launcher=launcher)
        with closing(supervisor.run(poll_seconds=0.01)) as looks:
            for _ in looks:
                for event in supervisor.events:
                    print(event, flush=True)
                supervisor.events.clear()


if __name__ == "__main__":
    what, path, *numbers = sys.argv[1:]
    if what == "fit":
        fit(Path(path), float(numbers[0]), float(numbers[1] if numbers[1:] else step_seconds()))
    else:
        supervise(Path(path), *map(int, numbers[:2]), json.loads(numbers[2]) if numbers[2:] else {})
