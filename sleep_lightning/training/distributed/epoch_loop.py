"""Lightning's training loop without its own exchange in every step."""

from typing import Self

from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop


class EpochLoop(_TrainingEpochLoop):
    """Lightning broadcasts in every step, from rank zero alone, whether it got SIGTERM, and waits for the answer.

    Here a step exchanges once: ``Preemption``'s votes of all ranks travel with the gradients.
    """

    @classmethod
    def instead_of(cls, loop: _TrainingEpochLoop) -> Self:
        """A loop that takes the place of a trainer's own before it has run."""
        own = cls(loop.trainer, min_steps=loop.min_steps, max_steps=loop.max_steps)
        own.val_loop = loop.val_loop  # it knows where validation data come from
        return own

    def _broadcast_sigterm_tensor(self) -> None:
        return
