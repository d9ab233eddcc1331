"""The ranks of a test: processes of this machine that find one another, each with a log in the test's folder."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.plugins.environments.lightning import find_free_network_port

from tests.cli.cli import ROOT, environment

LIMIT_S = 600


@contextmanager
def running(module: str, folder: Path, size: int, *arguments: object, more_ports: int) -> Iterator[None]:
    """``python -m module FOLDER ARGUMENTS PORTS`` as every rank of ``size``; left when all have ended well."""
    ports = [str(find_free_network_port()) for _ in range(1 + more_ports)]
    command = [sys.executable, "-m", module, str(folder), *map(str, arguments), *ports[1:]]
    logs = [folder / f"rank{rank}.log" for rank in range(size)]
    processes = []
    try:
        for rank, log in enumerate(logs):
            numbers = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
            variables = environment() | {name: str(number) for name, number in numbers.items()}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": ports[0]}
            with log.open("w") as file:
                processes.append(
                    subprocess.Popen(command, env=variables, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
                )
        yield
        for process, log in zip(processes, logs, strict=True):
            assert process.wait(LIMIT_S) == 0, log.read_text()
    finally:
        for process in processes:
            process.kill()
