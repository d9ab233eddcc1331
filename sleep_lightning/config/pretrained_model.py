"""``model.pretrained``: the keys of the model that a directory of weights decides."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from sleep_lightning.config.checks import shown
from sleep_lightning.config.outline import outline
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.pretrained.loading import check_snapshot, model_values
from sleep_lightning.pretrained.snapshot import CONFIG
from sleep_lightning.pretrained.sources import how_to_get

if TYPE_CHECKING:
    from sleep_lightning.config.experiment import Experiment

KEY = "model.pretrained"


def add_pretrained(values: dict[str, Any], *, saved: bool) -> None:
    """Add the sizes of a pretrained model to the keys and values of an experiment.

    Args:
        values: by key; changed in place.
        saved: they were saved with all sizes: those hold, whatever has become of the directory.

    Raises:
        ValueError: the directory cannot be read, or a key says something else than it does.
    """
    folder, insert = values.get(KEY), values.get("model.insert") or {}
    if folder is None or saved:
        return
    if not isinstance(folder, str) or not isinstance(insert, dict):
        key, value = (KEY, folder) if not isinstance(folder, str) else ("model.insert", insert)
        kind = "a directory" if key == KEY else "a mapping, {every: 4} for example"
        raise ValueError(f"{key}={shown(value, None)} must be {kind}")
    if not Path(folder).is_dir():
        known = how_to_get(folder)
        fix = f"name one with {CONFIG} and *.safetensors" if known is None else f"{known} fetches it"
        raise ValueError(f"{KEY}={folder} is no directory; {fix}")
    for name, value in model_values(folder, insert).items():
        key = f"model.{name}"
        if values.get(key, value) != value and key != "model.insert":
            raise ValueError(f"{key}={shown(values[key], None)} is decided by {KEY}={folder}: {value!r}; leave it out")
        values[key] = value


def check_weights(experiment: "Experiment") -> None:
    """Raises ValueError if the directory of a pretrained model does not hold the weights that its config promises."""
    if isinstance(m := experiment.model, ModelConfig) and m.pretrained is not None:
        check_snapshot(cast(HybridLM, outline(experiment)), Path(m.pretrained))
