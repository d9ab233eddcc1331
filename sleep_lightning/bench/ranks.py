"""What it costs that ranks train together: a step of two on this machine (CPU, gloo) against the same work elsewise."""

import atexit
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.bench.step import Setting
from sleep_lightning.bench.timing import interleave, ratio, summarize
from sleep_lightning.bench.worker import Worker, together
from sleep_lightning.config import Experiment
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.training.distributed.ranks import ALONE, Ranks, all_reduce_gradients
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul

RANKS = 2
SETTING = Setting(2, batch=32, strings=4, d_model=128)


def bench_ranks(seconds: float, setting: Setting = SETTING) -> Iterator[dict[str, object]]:
    """Rows of a training step's time; every process computes with one thread, but one with as many as there are ranks.

    What the exchange costs is the step of the ranks over that of processes that share nothing but the machine.
    """
    e = setting.experiment()
    whole = e.task.build().batch(setting.batch, seed=0, position=0)
    port = find_free_network_port()
    ranks = [Ranks(rank, RANKS, rank, RANKS, port=port) for rank in range(RANKS)]
    shares = [rank.share(whole) for rank in ranks]
    one, among = "one process", f"{RANKS} ranks"
    parts: dict[str, list[tuple[TaskBatch, Ranks, int]]] = {
        one: [(whole, ALONE, 1)],
        f"one process, {RANKS} threads": [(whole, ALONE, RANKS)],
        "one process, a rank's share": [(shares[0], ALONE, 1)],
        f"{RANKS} processes, a share each": [(share, ALONE, 1) for share in shares],
        among: [(share, rank, 1) for share, rank in zip(shares, ranks, strict=True)],
    }
    with ExitStack() as stack:
        steps = {
            name: together([stack.enter_context(Worker(rank_step, e, *part)) for part in contender])
            for name, contender in parts.items()
        }
        times = interleave(steps, seconds, rounds=5, warm=False)
    apart = times[f"{RANKS} processes, a share each"]
    for name, taken in times.items():
        yield {
            "what": "step of several ranks",
            "shape": str(setting),
            "contender": name,
            "median_ms": 1e3 * summarize(taken).median,
            "times_one_process": ratio(taken, times[one]),
            "times_without_exchange": ratio(taken, apart) if name == among else "",
            "rounds": len(taken),
        }


def rank_step(experiment: Experiment, share: TaskBatch, ranks: Ranks, threads: int = 1) -> Callable[[], Tensor]:
    """A step as a rank of ``fit`` takes it: gradients of its share, one exchange, clipping, the optimizer."""
    torch.set_num_threads(threads)
    tune_allocator("keep")
    choose_fp32_matmul("auto")
    torch.manual_seed(0)
    model = experiment.build_model()
    optimizer, parameters = build_optimizer(model, experiment.training), list(model.parameters())
    n_labels = ranks.size * (share.labels != IGNORE).sum()  # all rows have as many
    connection = ranks.connected("cpu")
    connection.__enter__()
    atexit.register(connection.__exit__, None, None, None)  # held, and so kept open, until the process ends

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = accumulate_gradients(model, share, experiment.sleep, n_labels=n_labels)
        if ranks.size > 1:
            loss = all_reduce_gradients(parameters, loss.detach()[None]).squeeze(0)
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return step
