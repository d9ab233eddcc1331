"""The structure of passes: which window runs which blocks how often, with which gradient and which recomputation.

It is decided once, from a batch's windows, ``SleepConfig``, the model's blocks and the checkpointing policy. Executors
run it; FLOPs and activation memory are counted from it. N, the loop, the dead tail and checkpointing are encoded
nowhere else.
"""

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from sleep_lightning.model import Flops, WindowModel
from sleep_lightning.sleep.config import SleepConfig
from sleep_lightning.sleep.counted_flops import counted_pass_flops
from sleep_lightning.sleep.windows import Window

Checkpointing = Literal["none", "mlp", "pass", "window"]
"""What the backward recomputes instead of keeping its activations: nothing, the MLPs, each pass but its inputs, or all
passes of a window together."""


class Stack(Protocol):
    """What a schedule needs to know of a model. Its configuration may say it as well as the model itself."""

    @property
    def n_blocks(self) -> int: ...

    @property
    def summary_tokens(self) -> int: ...

    def writers(self, *, cached: bool = False) -> Sequence[int]: ...


@dataclass(frozen=True)
class Pass:
    """One run of consecutive blocks over one window.

    Attributes:
        n: number of the pass, from 1; the prelude belongs to the first and the coda to the last.
        part: of the loop: the core runs N times, prelude and coda once.
        blocks: those that run: of a pass that only writes, up to the last that writes (what follows is dead).
        writes_only: its hidden states are not wanted, only the memory.
        gradient: whether it is recorded for the backward.
        recompute: what the backward recomputes of this pass.
        mlps: whether its blocks run their MLPs.
        frozen: blocks before this one have no backward: nothing learns up to there.
    """

    n: int
    part: Literal["prelude", "core", "coda"]
    blocks: range
    writes_only: bool = False
    gradient: bool = True
    recompute: Literal["none", "mlp", "pass"] = "none"
    mlps: bool = True
    frozen: int = 0

    @property
    def recorded(self) -> range:
        """The blocks that the backward gets to."""
        return range(max(self.blocks.start, self.frozen), self.blocks.stop) if self.gradient else range(0)


@dataclass(frozen=True)
class PlannedWindow:
    """A window and its passes.

    Attributes:
        window: which tokens, and whether it sleeps.
        passes: in order.
        tokens: tokens that a pass runs over: those of the window, retrieved ones, summaries and their slots.
        recompute: the backward recomputes all its passes together.
        reached: whether a gradient of the loss gets here (memory is detached between segments).
    """

    window: Window
    passes: tuple[Pass, ...]
    tokens: int
    recompute: bool
    reached: bool


def plan_passes(
    stack: Stack, config: SleepConfig, *, sleeps: bool, checkpointing: Checkpointing = "none", frozen: int = 0
) -> tuple[Pass, ...]:
    """The passes over one window: N if it sleeps, ``wake_passes`` if it answers.

    Of the last pass of a window that sleeps only the memory is used, so what follows the last write is left out; with
    summary tokens their hidden states are used, too. The first pass over ``frozen`` first blocks, which do not learn,
    has no backward.

    Raises:
        ValueError: the model's blocks lack what ``looped`` or the policy asks of them.
    """
    check_looped(stack, config)
    check_checkpointing(stack, checkpointing)
    recompute: Literal["none", "mlp", "pass"] = "none"
    if checkpointing == "mlp" or (checkpointing == "pass" and sleeps):
        recompute = checkpointing
    everything = range(stack.n_blocks)
    if not sleeps and config.wake_passes == 1:
        return (_recomputed(Pass(1, "core", everything, frozen=frozen), recompute),)
    prelude, core, coda = config.parts(stack.n_blocks)
    N = config.n_passes if sleeps else config.wake_passes
    truncated, first = (config.truncated, N - (config.grad_passes or N) + 1) if sleeps else (False, 1)
    wants_hidden = not sleeps or stack.summary_tokens > 0
    tail = coda if wants_hidden else until_last_write(stack, config, coda)
    passes = [Pass(1, "prelude", prelude, gradient=not truncated, frozen=frozen)] if prelude else []
    for n in range(1, N + 1):
        writes_only = n == N and not wants_hidden and not tail
        blocks = until_last_write(stack, config, core) if writes_only else core
        mlps = n == 1 or not sleeps or config.looped == "blocks"
        leading = frozen if n == 1 else 0
        passes.append(Pass(n, "core", blocks, writes_only, gradient=n >= first, mlps=mlps, frozen=leading))
    if tail:
        passes.append(Pass(N, "coda", tail, writes_only=not wants_hidden))
    return tuple(_recomputed(p, recompute) for p in passes)


def _recomputed(p: Pass, recompute: Literal["none", "mlp", "pass"]) -> Pass:
    p = replace(p, gradient=bool(p.recorded) or (p.gradient and not p.blocks))
    nothing = not p.gradient or (recompute == "mlp" and not p.mlps)
    return replace(p, recompute="none" if nothing else recompute)


def until_last_write(stack: Stack, config: SleepConfig, part: range) -> range:
    """The blocks of ``part`` up to the last that writes memory; none if none does."""
    written = [i for i in stack.writers(cached=config.cached_tokens > 0) if i in part]
    return range(part.start, written[-1] + 1 if written else part.start)


def make_schedule(
    stack: Stack,
    windows: Sequence[Window],
    config: SleepConfig,
    *,
    checkpointing: Checkpointing = "none",
    tbptt_windows: int | None = None,
    frozen: int = 0,
) -> list[list[PlannedWindow]]:
    """Plan consecutive windows.

    Args:
        stack: the model, or its configuration.
        windows: from ``plan_windows``.
        config: N and its options.
        checkpointing: what the backward recomputes.
        tbptt_windows: k: memory is detached every k windows; None: never.
        frozen: first blocks that do not learn, behind an embedding that does not (``frozen_blocks``).

    Returns:
        The windows by segment: each ends with a backward, behind which the memory is detached.
    """
    options: dict[str, Any] = {"checkpointing": checkpointing, "frozen": frozen}
    asleep, awake = (plan_passes(stack, config, sleeps=s, **options) for s in (True, False))
    k, m, summaries, segments = tbptt_windows or max(1, len(windows)), stack.summary_tokens, 0, []
    for start in range(0, len(windows), k):
        segment = windows[start : start + k]
        planned = []
        for window, reached in zip(segment, _reached(segment, config.truncated), strict=True):
            tokens = window.stop - window.start + summaries
            if window.sleeps:
                tokens, summaries = tokens + m, summaries + m
            else:
                tokens += min(config.retrieved_windows, window.start // config.window_size) * config.window_size
            recompute = checkpointing == "window" or (checkpointing == "pass" and not window.sleeps)
            planned.append(PlannedWindow(window, asleep if window.sleeps else awake, tokens, recompute, reached))
        segments.append(planned)
    return segments


def _reached(segment: Sequence[Window], truncated: bool) -> list[bool]:
    """Which windows of a segment the loss reaches: memory is also detached before each that sleeps truncated."""
    reached, wanted = [], False
    for window in reversed(segment):
        wanted = wanted or not window.sleeps
        reached.append(wanted)
        wanted = wanted and not (truncated and window.sleeps)
    return reached[::-1]


def recomputes_passes(checkpointing: Checkpointing) -> bool:
    """Whether whole passes are recomputed: then little is kept, and windows must run one by one."""
    return checkpointing in ("pass", "window")


def check_looped(stack: Stack, config: SleepConfig) -> None:
    """Raises ValueError if passes are to run mixers alone and the model's blocks cannot, or are to end with what they
    change of fast weights and change none."""
    if config.tolerance is not None and config.n_passes > 1:
        core = config.parts(stack.n_blocks)[1]
        if not any(i in core for i in stack.writers()):
            raise ValueError(
                f"sleep.tolerance={config.tolerance} ends the passes by what they change of the fast weights, and no "
                f"looped block holds any; use null"
            )
    if config.looped == "mixers" and _lacks(stack, "mlps"):
        raise ValueError(
            f"sleep.looped=mixers needs a model that can leave out its MLPs: {type(stack).__name__}.blocks has no "
            f"mlps; use blocks"
        )


def check_checkpointing(stack: Stack, checkpointing: Checkpointing) -> None:
    """Raises ValueError if the policy asks the blocks to recompute their MLPs and they cannot."""
    if checkpointing == "mlp" and _lacks(stack, "recompute_mlp"):
        raise ValueError(
            f"training.checkpointing=mlp needs a model that recomputes its MLPs: {type(stack).__name__}.blocks has no "
            f"recompute_mlp; use pass, window or none"
        )


def _lacks(stack: Stack, option: str) -> bool:
    """Whether a model's blocks do not take the option; a configuration has none."""
    return hasattr(stack, "blocks") and option not in inspect.signature(stack.blocks).parameters


class PassFlops:
    """FLOPs of the passes of schedules, over one sequence: what ``cost`` and a session's bill both read.

    Args:
        model: says them (``pass_flops``), or is run on one sequence and its products counted.
        config: the sleep that the schedules are of.
    """

    def __init__(self, model: WindowModel, config: SleepConfig) -> None:
        self._model, self._cached_tokens, self._carries = model, config.cached_tokens, config.carry_conv_state
        self._known: dict[tuple[int, range, bool, bool, int], Flops] = {}

    def __call__(self, planned: PlannedWindow, p: Pass) -> Flops:
        """Forward and backward of a pass; the backward with what is recomputed in it, and nothing if it has none."""
        flops = self._flops(planned.tokens, p.blocks, p.writes_only, p.mlps, self._cached_tokens)
        if not (p.gradient and planned.reached):
            return Flops(flops.forward)
        leading = self._flops(
            planned.tokens, range(p.blocks.start, p.recorded.start), False, p.mlps, self._cached_tokens
        )
        backward = flops.backward - leading.backward
        if planned.recompute or p.recompute == "pass":
            backward += flops.forward
        elif p.recompute == "mlp":
            backward["mlp"] += flops.mlp_recompute - leading.mlp_recompute
        return Flops(flops.forward, backward)

    def of_reading(self, T: int, cached_tokens: int) -> int:
        """Forward FLOPs of T tokens that are read behind ``cached_tokens``, in one pass through all blocks."""
        return self._flops(T, range(self._model.n_blocks), False, True, cached_tokens).forward.total()

    def after_reading(self, planned: PlannedWindow, n_passes: int) -> int:
        """Forward FLOPs of a sleep of ``n_passes`` over a window that has been read, which was the first of them."""
        if n_passes <= 1:
            return 0
        made = (p for p in planned.passes if p.part == "coda" or (p.part == "core" and 1 < p.n <= n_passes))
        return sum(self(planned, p).forward.total() for p in made)

    def _flops(self, T: int, blocks: range, writes_only: bool, mlps: bool, cached_tokens: int) -> Flops:
        key = (T, blocks, writes_only, mlps, cached_tokens)
        if key not in self._known:
            options = {} if mlps else {"mlps": False}  # a model that has none need not know of them
            takes = inspect.signature(self._model.pass_flops).parameters
            carries = {"carry_conv_state": True} if self._carries and "carry_conv_state" in takes else {}
            said = self._model.pass_flops(
                T, blocks, writes_only=writes_only, cached_tokens=cached_tokens, **options, **carries
            )
            self._known[key] = said or counted_pass_flops(
                self._model, T, blocks, writes_only, cached_tokens, self._carries, **options
            )
        return self._known[key]
