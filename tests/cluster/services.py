"""A SLURM of two nodes, a Ray of two nodes and a PostgreSQL on this machine, for as long as a test needs them."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.cli.cli import environment

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
AuthType=auth/munge
AuthInfo=cred_expire=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
AccountingStorageType=accounting_storage/none
ReturnToService=2
SlurmdParameters=config_overrides
JobRequeue=1
KillWait=2
MinJobAge=10
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1,sched_min_interval=0
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={node1} CPUs=2 RealMemory=1000 State=UNKNOWN
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={node2} CPUs=2 RealMemory=1000 State=UNKNOWN
PartitionName=ci Nodes=n1,n2 Default=YES MaxTime=60 State=UP
"""


class Slurm:
    """Two nodes of two CPUs; nothing of it lies outside the folder but munge's socket and key."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._processes = folder, list[subprocess.Popen[bytes]]()
        self.environment = {"SLURM_CONF": str(folder / "slurm.conf")}

    def start(self) -> None:
        (self.folder / "state").mkdir(parents=True)
        controller, node1, node2 = free_ports(3)
        conf = SLURM_CONF.format(
            host=socket.gethostname(), folder=self.folder, controller=controller, node1=node1, node2=node2
        )
        (self.folder / "slurm.conf").write_text(conf)
        if subprocess.run(["munge", "-n"], capture_output=True).returncode:
            for path in ("/run/munge", "/var/log/munge", "/var/lib/munge"):
                Path(path).mkdir(exist_ok=True)
                shutil.chown(path, "munge", "munge")
            Path("/run/munge").chmod(0o755)
            self._start("runuser", "-u", "munge", "--", "munged", "--foreground")
            wait_until(lambda: not subprocess.run(["munge", "-n"], capture_output=True).returncode, "munge")
        self.start_controller()
        for node in ("n1", "n2"):
            self._start("slurmd", "-D", "-N", node)
        wait_until(lambda: self.ask("sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"], "SLURM")

    def start_controller(self) -> None:
        self.controller = self._start("slurmctld", "-D")

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command, env=os.environ | self.environment, capture_output=True, text=True, timeout=90, check=False
        )
        return done.stdout

    def stop(self) -> None:
        self.ask("scancel", "--user=root")
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / "services.log").open("ab") as log:
            process = subprocess.Popen(command, env=os.environ | self.environment, stdout=log, stderr=log)
        self._processes.append(process)
        return process


class Postgres:
    """A server with a user ``tester`` whose password is needed."""

    PASSWORD = "s3cret"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        [self.port] = free_ports(1)
        self.url = f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"
        self.environment = {"PGPASSWORD": self.PASSWORD}

    def start(self) -> None:
        shutil.chown(self.folder, "postgres")
        password = self.folder / "password"
        password.write_text(self.PASSWORD)
        shutil.chown(password, "postgres")
        self._run("initdb", "-U", "tester", "--auth=scram-sha-256", f"--pwfile={password}", "--no-sync")
        with (self.folder / "data" / "postgresql.conf").open("a") as conf:
            conf.write(f"port = {self.port}\nunix_socket_directories = '{self.folder}'\n")
        self.go_on()

    def go_on(self) -> None:
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"))

    def stop(self) -> None:
        self._run("pg_ctl", "stop", "-m", "immediate")

    def _run(self, name: str, *arguments: str) -> None:
        program = str(max(Path("/usr/lib/postgresql").glob(f"*/bin/{name}")))
        command = ["runuser", "-u", "postgres", "--", program, "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, cwd=self.folder)


def why_not() -> str | None:
    """Why they cannot be started here; None if they can."""
    if os.geteuid() != 0:
        return "SLURM and PostgreSQL are started by root only"
    if missing := [name for name in ("slurmctld", "slurmd", "munged", "sbatch") if shutil.which(name) is None]:
        return f"{missing[0]} is not installed; make test-cluster installs it on Debian"
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        return "PostgreSQL is not installed; make test-cluster installs it on Debian"
    return None


def wait_until(there: Callable[[], bool], what: str, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert time.monotonic() < deadline, f"{what} was not there after {seconds} s"
        time.sleep(0.05)


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Ray:
    """Two nodes of a CPU each on loopback addresses: the head, and one that can be killed and started again."""

    HEAD, OTHER = "127.0.0.2", "127.0.0.3"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port, self._client = free_ports(2)
        self.address = f"{self.HEAD}:{self._port}"
        self._nodes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        head = [f"--port={self._port}", f"--ray-client-server-port={self._client}", f"--temp-dir={self._folder}/ray"]
        self._start(self.HEAD, "--head", "--include-dashboard=false", "--disable-usage-stats", *head)
        self.start_other()

    def start_other(self) -> None:
        self._start(self.OTHER, f"--address={self.address}")

    def processes(self, node: str) -> list[psutil.Process]:
        """All of a node, raylet first, then its workers and what they have started."""
        try:
            parent = psutil.Process(self._nodes[node].pid)
            return sorted(parent.children(recursive=True), key=lambda p: p.name() != "raylet")
        except psutil.NoSuchProcess:
            return []

    def kill(self, node: str, spared: str = "") -> None:
        """With SIGKILL, as when its power is gone. ``spared``: processes with this in their command line live on."""
        for process in self.processes(node):
            try:
                if not spared or spared not in " ".join(process.cmdline()):
                    process.kill()
            except psutil.NoSuchProcess:
                continue
        self._nodes[node].kill()
        self._nodes[node].wait()

    def stop(self) -> None:
        for node in self._nodes:
            self.kill(node)

    def _start(self, node: str, *options: str) -> None:
        own = [f"--node-ip-address={node}", "--num-cpus=1", "--num-gpus=0", "--object-store-memory=100000000"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *options, *own, "--block"]
        log = self._folder / f"{node}.log"
        log.unlink(missing_ok=True)
        with log.open("ab") as file:
            self._nodes[node] = subprocess.Popen(
                command, env=environment() | {"RAY_USAGE_STATS_ENABLED": "0"}, stdout=file, stderr=subprocess.STDOUT
            )
        wait_until(lambda: "Ray runtime started" in log.read_text(), f"Ray on {node}")
