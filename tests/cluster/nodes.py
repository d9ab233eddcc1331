"""Two nodes on one machine: network namespaces joined by a cable (a veth pair), each with nothing but its end of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.cli.cli import ROOT, environment

ADDRESSES = ("10.231.77.1", "10.231.77.2")
PORT = 29400
INTERFACE = "cable"


class TwoNodes:
    """Nodes 0 and 1; ``torchrun`` on both makes one process each."""

    def __init__(self) -> None:
        self._names = tuple(f"sleep{os.getpid()}-{node}" for node in (0, 1))
        self._processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        for name in self._names:
            _ip("netns", "add", name)
        ends = [f"sl{os.getpid()}-{node}" for node in (0, 1)]
        _ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(self._names, ends, ADDRESSES, strict=True):
            _ip("link", "set", end, "netns", name)
            _ip("-n", name, "link", "set", end, "name", INTERFACE)
            _ip("-n", name, "address", "add", f"{address}/24", "dev", INTERFACE)
            _ip("-n", name, "link", "set", "lo", "up")
            _ip("-n", name, "link", "set", INTERFACE, "up")

    def torchrun(self, log: Path, timeout: int, *arguments: str) -> list[subprocess.Popen[bytes]]:
        """``fit`` on both, whose ranks wait for each other so many seconds; node i writes ``<log><i>``."""
        started = []
        for node, name in enumerate(self._names):
            words = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", f"--rdzv-id={log.name}"]
            words += [f"--rdzv-endpoint={ADDRESSES[0]}:{PORT}", f"--rdzv-conf=is_host={1 - node}"]
            words += [f"--local-addr={ADDRESSES[node]}", "-m", "tests.cluster.impatient_fit", str(timeout)]
            torchrun = [sys.executable, "-m", "torch.distributed.run", *words, *arguments]
            with log.with_name(f"{log.name}{node}").open("wb") as file:
                process = subprocess.Popen(
                    ["ip", "netns", "exec", name, *torchrun],
                    env=environment() | {"GLOO_SOCKET_IFNAME": INTERFACE},
                    cwd=ROOT,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                )
            started.append(process)
        self._processes += started
        return started

    def plug(self, node: int, state: str) -> None:
        """The node's end of the cable, ``up`` or ``down``."""
        _ip("-n", self._names[node], "link", "set", INTERFACE, state)

    def kill(self, node: int) -> None:
        """Everything on it at once, as when its power is gone."""
        while pids := subprocess.run(["ip", "netns", "pids", self._names[node]], capture_output=True).stdout.split():
            for pid in map(int, pids):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for process in self._processes:
                process.poll()
            time.sleep(0.05)

    def stop(self) -> None:
        """Nothing of it is left, however far it had come."""
        for node, name in enumerate(self._names):
            if Path("/run/netns", name).exists():
                self.kill(node)
                _ip("netns", "delete", name)
        for process in self._processes:
            process.wait(10)


def why_no_nodes() -> str | None:
    """Why namespaces cannot be made here; None if they can."""
    if os.geteuid() != 0:
        return "network namespaces are made by root only"
    if shutil.which("ip") is None:
        return "ip (iproute2) is not installed"
    name = f"sleep{os.getpid()}-try"
    tried = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
    if tried.returncode:
        return f"no network namespace can be made: {tried.stderr.strip()}"
    _ip("netns", "delete", name)
    return None


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)
