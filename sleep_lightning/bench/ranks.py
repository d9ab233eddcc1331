"""What the exchange between ranks costs: a step of two ranks on this machine (CPU, gloo) and the same work without."""

import atexit
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from lightning.fabric.plugins.environments.lightning import find_free_network_port
from torch import Tensor, distributed
from torch.nn.utils import clip_grad_norm_

from sleep_lightning.bench.step import Setting
from sleep_lightning.bench.worker import Worker, together
from sleep_lightning.config import Experiment
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.timing import interleave, ratio, summarize
from sleep_lightning.training.distributed.exchange import Exchange, all_reduce_gradients
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.optimizer import build_optimizer
from sleep_lightning.training.runtime.malloc import tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul

RANKS = 2
SETTING = Setting(2, batch=32, strings=4, d_model=128)


def bench_ranks(seconds: float, setting: Setting = SETTING) -> Iterator[dict[str, object]]:
    """Rows of a training step's time. Every process has one thread, except one that has as many as there are ranks.

    The cost of the exchange is the ratio of the ranks' step to that of processes that exchange nothing.
    """
    e = setting.experiment()
    whole = e.task.build().batch(setting.batch, seed=0, position=0)
    port = find_free_network_port()
    alone, ranks = Exchange(), [Exchange(rank, RANKS) for rank in range(RANKS)]
    shares = [rank.share(whole) for rank in ranks]
    one, among = "one process", f"{RANKS} ranks"
    parts: dict[str, list[tuple[TaskBatch, Exchange, int, int]]] = {
        one: [(whole, alone, 1, port)],
        f"one process, {RANKS} threads": [(whole, alone, RANKS, port)],
        "one process, a rank's share": [(shares[0], alone, 1, port)],
        f"{RANKS} processes, a share each": [(share, alone, 1, port) for share in shares],
        among: [(share, rank, 1, port) for share, rank in zip(shares, ranks, strict=True)],
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


def rank_step(
    experiment: Experiment, share: TaskBatch, exchange: Exchange, threads: int = 1, port: int = 0
) -> Callable[[], Tensor]:
    """A step as in a rank of ``fit``: gradients of its share, one exchange, clipping, the optimizer."""
    torch.set_num_threads(threads)
    tune_allocator("keep")
    choose_fp32_matmul("auto")
    torch.manual_seed(0)
    model = experiment.build_model()
    optimizer, parameters = build_optimizer(model, experiment.training), list(model.parameters())
    n_labels = exchange.size * (share.labels != IGNORE).sum()  # every row has the same number
    if exchange.size > 1:
        address = f"tcp://127.0.0.1:{port}"
        distributed.init_process_group("gloo", init_method=address, rank=exchange.rank, world_size=exchange.size)
        atexit.register(distributed.destroy_process_group)

    def step() -> Tensor:
        optimizer.zero_grad()
        loss = accumulate_gradients(model, share, experiment.sleep, n_labels=n_labels)
        if exchange.size > 1:
            loss = all_reduce_gradients(parameters, loss.detach()[None]).squeeze(0)
        clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return loss

    return step
