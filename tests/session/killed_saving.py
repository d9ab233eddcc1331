"""Processes that are killed while they save, again and again: run by ``test_killed.py``.

Usage: python -m tests.session.killed_saving FILE KILLS
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from sleep_lightning.session import SleepSession
from sleep_lightning.sleep import SleepConfig
from tests.conftest import tiny_model
from tests.session.conftest import bits, same

TOKENS = 16
"""Read between two saves."""


def save_for_ever(session: SleepSession, file: Path, acknowledged: int) -> None:
    while True:
        session.append([session.tokens_seen % 7] * TOKENS)
        session.save(file)
        os.write(acknowledged, b".")


def main(file: Path, kills: int) -> None:
    """Each process goes on from the file; what it acknowledged must be in the file when it is dead."""
    torch.set_num_threads(1)
    model = tiny_model(11, d_model=128, d_ff=128)
    expected = SleepSession(model, SleepConfig(64, 1))
    expected.save(file)
    in_the_middle = 0
    for i in range(kills):
        reading, writing = os.pipe()
        child = os.fork()
        if not child:
            save_for_ever(SleepSession.load(file, model), file, writing)
        os.close(writing)
        acknowledged = len(os.read(reading, 1))  # it has begun
        time.sleep(random.Random(i).uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 4096):
            acknowledged += len(more)
        os.close(reading)
        in_the_middle += file.with_name(f".{file.name}.partial").exists()
        found = SleepSession.load(file, model)
        before = expected.tokens_seen
        assert found.tokens_seen in (before + acknowledged * TOKENS, before + (acknowledged + 1) * TOKENS)
        while expected.tokens_seen < found.tokens_seen:
            expected.append([expected.tokens_seen % 7] * TOKENS)
        assert same(bits(expected), bits(found)), f"kill {i}: the file is of no state that was saved"
    print(kills, in_the_middle)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
