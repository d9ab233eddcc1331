"""Peak memory of a training step of an experiment, predicted: weights, gradients, optimizer, activations."""

from collections import Counter
from dataclasses import replace

from sleep_lightning.config import Experiment
from sleep_lightning.config.stages import drawn_passes
from sleep_lightning.cost.activation_memory import FP32, PassBytes, predict_peak, probe_pass
from sleep_lightning.cost.flops import muon_matrices
from sleep_lightning.cost.windows import expected_schedules, labelled_share
from sleep_lightning.model import HybridLM, WindowModel
from sleep_lightning.model.parameter_groups import counted_parameters, together
from sleep_lightning.ops.dtype import autocast
from sleep_lightning.sleep.schedule import recomputes_passes
from sleep_lightning.tasks.tokenizer import BYTES
from sleep_lightning.tasks.word_tokenizer import WORDS

BF16 = 2
FIRST_STEP = 66_000_000
"""Bytes that the first step of any model adds to a process on the CPU besides tensors: code that loads. This and HEAP
are fitted to thirteen runs of one machine (docs/speed.md)."""
HEAP = {"keep": 1.14, "libc": 1.14, "return": 0.92}
"""What the heap takes for activations, by ``training.allocator``: gaps; not all that is predicted lives at one time."""

TEXTS, TOKENIZER = 12_000_000, 35_000_000
"""Bytes of the texts that a task keeps, as ``articles`` does, and of a library's tokenizer, as SmolLM2's."""


def predict_process_memory(experiment: Experiment, model: WindowModel, step_memory: int) -> int:
    """Bytes by which a process on the CPU grows in training, of the tensors of ``predict_step_memory``.

    A heap that keeps what is freed has gaps that the gradients of the next step do not fit into: it holds them twice
    (of 146M parameters: docs/pretrained.md).
    """
    allocator, resting = experiment.training.allocator, _resting(experiment, model)
    again = FP32 * counted_parameters(model)[1] if allocator == "keep" else 0
    tokenizer = getattr(experiment.task, "tokenizer", None)
    texts = 0 if tokenizer is None else TEXTS + (0 if tokenizer in (BYTES, WORDS) else TOKENIZER)
    return FIRST_STEP + texts + resting + again + round(HEAP[allocator] * (step_memory - resting))


def _resting(experiment: Experiment, model: WindowModel) -> int:
    """Bytes of weights, gradients (whole) and optimizer: a moment of what Muon trains, two (as Adam) of the rest."""
    weights, learning = counted_parameters(model)
    muon = sum(p.numel() for p, _ in muon_matrices(experiment, model))
    kept = weights + muon + 2 * (learning - muon)
    t = experiment.training
    return FP32 * ((kept // t.processes if t.sharding == "full" else kept) + learning)


def probe_row(experiment: Experiment, model: WindowModel) -> PassBytes:
    """What a pass over one sequence of the experiment keeps: passes over one and two are run and counted."""
    t, L = experiment.training, min(experiment.sleep.window_size, experiment.task.build().sequence_length)
    device = next(iter(model.parameters())).device
    with autocast(device.type, enabled=t.precision == "bf16"):
        one, two = (probe_pass(model, L, rows, t.checkpointing, experiment.sleep.looped) for rows in (1, 2))
    # without the weights' bf16 copies, which autocast caches for all sequences and passes
    per_row = {key: getattr(two, key) - getattr(one, key) for key in ("full", "write", "checkpointed", "mlps")}
    return replace(one, **per_row)


def predict_step_memory(experiment: Experiment, model: WindowModel, passes: PassBytes | None = None) -> int | None:
    """Peak bytes of a training step on the model's device (on each, of several), for the largest N it may draw.

    Eviction of stages is not considered.

    Args:
        experiment: what is trained.
        model: its model.
        passes: of ``probe_row``, which depends on neither N nor the batch; None: made here.

    Returns:
        None under ``torch.compile``, where the compiler decides what is kept, and for CUDA graphs, which keep it.
    """
    t = experiment.training
    if t.compile or t.cuda_graph:
        return None
    passes = passes or probe_row(experiment, model)
    sleep = experiment.sleep.with_passes(max(drawn_passes(experiment)))
    rows = t.batch_size // t.accumulate // t.processes
    logits = round(labelled_share(experiment, model) * model.vocab_size)
    activations = max(
        predict_peak(passes, schedule, rows, logits) for schedule, _ in expected_schedules(experiment, model, sleep)
    )
    resting, (weights, learning) = _resting(experiment, model), counted_parameters(model)
    if t.sharding == "full":
        gathered = (BF16 if t.precision == "bf16" else FP32) * _gathered(experiment, model)
        return resting + gathered + activations
    copies = BF16 * weights if t.precision == "bf16" else 0
    exchanged = learning if t.processes > 1 else 0  # gradients, flat
    # the exchange and Muon's updates come after the activations are freed
    return resting + max(activations + copies, _updates(experiment, model), FP32 * exchanged)


def _updates(experiment: Experiment, model: WindowModel) -> int:
    """Bytes that Muon takes for the matrices of one shape that it has at a time: twice in fp32, twice in bf16, and
    their Grams."""
    by_shape: Counter[tuple[int, int]] = Counter()
    for p, splits in muon_matrices(experiment, model):
        by_shape.update((rows, p.shape[1]) for rows in splits)
    sizes = (
        min(n, together(r, c)) * (2 * (FP32 + BF16) * r * c + 3 * BF16 * min(r, c) ** 2)
        for (r, c), n in by_shape.items()
    )
    return max(sizes, default=0)


def _gathered(experiment: Experiment, model: WindowModel) -> int:
    """Weights that a rank has whole at a time. A recomputed pass keeps all its blocks until the end of the backward."""
    assert isinstance(model, HybridLM), "only the hybrid is sharded"
    blocks = [sum(p.numel() for p in block.parameters()) for block in model.stack]
    weights, t = sum(p.numel() for p in model.parameters()), experiment.training
    drops = t.reshard_after_forward and not recomputes_passes(t.checkpointing)
    return weights - sum(blocks) + max(blocks) if drops else weights
