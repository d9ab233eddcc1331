"""``key=value`` arguments where a trained model is held: those of its experiment that something reads there."""

from collections.abc import Sequence

from sleep_lightning.config.values import parse_change

OF_THE_MACHINE = ("training.accelerator", "training.search_path")
"""Keys of training that count for a trained model, too."""
TRAINING_ONLY = "sleep.grad_passes"


def check_overrides(overrides: Sequence[str]) -> None:
    """Raises ValueError for a key that nothing reads where a model is held: of training, and of its records."""
    for key, value, _ in map(parse_change, overrides):
        if key == TRAINING_ONLY or (key.startswith(("training.", "tracking.")) and key not in OF_THE_MACHINE):
            raise ValueError(f"{key}={value} would change nothing: a model is held here, and not trained; drop it")


def sleep_changes(overrides: Sequence[str]) -> list[str]:
    """The keys of ``sleep`` that are changed, without the section."""
    keys = [key for key, _, _ in map(parse_change, overrides)]
    return [key.removeprefix("sleep.") for key in keys if key.startswith("sleep.")]
