"""The suites that the package ships, inherited outside its repository."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.cli import environment

pytestmark = pytest.mark.process

THEIRS = '''
from dataclasses import dataclass

import torch

from sleep_lightning import Task, TaskBatch
from sleep_lightning.testing import KernelTestCase, TaskTestCase


@dataclass
class EchoConfig:
    """Two bits are read and evicted; the first of them is asked for."""

    name: str = "echo"
    labelled: int = 2

    def build(self):
        return Echo(self)


class Echo(Task):
    vocab, sequence_length, context_length = ("0", "1", "?"), 3, 2

    def __init__(self, config):
        self.config = config

    def sample(self, batch_size, generator, split="train"):
        bits = torch.randint(2, (batch_size, 2), generator=generator)
        tokens = torch.cat((bits, torch.full((batch_size, 1), 2)), 1)
        labels = torch.full_like(tokens, -100)
        labels[:, self.config.labelled] = bits[:, 0]
        return TaskBatch(tokens, labels)


class TestEcho(TaskTestCase):
    config = EchoConfig()
    minimum_tokens_per_second = 1

    def evidence(self, tokens):  # four contexts are too few to share none
        return {(-1 - len(self.seen),)} if not self.seen.append(0) else set()

    seen = []


class TestLeak(TestEcho):
    config = EchoConfig(labelled=1)


class TestChunked(KernelTestCase):
    backend = "chunked"
    examples = 2
'''


def test_a_users_own_tests_inherit_them(tmp_path: Path) -> None:
    (tmp_path / "test_theirs.py").write_text(THEIRS)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAILED")]
    assert len(failed) == 1 and "TestLeak::test_no_label_inside_the_context" in failed[0], done.stdout
    assert "behind the context' is None" in done.stdout, "pytest does not explain the suites' assertions"
