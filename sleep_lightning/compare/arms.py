"""Arms: the controls a claim about sleep needs, each a few ``key=value`` changes of one experiment."""

import json
import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from sleep_lightning.compare.beside import in_one_window, keep
from sleep_lightning.config import Experiment, Override, load_experiment
from sleep_lightning.config.checks import did_you_mean
from sleep_lightning.cost.run_flops import predict_flops, steps_within
from sleep_lightning.model import ModelConfig
from sleep_lightning.names import check_name
from sleep_lightning.redaction import redact

REPEATS = 10
"""How often the arm with repeated data sees a sequence."""
TOLERANCE = 0.1
"""``sleep.tolerance`` of the adaptive arm."""


@dataclass(frozen=True)
class Arm:
    """A configuration under a name.

    Attributes:
        name: as given on the command line, up to the first colon.
        changes: ``key=value`` overrides of the base experiment.
        about: one line of description.
    """

    name: str
    changes: tuple[str, ...]
    about: str

    def apply(self, base: Experiment, *more: Override, key: str = "--arms") -> Experiment:
        """The base experiment with the arm's changes. Raises ValueError, naming the arm, if they do not fit it."""
        try:
            return load_experiment(base.to_dict(), [*self.changes, *more])
        except ValueError as error:
            raise ValueError(f"{key} {self.name}: {error}") from error


def _attention_only(e: Experiment) -> list[str]:
    return [f"model.pattern={e.model.attention_only}", "sleep.n_passes=1", "sleep.loop=all"]


def _summaries(e: Experiment) -> list[str]:
    return [*_attention_only(e), f"model.summary_tokens={max(1, e.sleep.window_size // 4)}"]


def _with_one_pass(e: Experiment, **sleep: str) -> Experiment:
    """The base as an arm of one pass trains it."""
    stages = [replace(stage, n_passes=None) for stage in e.training.stages]
    training = replace(e.training, sampled_passes=[], stages=stages)
    return replace(e, sleep=replace(e.sleep, n_passes=1, grad_passes=None, **sleep), training=training)  # type: ignore[arg-type]


def _deeper(e: Experiment) -> list[str]:
    """The pattern's period repeated until training with one pass costs what it does with the base's passes, to the
    nearest whole period."""
    model, period, wanted = e.model, e.model.period, predict_flops(e)
    assert isinstance(model, ModelConfig)  # others have no period
    once = _with_one_pass(e, loop="all")

    def flops(repeats: int) -> float:
        return predict_flops(replace(once, model=replace(model, pattern=period * repeats)))

    counts = range(1, model.n_blocks * e.sleep.n_passes // len(period) + 1)
    after = bisect_left(counts, wanted, key=flops)
    nearest = min(counts[max(0, after - 1) : after + 1] or counts[-1:], key=lambda n: abs(flops(n) - wanted))
    return [f"model.pattern={period * nearest}", "sleep.n_passes=1", "sleep.loop=all"]


def _more_tokens(e: Experiment) -> list[str]:
    steps = steps_within(_with_one_pass(e), predict_flops(e))
    return ["sleep.n_passes=1", f"training.max_steps={steps}"]


def _curriculum(e: Experiment) -> list[str]:
    """N = 1, 2, ... in stages of equal length over the first half of training."""
    N = e.sleep.n_passes
    steps = max(1, e.training.max_steps // (2 * (N - 1)))
    stages = ", ".join(f"{{steps: {steps}, n_passes: {n}}}" for n in range(1, N))
    return [f"training.stages=[{stages}]"]


def _sampled(e: Experiment) -> list[str]:
    return [f"training.sampled_passes={list(range(1, e.sleep.n_passes + 1))}"]


def _repeated(e: Experiment) -> list[str]:
    """As many different sequences as a tenth of the base's steps see."""
    t = e.training
    return [f"training.unique_sequences={t.batch_size * max(1, t.max_steps // REPEATS)}"]


def _staged(e: Experiment) -> list[str]:
    """The memory alone, under hard eviction, for the first third."""
    steps = max(1, e.training.max_steps // 3)
    return ["sleep.eviction=sliding", f"training.stages=[{{steps: {steps}, train: memory, eviction: hard}}]"]


ARMS: dict[str, tuple[str, Callable[[Experiment], list[str]]]] = {
    "attention": ("attention only, hard eviction: cannot remember", _attention_only),
    "full-attention": (
        "attention only, nothing evicted: upper bound",
        lambda e: [*_attention_only(e), *in_one_window(e)],
    ),
    "deeper": ("untied blocks, one pass, equal FLOPs a step", _deeper),
    "more-tokens": ("one pass, equal FLOPs by more steps", _more_tokens),
    "wake-loops": (
        "the passes spent on the answer instead",
        lambda e: ["sleep.n_passes=1", f"sleep.wake_passes={e.sleep.n_passes}"],
    ),
    "re-embed": ("every pass reads the embeddings again", lambda e: ["sleep.pass_input=embed"]),
    "reset-memory": (
        "only hidden states cross passes",
        lambda e: ["sleep.reset_memory_between_passes=true"],
    ),
    "retrieval": (
        "one pass; the most similar evicted window is read again",
        lambda e: ["sleep.n_passes=1", "sleep.retrieved_windows=1"],
    ),
    "bm25": (
        "attention only; the question with the window of text that BM25 finds for it",
        lambda e: [*_attention_only(e), *keep(e, "bm25")],
    ),
    "summary": (
        "attention only; the question with an extractive summary, one window long",
        lambda e: [*_attention_only(e), *keep(e, "summary")],
    ),
    "compaction": ("attention only; each window leaves L / 4 summary tokens", _summaries),
    "sampled-n": ("N drawn each step from 1 to the base's", _sampled),
    "adaptive": (
        f"the same, tested with passes until the memory changes by {TOLERANCE:.0%} at most",
        lambda e: [*_sampled(e), f"sleep.tolerance={TOLERANCE}"],
    ),
    "curriculum": ("N grows from 1 over the first half of training", _curriculum),
    "mixers": ("passes 2 to N without the MLPs", lambda e: ["sleep.looped=mixers"]),
    "sliding": ("sliding-window eviction", lambda e: ["sleep.eviction=sliding"]),
    "sliding-staged": ("the same, after a third of the steps on memory alone under hard eviction", _staged),
    "repeated": (f"the same sequences seen {REPEATS} times", _repeated),
    "repeated-tokens": (
        "the same sequences, one pass, equal FLOPs by more steps",
        lambda e: [*_repeated(e), *_more_tokens(e)],
    ),
}
"""Name -> description, and what derives its changes from the base. Also: ``n<N>`` and ``name:key=value;...``."""

NEEDS_PASSES = (
    *("deeper", "more-tokens", "repeated-tokens", "wake-loops"),
    *("sampled-n", "adaptive", "curriculum", "mixers", "re-embed", "reset-memory"),
)
"""Arms that say something only against a base of several passes."""
NEEDS_TEXT = ("bm25", "summary")
"""Arms that cut down a text."""


def _with_own_passes(base: Experiment, changes: list[str]) -> tuple[str, ...]:
    """An arm that sets N trains with it, though the base draws its own at every step, or has others in its stages."""
    t = base.training
    if not any(change.startswith("sleep.n_passes=") for change in changes):
        return tuple(changes)
    drawn = ["training.sampled_passes=[]"] if t.sampled_passes else []
    stages = [asdict(replace(stage, n_passes=None)) for stage in t.stages]
    staged = any(stage.n_passes is not None for stage in t.stages)
    return (*changes, *drawn, *([f"training.stages={json.dumps(stages)}"] if staged else []))


def build_arms(base: Experiment, names: list[str], key: str = "--arms") -> list[Arm]:
    """Arms by name.

    Args:
        base: the experiment they change; equal-FLOPs arms match the FLOPs of its N.
        names: names in ``ARMS``; ``n4``: the base with N = 4; ``wide:model.d_model=96;model.n_heads=3``: any changes.
        key: where the names were given, for errors.

    Raises:
        ValueError: an unknown name, or a change that cannot be made.
    """
    arms = [_build_arm(base, name, key) for name in names]
    for arm in arms:
        arm.apply(base, key=key)
    if len({arm.name for arm in arms}) < len(arms):
        raise ValueError(f"{key} {' '.join(names)} names an arm twice; give each a name of its own")
    return arms


def _build_arm(base: Experiment, text: str, key: str) -> Arm:
    name, colon, changes = text.partition(":")
    check_name(key, name)
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        fix = f"write several apart: {text.replace(',', ' ')}" if "," in text else "for example wide:..."
        raise ValueError(f"{key} {text!r}: the name must be letters, digits, dots or dashes; {fix}")
    if colon:
        return Arm(name, tuple(change.strip() for change in changes.split(";")), redact(changes))
    if (passes := re.fullmatch(r"n(\d+)", name)) is not None:
        N = int(passes[1])
        about = "plain hybrid, one pass" if N == 1 else f"sleep, {N} passes"
        return Arm(name, _with_own_passes(base, [f"sleep.n_passes={N}"]), about)
    if name not in ARMS:
        if (close := did_you_mean(name, ARMS)) is not None:
            raise ValueError(f"{key} {name!r} is unknown; {close}")
        raise ValueError(
            f"{key} {name!r} is unknown; use n1, n2, ... for passes, one of {', '.join(ARMS)}, or name:key=value;..."
        )
    if base.sleep.n_passes == 1 and name in NEEDS_PASSES:
        raise ValueError(
            f"{key} {name} compares with the base's N passes, and sleep.n_passes=1; set it, for example to 4"
        )
    about, changes_of = ARMS[name]
    try:
        return Arm(name, _with_own_passes(base, changes_of(base)), about)
    except ValueError as error:
        raise ValueError(f"{key} {name}: {error}") from error
