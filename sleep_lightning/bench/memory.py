"""Peak memory of a training step, measured in a process of its own, and its prediction."""

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace

import torch

from sleep_lightning.bench.step import Setting, our_step
from sleep_lightning.bench.worker import Worker
from sleep_lightning.cost.activation_memory import predict_peak, probe_pass
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.sleep import Checkpointing, SleepConfig, make_schedule, plan_windows
from sleep_lightning.tasks import Rule110Config
from sleep_lightning.timing import interleave, ratio, summarize
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.resource_usage import forget_peak, peak_resident_bytes, resident_bytes
from sleep_lightning.training.runtime.malloc import Allocator, tune_allocator
from sleep_lightning.training.runtime.matmul_precision import choose_fp32_matmul

WINDOW = 24


@dataclass(frozen=True)
class Case:
    """A training step: windows that sleep, N, width, batch, truncation, checkpointing, and the allocator's mode.

    The prediction counts live memory, which is what the process holds if freed memory is returned at once.
    """

    windows: int
    n_passes: int
    d_model: int
    batch: int
    tbptt: int | None = None
    policy: Checkpointing = "none"
    allocator: Allocator = "return"

    def __str__(self) -> str:
        sizes = f"{self.windows} windows, N={self.n_passes}, d={self.d_model}, B={self.batch}"
        return f"{sizes}, k={self.tbptt}, {self.policy}, {self.allocator}"


CASES = (
    Case(8, 1, 128, 32),
    Case(8, 4, 128, 32),
    Case(16, 4, 128, 32),
    Case(16, 4, 128, 32, tbptt=3),
    Case(16, 4, 128, 32, policy="mlp"),
    Case(16, 4, 128, 32, policy="window"),
    Case(16, 4, 128, 32, policy="pass"),
    Case(64, 4, 256, 32, policy="pass"),
    Case(64, 4, 256, 32, policy="pass", allocator="keep"),
)


def bench_memory(seconds: float, cases: tuple[Case, ...] = CASES) -> Iterator[dict[str, object]]:
    """A row per case: predicted and measured activation bytes, the peak of the process, the time of the step."""
    for case in cases:
        command = [sys.executable, "-m", "sleep_lightning.bench.memory", json.dumps(asdict(case))]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        measured = json.loads(done.stdout)
        yield {"what": "peak memory of a step", "shape": str(case), "dtype": "fp32"} | measured
    yield from _time_of_checkpointing(seconds)


def _time_of_checkpointing(seconds: float) -> Iterator[dict[str, object]]:
    setting = Setting(4)
    experiment = setting.experiment()
    batch = experiment.task.build().batch(setting.batch, seed=0, position=0)
    policies: tuple[Checkpointing, ...] = ("none", "mlp", "pass", "window")
    with ExitStack() as stack:
        steps: dict[str, Callable[[], object]] = {}
        for policy in policies:
            training = replace(experiment.training, checkpointing=policy)
            worker = Worker(our_step, replace(experiment, training=training), batch)
            steps[policy] = stack.enter_context(worker)
        times = interleave(steps, seconds, rounds=5, warm=False)
    for policy in policies:
        yield {
            "what": "time of checkpointing",
            "shape": str(setting),
            "dtype": "fp32",
            "contender": policy,
            "median_ms": 1e3 * summarize(times[policy]).median,
            "times_slower_than_none": ratio(times[policy], times["none"]),
            "rounds": len(times[policy]),
        }


def measure(case: Case) -> dict[str, object]:
    """One step in this process; MB above what the process held before."""
    tune_allocator(case.allocator)
    choose_fp32_matmul("auto")
    torch.manual_seed(0)
    task = Rule110Config(ring_size=WINDOW, n_strings=case.windows, steps=[1]).build()
    model = HybridLM(ModelConfig(d_model=case.d_model, n_heads=4), len(task.vocab))
    sleep = SleepConfig(WINDOW, case.n_passes)
    batch = task.batch(case.batch, seed=0, position=0)
    small = Rule110Config(ring_size=WINDOW, n_strings=1, steps=[1]).build().batch(1, seed=0, position=0)
    accumulate_gradients(model, small, sleep, policy=case.policy, executor="windows")  # gradients, kernels, pools
    windows = plan_windows(batch.labels, WINDOW)
    schedule = make_schedule(model, windows, sleep, checkpointing=case.policy, tbptt_windows=case.tbptt)
    predicted = predict_peak(probe_pass(model, WINDOW, policy=case.policy), schedule, case.batch, model.vocab_size)
    before, started = resident_bytes(), time.perf_counter()
    forget_peak()
    accumulate_gradients(model, batch, sleep, tbptt_windows=case.tbptt, policy=case.policy, executor="windows")
    peak = peak_resident_bytes()
    return {
        "predicted_mb": predicted / 1e6,
        "measured_mb": (peak - before) / 1e6,
        "measured_over_predicted": (peak - before) / predicted,
        "process_peak_mb": peak / 1e6,
        "step_s": time.perf_counter() - started,
    }


if __name__ == "__main__":
    print(json.dumps(measure(Case(**json.loads(sys.argv[1])))))
