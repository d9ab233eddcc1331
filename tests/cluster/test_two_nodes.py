"""Training on two nodes that reach each other by network only, and what is left of it when one is lost."""

import subprocess
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.training.distributed import strategy
from tests.cluster.nodes import TwoNodes, why_no_nodes
from tests.cluster.services import wait_until
from tests.cluster.small_run import STEPS, assert_same_training, fit_words

LONG, SHORT = 120, 20
"""Seconds that ranks wait for each other."""


@pytest.fixture
def nodes() -> Iterator[TwoNodes]:
    if (reason := why_no_nodes()) is not None:
        pytest.skip(reason)
    both = TwoNodes()
    try:
        both.start()
        yield both
    finally:
        both.stop()


def step(run: Path) -> int:
    return int(load_checkpoint(RunDirectory(run).last)["global_step"])


def get_further(run: Path, than: int, first: subprocess.Popen[bytes], log: Path) -> None:
    def is_further() -> bool:
        assert first.poll() is None, log.read_text()
        return RunDirectory(run).last.exists() and step(run) > than

    wait_until(is_further, f"a checkpoint after step {than}", seconds=300)


def ends_with_a_sentence(first: subprocess.Popen[bytes], log: Path, seconds: float) -> None:
    began = time.monotonic()
    assert first.wait(seconds + 60) == 1, log.read_text()  # torchrun takes its time too
    assert time.monotonic() - began < seconds + 30
    [line] = [line for line in log.read_text().splitlines() if line.startswith("error: ")]
    assert "another process of this run is gone or does not answer" in line and "fit --resume resumes" in line


def test_ranks_do_not_wait_for_half_an_hour() -> None:
    assert timedelta(minutes=1) <= strategy.TIMEOUT <= timedelta(minutes=10)


@pytest.mark.slow
def test_two_nodes_train_as_one_process(nodes: TwoNodes, tmp_path: Path, alone: Path) -> None:
    run = tmp_path / "run"
    for node, process in enumerate(nodes.torchrun(tmp_path / "log", LONG, *fit_words(run, "training.num_nodes=2"))):
        assert process.wait(300) == 0, (tmp_path / f"log{node}").read_text()
    assert_same_training(run, alone)


@pytest.mark.slow
def test_a_lost_node_ends_the_run_which_goes_on(nodes: TwoNodes, tmp_path: Path, alone: Path) -> None:
    """First the cable is pulled, so that nobody even says goodbye; then a node of the resumed run is killed."""
    run, log = tmp_path / "run", tmp_path / "unplugged"
    first, _ = nodes.torchrun(log, SHORT, *fit_words(run, "training.num_nodes=2"))
    get_further(run, 0, first, log.with_name("unplugged0"))
    nodes.plug(1, "down")
    ends_with_a_sentence(first, log.with_name("unplugged0"), SHORT)
    nodes.kill(1)
    nodes.plug(1, "up")
    reached = step(run)
    first, _ = nodes.torchrun(tmp_path / "killed", LONG, "fit", "--resume", str(run))
    get_further(run, reached, first, tmp_path / "killed0")
    nodes.kill(1)
    ends_with_a_sentence(first, tmp_path / "killed0", 10)
    assert step(run) < STEPS, "it was over before the node was lost"
    assert main(["fit", "--resume", str(run), "training.num_nodes=1"]) == 0
    assert_same_training(run, alone)
