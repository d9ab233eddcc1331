"""Options of the sleep."""

import re
from dataclasses import dataclass, field, replace
from typing import Literal

Eviction = Literal["hard", "sliding"]
Looped = Literal["blocks", "mixers"]
MOST_PASSES = 4096


@dataclass
class SleepConfig:
    """Section ``sleep``: windows, passes and eviction. Raises ValueError for values out of range."""

    window_size: int = field(default=24, metadata={"high": 2**24})
    """L: tokens of a window, and of the attention cache."""
    n_passes: int = field(default=1, metadata={"high": MOST_PASSES})
    """N: TOTAL passes over a window before it is evicted; 1 is the plain hybrid."""
    eviction: Eviction = "hard"
    """What happens to attention's cache at a window's end: hard forgets it, sliding keeps its last L - 1 tokens."""
    loop: str = "all"
    """Blocks that are looped: all, or prelude/core/coda as counts (7/14/7: only the middle 14 run N times)."""
    looped: Looped = "blocks"
    """What passes 2 to N run of each block: all of it, or its mixer alone (the memory is looped, the MLP runs once)."""
    wake_passes: int = field(default=1, metadata={"high": MOST_PASSES})
    """Passes over a window with answers, each from the memory the window began with (a control: loops when awake)."""
    retrieved_windows: int = field(default=0, metadata={"high": 2**24})
    """k: evicted windows put back in front of a question, those most like it (a control: retrieval)."""
    pass_input: Literal["hidden", "embed", "inject"] = "hidden"
    """Input of pass n + 1: hidden states of pass n (the paper), the embeddings again, or the sum of both."""
    loop_norm: bool = False
    """Apply the model's final norm to the hidden states between passes (as Ouro does)."""
    reset_memory_between_passes: bool = False
    """Start every pass from the memory the window began with (a control: only h crosses passes)."""
    grad_passes: int | None = field(default=None, metadata={"high": MOST_PASSES})
    """m: only the last m passes of a window (and the coda) carry gradient, none crosses windows if m < N; null: all."""
    tolerance: float | None = None
    """Adaptive sleep: a sequence's passes over a window end once one changed its fast weights by no more than this
    share of their norm; at most N. It needs fast weights in the loop. Not in training, which runs all N (draw them:
    training.sampled_passes). null: always N."""
    carry_conv_state: bool = False
    """Carry the short convolution's last inputs over passes and windows instead of restarting it."""

    def __post_init__(self) -> None:
        if self.loop != "all" and not re.fullmatch(r"\d{1,9}/0*[1-9]\d{0,8}/\d{1,9}", self.loop):
            raise ValueError(
                f"sleep.loop={self.loop!r} must be all, or the numbers of blocks before, in and after the loop as "
                f"prelude/core/coda, for example 1/2/1"
            )
        if self.wake_passes < 1:
            raise ValueError(f"sleep.wake_passes={self.wake_passes} must be at least 1: one ordinary pass")
        if self.retrieved_windows < 0:
            raise ValueError(f"sleep.retrieved_windows={self.retrieved_windows} must be 0 (no retrieval) or more")
        if self.window_size < 2:
            raise ValueError(f"sleep.window_size={self.window_size} must be at least 2 tokens")
        if self.n_passes < 1:
            raise ValueError(
                f"sleep.n_passes={self.n_passes} must be at least 1: it counts ALL passes, and 1 is the plain hybrid"
            )
        if self.tolerance is not None and not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"sleep.tolerance={self.tolerance} must be from 0 (0.05, for example), or null")
        if self.grad_passes is not None and not 1 <= self.grad_passes <= self.n_passes:
            raise ValueError(
                f"sleep.grad_passes={self.grad_passes} must be from 1 to sleep.n_passes={self.n_passes}, "
                f"or null for all"
            )

    def with_passes(self, n_passes: int) -> "SleepConfig":
        """The same with another N; no more passes than that carry gradient."""
        return replace(self, n_passes=n_passes, grad_passes=self.grad_passes and min(self.grad_passes, n_passes))

    def parts(self, n_blocks: int) -> tuple[range, range, range]:
        """Prelude, core and coda of a stack: the core is looped, the others run once a window."""
        if self.loop == "all":
            return range(0), range(n_blocks), range(n_blocks, n_blocks)
        prelude, core, coda = map(int, self.loop.split("/"))
        if prelude + core + coda != n_blocks:
            raise ValueError(
                f"sleep.loop={self.loop!r} counts {prelude + core + coda} blocks, the model has {n_blocks}; "
                f"the three numbers must add up to it"
            )
        return range(prelude), range(prelude, prelude + core), range(prelude + core, n_blocks)

    @property
    def truncated(self) -> bool:
        """Whether the first passes of a window carry no gradient, and so nothing before the window does."""
        return self.grad_passes is not None and self.grad_passes < self.n_passes

    @property
    def cached_tokens(self) -> int:
        """Tokens whose keys and values cross a boundary."""
        return self.window_size - 1 if self.eviction == "sliding" else 0
