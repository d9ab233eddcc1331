"""Saved experiments of earlier versions mean what was done then, wherever they are read."""

from copy import deepcopy
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from sleep_lightning.cli import fit
from sleep_lightning.config import load_experiment
from sleep_lightning.config.legacy import LEGACY_DEFAULTS
from sleep_lightning.runs.checkpoint import experiment_of
from sleep_lightning.training.module import SleepModule

KEY = "model.qk_l2norm_eps"


@pytest.fixture
def old() -> dict[str, Any]:
    """As it was written before the keys existed."""
    tree = load_experiment(None, ["model.d_model=16", "tracking.enabled=false"]).to_dict()
    for key in LEGACY_DEFAULTS:
        section, name = key.split(".")
        del tree[section][name]
    return tree


def test_every_key_of_the_table_exists_and_has_another_default() -> None:
    now = load_experiment().flat()
    assert LEGACY_DEFAULTS and all(key in now and now[key] != then for key, then in LEGACY_DEFAULTS.items())


def test_a_key_that_a_saved_experiment_lacks_means_what_was_done_then(old: dict[str, Any]) -> None:
    assert {key: load_experiment(old).flat()[key] for key in LEGACY_DEFAULTS} == {
        key: load_experiment().flat()[key] for key in LEGACY_DEFAULTS
    }
    saved = load_experiment(old, saved=True)
    assert {key: saved.flat()[key] for key in LEGACY_DEFAULTS} == LEGACY_DEFAULTS
    assert load_experiment(old, [f"{KEY}=1e-5"], saved=True).flat()[KEY] == 1e-5
    assert load_experiment(load_experiment().to_dict(), saved=True).flat()[KEY] == 1e-6
    assert load_experiment(saved.to_dict(), saved=True).flat() == saved.flat()


def test_a_model_of_ones_own_gets_no_key_of_the_hybrids(old: dict[str, Any]) -> None:
    plugin = old | {"model": {"class_path": "tests.model.own_model.OwnModel", "init_args": {"width": 4}}}
    assert KEY not in load_experiment(plugin, ["sleep.n_passes=1"], saved=True).flat()


def test_a_run_and_a_checkpoint_are_saved_experiments(old: dict[str, Any], tmp_path: Path) -> None:
    assert experiment_of({"experiment": old}, []).flat()[KEY] is None
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.create(old)))
    job = fit.prepare(None, [], str(tmp_path))
    assert job.experiment.flat()[KEY] is None


def test_the_residual_scale_follows_the_n_of_the_training(tmp_path: Path) -> None:
    """And stays what it was when the model is tested with another."""
    experiment = load_experiment(None, ["sleep.n_passes=4", "model.d_model=16"])
    assert experiment.model.residual_scale is None  # type: ignore[union-attr]
    module = SleepModule(experiment)
    tested = load_experiment(module.hparams["experiment"], ["sleep.n_passes=2"], saved=True)
    for built in (experiment.build_model(), module.model, tested.build_model()):
        assert [block.residual_scale for block in built.layers] == [0.25] * 4  # type: ignore[union-attr, operator]
    assert load_experiment(experiment.to_dict(), ["sleep.n_passes=2"]).build_model().layers[0].residual_scale == 0.5  # type: ignore[union-attr, index]
    job = fit.prepare(
        None, ["sleep.n_passes=3", "tracking.enabled=false", f"training.run_dir={tmp_path / 'run'}"], None
    )
    assert job.run is not None
    assert job.run.load_config().model.residual_scale == pytest.approx(1 / 3)  # type: ignore[union-attr]
    assert load_experiment({"model": {"d_model": 16}}, saved=True).model.residual_scale == 1  # type: ignore[union-attr]


def test_a_module_knows_what_it_was_given(old: dict[str, Any], tmp_path: Path) -> None:
    """A dict of one's own has today's defaults, one from a checkpoint those of its time."""
    module, file = SleepModule(deepcopy(old)), tmp_path / "old.ckpt"
    assert module.experiment.flat()[KEY] == 1e-6
    then = SleepModule(load_experiment(old, saved=True))
    saved = {"experiment": old, "hyper_parameters": {"experiment": old}, "rng": torch.get_rng_state()}
    saved |= {"state_dict": then.state_dict(), "pytorch-lightning_version": "2.5.0"}
    torch.save(saved, file)
    for source in (file, str(file), BytesIO(file.read_bytes())):
        assert SleepModule.load_from_checkpoint(source, weights_only=True).experiment.flat()[KEY] is None
    assert SleepModule.load_from_checkpoint(file, experiment=old | {"model": then.experiment.to_dict()["model"]})
    saved["state_dict"] = module.state_dict()
    torch.save(saved | {"experiment": module.experiment.to_dict(), "hyper_parameters": module.hparams}, file)
    with file.open("rb") as stream:
        assert SleepModule.load_from_checkpoint(stream, weights_only=False).experiment.flat()[KEY] == 1e-6
    del saved["rng"]
    torch.save(saved, file)
    with pytest.raises(ValueError, match=r"old\.ckpt is damaged \(it lacks rng\); train again"):
        SleepModule.load_from_checkpoint(file)


def test_what_was_done_then_is_division_by_the_norm(old: dict[str, Any]) -> None:
    torch.manual_seed(0)
    changed = [(key, value) for key, value in LEGACY_DEFAULTS.items() if key != KEY]
    then, now = (load_experiment(old, changed, saved=saved).build_model() for saved in (True, False))
    now.load_state_dict(then.state_dict())
    tokens = torch.randint(2, (2, 6))
    logits = [m.logits(m.blocks(m.embed(tokens), m.zero_memory(2))[0]) for m in (then, now)]
    assert not torch.equal(*logits)
    torch.testing.assert_close(*logits, rtol=1e-2, atol=1e-2)
