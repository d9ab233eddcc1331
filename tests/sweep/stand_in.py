"""A sweep whose runs are stand-ins for ``fit``: seconds long, with checkpoints. A script, so that it can be killed.

``stand_in.py supervise FOLDER TRIALS WORKERS`` is the supervisor, ``stand_in.py fit RUN_DIR N`` a run.
"""

import fcntl
import json
import os
import sys
import time
from pathlib import Path

STEPS, EVERY = 6, 2
SECONDS = float(os.environ.get("STAND_IN_SECONDS", "0.02"))
"""Of a step."""


def fit(directory: Path, n_passes: int) -> None:
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
    history = json.loads((directory / "history.json").read_text())["history"] if done else []
    for step in range(done + 1, STEPS + 1):
        time.sleep(SECONDS)
        with (directory / "steps").open("a") as file:
            file.write(f"{step}\n")
        if step % EVERY == 0:
            value = 0.1 * n_passes * step / STEPS
            history = [row for row in history if row["step"] < step]
            history.append({"step": step, "cost/train_flops": 1e6 * n_passes * step, "exact_match": value})
            _write(directory / "history.json", json.dumps({"history": history}))
            _write(checkpoint, str(step))
    result = {"exact_match": 0.1 * n_passes, "token_accuracy": 0.5, "loss": 1.0, "wall_s": 1.0}
    result |= {"train_flops": 1e6 * n_passes * STEPS, "status": "FINISHED"}
    _write(directory / "summary.json", json.dumps(result))


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def supervise(folder: Path, trials: int, workers: int) -> None:
    import optuna

    from sleep_lightning.fit_process import FitProcess
    from sleep_lightning.sweep.folder import sole_supervisor
    from sleep_lightning.sweep.study import open_study
    from sleep_lightning.sweep.supervisor import Supervisor
    from tests.sweep.sweeps import small_sweep

    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def command(self: FitProcess) -> list[str]:
        arguments = ["fit", str(self.directory.path), str(self.experiment.sleep.n_passes)]
        return [sys.executable, "-S", __file__, *arguments]  # -S: no site packages, it starts in milliseconds

    FitProcess.command = command  # type: ignore[method-assign]
    with sole_supervisor(folder):
        sweep = small_sweep(trials=trials, workers=workers)
        for _ in Supervisor(sweep, open_study(sweep, folder), folder).run(poll_seconds=0.01):
            pass


if __name__ == "__main__":
    what, path, *numbers = sys.argv[1:]
    if what == "fit":
        fit(Path(path), int(numbers[0]))
    else:
        supervise(Path(path), *map(int, numbers))
