"""The interface between models and sleep, cost and training, which use nothing else of a model."""

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor

from sleep_lightning.model.flops import Flops
from sleep_lightning.model.memory import Memory

if TYPE_CHECKING:
    from torch import nn


class WindowModel(Protocol):
    """A language model over one window at a time: ``embed`` -> ``blocks`` (once, or N times) -> ``logits``.

    Write ``class MyModel(nn.Module, WindowModel)`` (in this order) to inherit the defaults. Whatever a window leaves
    for later ones is in the ``Memory`` that ``blocks`` returns; ``sleep_lightning.testing.model`` has the contract as
    an inheritable test suite.

    Attributes:
        n_blocks: blocks of the stack; ``sleep.loop`` counts them.
        vocab_size: tokens that ``logits`` tells apart.
        neutral_pad: a token that must leave no trace (not attended to, no write, no decay); None if there is none.
        summary_tokens: m, learned summary tokens that every window leaves in the context; 0 without compaction.
    """

    n_blocks: int
    vocab_size: int
    neutral_pad: int | None = None
    summary_tokens: int = 0

    @abstractmethod
    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Token ids ``[B, T]`` -> hidden states ``[B, T, d_model]``."""
        ...

    @abstractmethod
    def blocks(
        self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None
    ) -> tuple[Tensor, Memory]:
        """One pass over one window; causal in ``h``, and a function of its arguments and the parameters alone.

        Args:
            h: hidden states ``[B, T, d_model]``.
            memory: what earlier windows left.
            pad: neutral pads ``[B, T]``, from ``padding``.
            part: consecutive blocks to run; None for all.

        Returns:
            Hidden states ``[B, T, d_model]`` and the memory after the window's last token.
        """
        ...

    @abstractmethod
    def logits(self, h: Tensor) -> Tensor:
        """Hidden states ``[B, T, d_model]`` -> fp32 logits ``[B, T, vocab]``."""
        ...

    @abstractmethod
    def zero_memory(self, batch_size: int, *, carry_conv_state: bool = False, cached_tokens: int = 0) -> Memory:
        """Memory before the first window: all zeros.

        Args:
            batch_size: sequences.
            carry_conv_state: make room for the short convolutions' inputs (``sleep.carry_conv_state``).
            cached_tokens: keys and values that attention keeps over windows (sliding eviction: L - 1).
        """
        ...

    @abstractmethod
    def writers(self, *, cached: bool = False) -> Sequence[int]:
        """Blocks that leave something for later windows, first to last.

        Args:
            cached: whether keys and values of attention are carried over windows.
        """
        ...

    def write(self, h: Tensor, memory: Memory, pad: Tensor | None = None, part: range | None = None) -> Memory:
        """``blocks(...)[1]``. Override it to leave out whatever follows the last write."""
        return self.blocks(h, memory, pad, part)[1]

    def padding(self, tokens_BT: Tensor) -> Tensor | None:
        """Where neutral pads are, ``[B, T]`` bool; None for a model that knows none."""
        return None if self.neutral_pad is None else tokens_BT == self.neutral_pad

    def loop_norm(self, h: Tensor) -> Tensor:
        """The norm between passes, for ``sleep.loop_norm``."""
        raise ValueError(
            f"sleep.loop_norm=true needs a model with a loop_norm method, which {_name(self)} lacks; drop it"
        )

    def summary_slots(self) -> Tensor:
        """The learned slots ``[m, d_model]`` at a window's end, for ``summary_tokens`` above 0."""
        raise ValueError(f"{_name(self)} has summary_tokens={self.summary_tokens} and no summary_slots; set it to 0")

    def pass_flops(
        self,
        T: int,
        blocks: range,
        *,
        writes_only: bool = False,
        cached_tokens: int = 0,
        mlps: bool = True,
        carry_conv_state: bool = False,
    ) -> Flops | None:
        """FLOPs of a pass of some blocks over T tokens of one sequence, known without running it.

        Args:
            T: tokens.
            blocks: consecutive blocks; with ``writes_only`` up to the last that writes.
            writes_only: only the memory is wanted, as in ``write``.
            cached_tokens: earlier tokens that attention sees.
            mlps: False: the blocks run without their MLPs; given only to models that can.
            carry_conv_state: convolutions' inputs come from the window before; given only to models that take it.

        Returns:
            None if the model does not say: ``cost`` then counts the products of its own operations.
        """
        return None

    def logits_flops(self, T: int) -> int | None:
        """FLOPs of ``logits`` on T tokens; None: as for ``pass_flops``."""
        return None

    if TYPE_CHECKING:  # nn.Module has them

        def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

        def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...

        def to(self, device: Any) -> Self: ...

        def eval(self) -> Self: ...

        def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any: ...


REQUIRED = ("n_blocks", "vocab_size", "embed", "blocks", "logits", "zero_memory", "writers", "write", "padding")


def why_not_window_model(model: Any) -> str | None:
    """What a model lacks of ``WindowModel``, as a sentence; None if it has all that every run needs."""
    missing = [name for name in REQUIRED if not hasattr(model, name)]
    if not missing:
        return None
    return f"{_name(model)} has no {', '.join(missing)}; implement sleep_lightning.model.WindowModel"


def _name(model: object) -> str:
    return type(model).__name__
