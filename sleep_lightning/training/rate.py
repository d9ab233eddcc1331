"""How fast this machine trains an experiment: FLOP/s of its own steps, from a short probe, kept for next time."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.machine.private import cache_directory
from sleep_lightning.model import WindowModel
from sleep_lightning.runs.files import write_json
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.runtime.environment import check_device, describe_machine
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul
from sleep_lightning.training.runtime.threads import choose_threads

PROBE_SECONDS = 2.0
"""Of measuring. A step that takes longer than a quarter of it is measured on a part of the batch."""
SHARE = 0.05
"""Of the time of the run itself, which a probe takes at most."""
FILE = "rates.json"


@dataclass(frozen=True)
class Rate:
    """Attributes:
    flops_per_s: training FLOPs a second, forward and backward, without the optimizer and validation.
    batch: sequences that were measured at a time.
    """

    flops_per_s: float
    batch: int


def training_rate(experiment: Experiment, threads: int | None = None, *, file: Path | None = None) -> Rate | None:
    """The rate of a training step on this machine: what the file knows, else measured and added to it.

    Args:
        experiment: its model, windows, N, precision and batch decide.
        threads: of the process; None: as the experiment says.
        file: of known rates; None: ``rates.json`` in the user's cache directory.

    Returns:
        None where a probe of one process says nothing: several ranks, CUDA graphs, ``torch.compile``.
    """
    if not _tells(experiment):
        return None
    with _threads(threads or experiment.training.threads or choose_threads()):
        if (rate := known_rate(experiment, file)) is None:
            rate = _probe(experiment)
            _keep(experiment, rate, file)
    return rate


def known_rate(experiment: Experiment, file: Path | None = None) -> Rate | None:
    """The rate, on the threads that torch now has, as far as it was measured before."""
    found = _read(_place(file)).get(_key(experiment)) if _tells(experiment) else None
    return None if found is None else Rate(float(found[0]), int(found[1]))


def keep_rate(experiment: Experiment, summary: dict[str, Any], file: Path | None = None) -> None:
    """Add to the file what a run of this process measured."""
    tokens_per_s, t = summary["measured"]["tokens_per_s"], experiment.training
    if tokens_per_s and summary["tokens"]:
        flops_per_s = tokens_per_s * summary["train_flops"] / summary["tokens"]
        _keep(experiment, Rate(flops_per_s, t.batch_size // t.accumulate), file)


def _keep(experiment: Experiment, rate: Rate, file: Path | None) -> None:
    """Unless the file knows a higher rate: whatever else runs here only slows training down. Where it cannot be written
    the rate is measured again."""
    if not _tells(experiment):
        return
    place, key = _place(file), _key(experiment)
    known = _read(place)
    if key in known and known[key][0] >= rate.flops_per_s:
        return
    with suppress(OSError):
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(place, known | {key: [rate.flops_per_s, rate.batch]}, patience=0)


def _tells(experiment: Experiment) -> bool:
    t = experiment.training
    return t.processes == 1 and not t.compile and not t.cuda_graph


def _place(file: Path | None) -> Path:
    return cache_directory() / FILE if file is None else file


@contextmanager
def _threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _key(experiment: Experiment) -> str:
    """What the rate depends on: this machine and its libraries, and the shape of a step."""
    e, t = experiment.to_dict(), experiment.training
    machine = describe_machine(check_device(experiment), experiment.model)
    shape = [e["task"], e["model"], e["sleep"], t.batch_size, t.accumulate, t.precision, t.checkpointing, t.executor]
    shape += [t.tbptt_windows, t.fp32_matmul, sorted(t.trained)]
    return hashlib.sha256(json.dumps([machine, *shape]).encode()).hexdigest()[:16]


def _read(file: Path) -> dict[str, list[float]]:
    """Known rates; none if the file is missing or damaged, as measuring again mends it."""
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    good = found.items() if isinstance(found, dict) else ()
    return {key: x for key, x in good if isinstance(x, list) and len(x) == 2 and all(map(_positive, x))}


def _positive(x: object) -> bool:
    return isinstance(x, int | float) and x > 0


def _probe(experiment: Experiment) -> Rate:
    """Time forward and backward: of one sequence, then of more until a step takes long enough. The shortest time
    counts, as whatever else runs here only adds to it. The generators of random numbers are left as they were."""
    device, t = check_device(experiment), experiment.training
    choose_fp32_matmul(t.fp32_matmul)
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        model = experiment.build_model().to(device)
    rows, whole = 1, t.batch_size // t.accumulate
    while True:
        step = _step(experiment, model, device, rows)
        step()  # the first of a shape loads kernels and takes memory
        times = [step(), step()]
        if rows == whole or min(times) > PROBE_SECONDS / 4:
            break
        rows = min(4 * rows, whole)
    run = t.max_steps * t.batch_size / rows * min(times)
    while sum(times) + min(times) < min(PROBE_SECONDS, SHARE * run):
        times.append(step())
    return Rate(rows * sequence_cost(experiment).total / min(times), rows)


def _step(experiment: Experiment, model: WindowModel, device: torch.device, rows: int) -> Callable[[], float]:
    """Runs forward and backward over so many sequences; returns seconds: on the CPU no more than this process computed,
    as others may have the cores meanwhile."""
    t = experiment.training
    batch = experiment.task.build().batch(rows, seed=0, position=0).to(device)

    def seconds() -> float:
        start, computed = time.perf_counter(), time.process_time()
        with torch.autocast(device.type, torch.bfloat16, enabled=t.precision == "bf16"):
            accumulate_gradients(
                model,
                batch,
                experiment.sleep,
                tbptt_windows=t.tbptt_windows,
                policy=t.checkpointing,
                executor=t.executor,
            )
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            return time.perf_counter() - start
        return min(time.perf_counter() - start, time.process_time() - computed)

    return seconds
