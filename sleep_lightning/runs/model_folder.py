"""A trained model to hand on: ``model.safetensors``, ``config.yaml`` and a card, in one small directory.

Nothing in it is pickled. ``config.yaml`` is the experiment without what belongs to one machine: where it was tracked,
and where its run lies.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from sleep_lightning.config import Experiment, Override, TrackingConfig, load_experiment
from sleep_lightning.pretrained.tensor_file import save_tensors
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.files import write_text
from sleep_lightning.runs.space import with_space

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.yaml", "README.md"
AGAIN = "fetch it again, or export it from its run"


def model_folder(path: str | Path) -> Path | None:
    """The directory that is meant: itself, or that of its weights; None: it is neither.

    Raises:
        ValueError: weights without their ``config.yaml``.
    """
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        if not (path.parent / CONFIG).is_file() or path.name != WEIGHTS:
            raise ValueError(
                f"--checkpoint {path} has no {CONFIG} beside it, or is not called {WEIGHTS}: the sizes of its model "
                f"are not known; give the directory that export wrote"
            )
        return path.parent
    return path if (path / WEIGHTS).is_file() and (path / CONFIG).is_file() else None


def write_model_folder(folder: Path, experiment: Experiment, model: nn.Module, card: str) -> None:
    """Write the three files, the large one first: without it the folder is empty, and can be written again. Tensors
    that share their values (tied embeddings) are written once.

    Raises:
        OSError: they cannot be written; DiskFull for want of space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    training = replace(experiment.training, run_dir=None, search_path=[])
    handed_on = replace(experiment.pinned(), tracking=TrackingConfig(), training=training)
    kept = {name: x.detach().cpu().contiguous() for name, x in model.state_dict().items()}
    kept = {name: x for name, x in kept.items() if name not in tied(model)}
    partial = folder / f".{WEIGHTS}.partial"

    def write() -> None:
        try:
            save_tensors(kept, partial)
            partial.replace(folder / WEIGHTS)
        finally:
            partial.unlink(missing_ok=True)

    with_space(folder / WEIGHTS, write, lambda: sum(x.nbytes for x in kept.values()))
    write_text(folder / CARD, card)
    write_text(folder / CONFIG, handed_on.to_yaml())


def read_model_folder(folder: Path, overrides: Sequence[Override] = ()) -> tuple[Experiment, dict[str, Tensor]]:
    """Its experiment with changes on top, and its weights. Raises ValueError for a damaged file or bad changes."""
    experiment = load_experiment(folder / CONFIG, overrides, saved=True)
    try:
        return experiment, load((folder / WEIGHTS).read_bytes())
    except (SafetensorError, OSError) as error:
        raise DamagedFile(folder / WEIGHTS, error, AGAIN) from error


def load_into(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give a model its weights. Raises RuntimeError, as torch does, if they are of another."""
    missing, surplus = model.load_state_dict(weights, strict=False)
    if surplus or set(missing) - tied(model):
        raise RuntimeError(f"missing {sorted(set(missing) - tied(model))}, surplus {sorted(surplus)}")


def tied(model: nn.Module) -> set[str]:
    """Names of parameters that are others under a second name."""
    return {name for name, _ in model.named_parameters(remove_duplicate=False)} - dict(model.named_parameters()).keys()
