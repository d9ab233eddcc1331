"""A trained model scored on held-out sequences."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from sleep_lightning.config import Experiment
from sleep_lightning.config.outline import outline
from sleep_lightning.config.values import flatten
from sleep_lightning.model import WindowModel
from sleep_lightning.runs.checkpoint import WEIGHTS, checkpoint_file, experiment_of, instead_of, load_checkpoint
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.model_folder import AGAIN, load_into, model_folder, read_model_folder
from sleep_lightning.runs.resume import check_same_kind
from sleep_lightning.sleep import AtBoundary, Observer
from sleep_lightning.tasks import Split
from sleep_lightning.training.metrics import Score, score
from sleep_lightning.training.prediction import answer
from sleep_lightning.training.runtime.environment import check_device


def load_trained(checkpoint: str, overrides: Sequence[str] = ()) -> tuple[Experiment, WindowModel]:
    """The model of a checkpoint under its experiment with ``key=value`` changes (``sleep.n_passes=8``, say).

    Args:
        checkpoint: a run's directory, a checkpoint file, or what ``export`` wrote: the directory or its weights.
        overrides: the changes.

    Raises:
        ValueError: no such checkpoint, bad overrides, or overrides that change the model's shape.
    """
    if (folder := model_folder(checkpoint)) is not None:
        file, remedy = folder / "model.safetensors", AGAIN
        trained, weights = read_model_folder(folder)
        content = {"experiment": trained.to_dict(), "state_dict": weights}
        check_same_kind(content["experiment"], overrides, f"--checkpoint {checkpoint}")
        experiment = read_model_folder(folder, overrides)[0] if overrides else trained
    else:
        file = checkpoint_file(checkpoint)
        content, remedy = load_checkpoint(file), ""
        check_same_kind(content["experiment"], overrides, f"--checkpoint {checkpoint}")
        experiment = experiment_of(content, overrides, file)
        if (config := Path(checkpoint) / "config.yaml").exists():
            _check_own(config, file, experiment_of(content, (), file) if overrides else experiment)
        weights = {name.removeprefix("model."): x for name, x in content["state_dict"].items()}
    device = check_device(experiment)
    model = experiment.build_model()
    try:
        load_into(cast(nn.Module, model), weights)
    except RuntimeError as error:
        if not overrides:
            raise DamagedFile(file, error, remedy or instead_of(file, WEIGHTS)) from error
        raise ValueError(_misfit(checkpoint, content, overrides)) from error
    return experiment, model.to(device).eval()


def _misfit(checkpoint: str, content: dict[str, Any], overrides: Sequence[str]) -> str:
    """The sentence that names the overrides under which the model is another than the one that was trained."""
    trained = flatten(content["experiment"])
    alone = [one for one in overrides if not _fits(content, one)]
    changed = {one: trained.get(one.partition("=")[0]) for one in alone or overrides}
    was = ", ".join(f"{one.partition('=')[0]}={value}" for one, value in changed.items() if value is not None)
    was = f", which was trained with {was}" if was else ""
    fit, drop = ("does not fit", "it") if len(changed) == 1 else ("do not fit", "them")
    return f"{', '.join(changed)} {fit} --checkpoint {checkpoint}{was}; drop {drop}"


def _fits(content: dict[str, Any], override: str) -> bool:
    """Whether the model has the trained one's shapes under one override; one that is possible with others only, may."""
    try:
        model = outline(experiment_of(content, [override]))
    except ValueError:
        return True
    trained = {name.removeprefix("model."): x.shape for name, x in content["state_dict"].items()}
    return {name: x.shape for name, x in model.state_dict().items()} == trained  # type: ignore[attr-defined]


def _check_own(config: Path, file: Path, trained: Experiment) -> None:
    """Raise ValueError if the checkpoint in a run directory is of another run: no resume changes task and model."""
    of_run, of_file = (one.to_dict() for one in (RunDirectory(config.parent).load_config(), trained.pinned()))
    for section in ("task", "model"):
        if of_run[section] != of_file[section]:
            raise ValueError(
                f"--checkpoint {config.parent}: {file} is of another run ({section} is not that of {config}); put its "
                f"own back, or name the file"
            )


@torch.no_grad()
def score_split(
    experiment: Experiment,
    model: WindowModel,
    split: Split,
    *,
    at_boundary: AtBoundary | None = None,
    observe: Observer | None = None,
) -> dict[str, Score]:
    """Scores by slice on the first ``val_batches`` batches of a split: the same sequences for every model and seed.

    ``at_boundary`` may change the memory between windows (zero it, say); ``observe`` is called after every sleeping
    pass.
    """
    t, task, answers = experiment.training, experiment.task.build(), []
    for position in range(t.val_batches):
        batch = task.batch(t.val_batch_size, seed=0, position=position, split=split).to(next(model.parameters()).device)
        answers.append(answer(model, batch, experiment.sleep, at_boundary=at_boundary, observe=observe))
    return score(answers)
