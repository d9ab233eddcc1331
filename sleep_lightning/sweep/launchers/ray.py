"""Runs on a Ray cluster: an actor with CPUs and GPUs for each, which trains the run in a child process of its node."""

import os
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sleep_lightning.redaction import one_line
from sleep_lightning.runs.infrastructure import Cause, Ended, cause_of
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers.launcher import Launcher
from sleep_lightning.sweep.launchers.ray_options import RayOptions
from sleep_lightning.sweep.launchers.ray_worker import Order, RunWorker

LOST_IN_A_ROW = 5
"""Workers lost one after another, without the run getting further, after which the run has failed."""
SETTLE_SECONDS = 10.0
"""How long a shared file system may take to show the result of a run that has ended well."""
CONNECT_SECONDS = 10.0
AUTH_MODE, TOKEN = "RAY_AUTH_MODE", "token"
OPEN = (
    "the Ray cluster asks for no token: whoever reaches its ports, other users of this machine too, can run code as "
    "you; start it, and this, with RAY_AUTH_MODE=token (docs/ray.md)"
)


@dataclass
class _Job:
    """A run that was submitted. ``placed`` is ready once its actor is on a node, ``result`` once it has ended."""

    actor: Any
    placed: Any
    result: Any
    flops: float
    lost: int = 0
    stopped: bool = False
    done_at: float | None = None
    ended: Ended | None = field(default=None)


class RayLauncher(Launcher):
    """Submits each run as a Ray actor. If its node is lost, the run is submitted again and resumes from its checkpoint.

    The actors end with the process that submitted them, and their runs with them: a new supervisor submits those again.
    A run whose process survives is still protected by the lock of its directory.

    Args:
        options: of the cluster and of what each run asks of it.
        threads: CPU threads of each process of a run.

    Raises:
        ValueError: Ray is not installed, or its cluster cannot be reached.
    """

    def __init__(self, options: RayOptions, threads: int) -> None:
        super().__init__()
        self._options, self._threads = options, threads
        self._ray, self._connected = connect(options.address)
        if os.environ.get(AUTH_MODE) != TOKEN:  # a cluster with a token would not have let us in
            self.events.append(OPEN)
        self._jobs: dict[Path, _Job] = {}
        self._warned = False

    def submit(self, run: FitProcess) -> None:
        known = self._jobs.get(run.directory.path)
        if known is None or known.ended is not None:
            self._jobs[run.directory.path] = self._start(run)

    def poll(self, run: FitProcess) -> Ended | None:
        job, ray = self._jobs[run.directory.path], self._ray
        if job.ended is not None or not ray.wait([job.result], timeout=0)[0]:
            return job.ended
        try:
            code = ray.get(job.result)
        except ray.exceptions.RayActorError as error:
            return self._lost(run, job, error)
        except ray.exceptions.RayError as error:
            cause = cause_of(error) or cause_of(getattr(error, "cause", error))
            return self._end(job, Ended(one_line(error), cause))
        job.done_at = job.done_at or time.monotonic()
        if run.summary is not None:
            return self._end(job, Ended("done"))
        if code == 0 and time.monotonic() - job.done_at < SETTLE_SECONDS:
            return None
        return self._end(job, Ended("stopped before it started") if code is None else run.ended(code))

    def signal(self, run: FitProcess) -> None:
        job = self._jobs[run.directory.path]
        job.stopped = True
        if self._ray.wait([job.placed], timeout=0)[0]:
            job.actor.stop.remote()
        else:
            self._ray.kill(job.actor)

    def cancel(self, run: FitProcess) -> None:
        self._ray.kill(self._jobs[run.directory.path].actor)  # Ray kills the child processes of its workers

    def close(self) -> None:
        if self._connected:
            self._ray.shutdown()

    def _start(self, run: FitProcess) -> _Job:
        path, options = run.directory.path.absolute(), self._options
        path.mkdir(parents=True, exist_ok=True)
        variables = run.variables(self._threads)
        order = Order(path, run.log.absolute(), Path.cwd(), run.begin_command(), run.resume_command(), variables)
        demands = options.demands(self._threads, run.experiment.training.devices)
        self._warn(demands)
        remote = self._ray.remote(
            num_cpus=demands["CPU"],
            num_gpus=demands["GPU"],
            resources=dict(options.resources),
            runtime_env=dict(options.runtime_env) or None,
            max_concurrency=2,  # stop while train is at work
            max_restarts=0,
        )(RunWorker)
        actor = remote.remote()
        return _Job(actor, actor.ping.remote(), actor.train.remote(order), run.flops_spent)

    def _lost(self, run: FitProcess, job: _Job, error: Exception) -> Ended | None:
        """The actor is gone: its node was lost, or we have killed it."""
        if job.stopped:
            return None if run.directory.holder() is not None else self._end(job, Ended("ended by the sweep"))
        if run.summary is not None and run.directory.holder() is None:
            return self._end(job, Ended("done"))
        lost = 1 if run.flops_spent > job.flops else job.lost + 1
        if lost >= LOST_IN_A_ROW:
            return self._end(job, Ended(f"its Ray worker was lost {lost} times: {one_line(error)}", Cause.NODE))
        self.events.append(f"{run.directory.path.name}: its Ray worker was lost; submitted again")
        self._ray.kill(job.actor)
        again = self._start(run)
        again.lost = lost
        self._jobs[run.directory.path] = again
        return None

    def _end(self, job: _Job, how: Ended) -> Ended:
        job.ended = how
        self._ray.kill(job.actor)  # frees its CPUs and GPUs
        return how

    def _warn(self, demands: dict[str, float]) -> None:
        """Say once that no node can hold a run now. It may join later, so that is no error."""
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if not self._warned and not any(all(n.get(k, 0) >= v for k, v in demands.items()) for n in nodes):
            wanted = ", ".join(f"{name} {amount:g}" for name, amount in demands.items() if amount)
            self.events.append(f"no node of the Ray cluster has {wanted}: runs wait until one joins")
            self._warned = True


def connect(address: str) -> tuple[Any, bool]:
    """Ray, connected to a running cluster (none is ever started here), and whether this call has connected it."""
    try:
        import ray
    except ImportError as error:
        raise ValueError(
            "launcher=ray needs Ray, which is not installed; run: pip install 'sleep-lightning[ray]'"
        ) from error
    if ray.is_initialized():
        return ray, False
    known = os.environ.get("RAY_ADDRESS", "auto") if address == "auto" else address
    no_cluster = f"ray.address={known!r}: no Ray cluster can be reached there; start one with: ray start --head"
    if os.environ.get(AUTH_MODE) != TOKEN:
        no_cluster += ", or, if it asks for a token, set RAY_AUTH_MODE=token"
    if known != "auto":  # ray.init would try for minutes
        host, _, port = known.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
        except (OSError, ValueError) as error:
            raise ValueError(f"{no_cluster} ({error})") from error
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=known, log_to_driver=False, logging_level="warning", namespace="sleep_lightning")
    except ray.exceptions.AuthenticationError as error:
        raise ValueError(
            f"ray.address={known!r}: RAY_AUTH_MODE=token, but no token of the cluster is here; write it to "
            "~/.ray/auth_token, or start a cluster with one: ray get-auth-token --generate"
        ) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"{no_cluster} ({one_line(error)})") from error
    finally:
        if in_main_thread:  # ray.init puts its own handler in the place of the sweep's
            signal.signal(signal.SIGTERM, handler)
    return ray, True
