"""Runs as SLURM jobs."""

import os
import re
import shutil
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

from sleep_lightning.runs.damage import read_json
from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.runs.infrastructure import DIVERGED, Cause, Ended, cause_of_exit
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.runs.space import DiskFull
from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.slurm_job import SlurmOptions

COMMANDS = ("sbatch", "scontrol", "squeue", "scancel")
ENDED = (
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED",
    "TIMEOUT", "GONE",
)  # fmt: skip
"""Final states (a requeued job is PENDING). GONE: SLURM no longer knows it."""
CAUSES = {"OUT_OF_MEMORY": Cause.MEMORY} | dict.fromkeys(
    ("BOOT_FAIL", "CANCELLED", "DEADLINE", "GONE", "NODE_FAIL", "PREEMPTED", "REVOKED", "TIMEOUT"), Cause.NODE
)
"""States that are no fault of the run."""
ANSWER_SECONDS = 60
"""Timeout of SLURM's commands."""
SAY_SECONDS = 60.0
"""Between two events about a job that cannot be submitted."""


@dataclass
class _Job:
    """The job of a run.

    Attributes:
        token: its name in SLURM; a new one each time the run is submitted.
        id: its number, once SLURM has answered.
        look_at: when to ask about it again.
        gone_at: when SLURM first reported its end.
        ended: how it ended, after its result had time to become visible.
        said_at: time of the last event on why it is not submitted.
        stopped: whether it was asked to end.
    """

    token: str
    id: str | None = None
    look_at: float = 0.0
    gone_at: float | None = None
    ended: Ended | None = None
    said_at: float = float("-inf")
    stopped: bool = False


class SlurmLauncher(Launcher):
    """A job for each run; ``<run>.slurm.json`` beside its directory names it, so that a new supervisor adopts it.

    States come from ``scontrol``: no accounting database is needed. While SLURM does not answer, jobs count as
    unchanged, and submissions wait.

    Raises:
        ValueError: SLURM's commands are missing, or SLURM rejects such jobs.
    """

    def __init__(self, options: SlurmOptions, threads: int) -> None:
        super().__init__()
        self._options, self._threads = options, threads
        self._jobs: dict[Path, _Job] = {}
        if missing := [name for name in COMMANDS if shutil.which(name) is None]:
            raise ValueError(
                f"launcher=slurm needs {missing[0]}, which is not on the PATH here; start the sweep on a machine that "
                f"submits jobs, or set launcher: local"
            )
        probe = ["sbatch", "--test-only", *options.arguments(threads), "--wrap=true"]
        if (answer := _ask(probe, os.environ.copy())).returncode:
            raise ValueError(f"slurm: a job with these options is rejected ({_last_line(answer)}); change them")

    def submit(self, run: FitProcess) -> None:
        path = run.directory.path
        path.mkdir(parents=True, exist_ok=True)
        job = None if path in self._jobs else _recorded(run)
        if job is None or (job.id is not None and _state(job.id)[0] in ENDED):
            job = _Job(uuid.uuid4().hex)
        self._jobs[path] = job
        if job.id is None:
            self._try_to_submit(run, job)

    def poll(self, run: FitProcess) -> Ended | None:
        job, now = self._jobs[run.directory.path], time.monotonic()
        if run.summary is not None and run.directory.holder() is None:
            return Ended("done")
        if job.stopped and job.id is None:
            return Ended("stopped before it was submitted")
        if job.ended is not None or now < job.look_at:
            return job.ended
        job.look_at = now + self._options.poll_seconds
        if job.id is None:
            self._try_to_submit(run, job)
            return None
        state, code = _state(job.id)
        job.gone_at = None if state not in ENDED else job.gone_at or now
        if job.gone_at is None:
            return None
        if job.stopped or run.summary is not None or now - job.gone_at >= self._options.settle_seconds:
            reason = f"SLURM job {job.id} is {state.lower()}: {run.last_words()}"
            job.ended = Ended(reason, CAUSES.get(state, cause_of_exit(code)), code == DIVERGED)
        return job.ended

    def signal(self, run: FitProcess) -> None:
        job = self._jobs[run.directory.path]
        job.look_at, job.stopped = 0.0, True
        if job.id is not None:
            _ask(["scancel", "--state=PENDING", job.id])
            _ask(["scancel", "--signal=TERM", *(["--batch"] if self._options.tasks == 1 else []), job.id])

    def cancel(self, run: FitProcess) -> None:
        job = self._jobs[run.directory.path]
        if job.id is not None:
            _ask(["scancel", job.id])

    def _try_to_submit(self, run: FitProcess, job: _Job) -> None:
        try:
            self._submit(run, job)
        except DiskFull as error:  # its script has no place yet
            self._say(run, job, f"{error.what}; retrying")

    def _submit(self, run: FitProcess, job: _Job) -> None:
        """Submit it, unless SLURM has it: an answer may have been lost, or the supervisor that submitted it died."""
        ticket = _ticket(run)
        job.look_at = time.monotonic() + self._options.poll_seconds
        if (holder := run.directory.holder()) is not None:
            self._say(run, job, f"waiting: {holder} trains it already")
            return
        answer = _ask(["squeue", "--noheader", "--format=%i", f"--name={job.token}"])
        if answer.returncode == 0 and not answer.stdout.split():
            write_json(ticket, {"token": job.token, "job": None}, patience=0)
            begin, resume, config = run.begin_command(), run.resume_command(), run.directory.config.absolute()
            script = run.directory.beside(".sbatch").absolute()
            write_text(script, self._options.script(begin, resume, config, ticket.absolute(), job.token), patience=0)
            log = str(run.log.absolute()).replace("%", "%%")
            own = [f"--job-name={job.token}", f"--output={log}", "--open-mode=append", "--requeue", "--export=ALL"]
            command = ["sbatch", "--parsable", *own, *self._options.arguments(self._threads), str(script)]
            answer = _ask(command, run.environment(self._threads))
        if answer.returncode or not answer.stdout.split():
            self._say(run, job, f"SLURM does not accept its job ({_last_line(answer)}); retrying")
            return
        job.id = answer.stdout.split()[0].partition(";")[0]
        write_json(ticket, {"token": job.token, "job": job.id})

    def _say(self, run: FitProcess, job: _Job, what: str) -> None:
        if time.monotonic() - job.said_at >= SAY_SECONDS:
            job.said_at = time.monotonic()
            self.events.append(f"{run.directory.path.name}: {what}")


def _ticket(run: FitProcess) -> Path:
    return run.directory.beside(".slurm.json")


def _recorded(run: FitProcess) -> _Job | None:
    try:
        remedy = "remove it once SLURM no longer trains the run (squeue)"
        content = read_json(_ticket(run), {"token": str, "job": (str, NoneType)}, remedy)
    except FileNotFoundError:
        return None
    return _Job(content["token"], content["job"])


def _state(job: str) -> tuple[str, int | None]:
    """A job's state, UNKNOWN while SLURM does not answer, and its exit code (or minus a signal), None if unknown."""
    answer = _ask(["scontrol", "show", "job", "-o", job])
    if answer.returncode == 0 and (match := re.search(r"\bJobState=(\w+)", answer.stdout)):
        code = re.search(r"\bExitCode=(\d+):(\d+)", answer.stdout)
        return match[1], None if code is None else -(int(code[2]) & 127) or int(code[1])
    return ("GONE" if "Invalid job id" in answer.stderr else "UNKNOWN"), None


def _ask(command: list[str], environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command of SLURM's. If we are a job ourselves, its variables would become options of the new one."""
    clean = {k: v for k, v in (environment or os.environ).items() if not k.startswith(("SLURM_", "SBATCH_"))}
    if "SLURM_CONF" in os.environ:
        clean["SLURM_CONF"] = os.environ["SLURM_CONF"]
    try:
        return subprocess.run(command, env=clean, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"{command[0]} did not answer in {ANSWER_SECONDS} s")


def _last_line(answer: subprocess.CompletedProcess[str]) -> str:
    lines = [line for line in answer.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"{answer.args[0]} printed nothing"
