"""Which override does not fit a checkpoint, and what is no checkpoint."""

from pathlib import Path

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.training.evaluation import load_trained
from tests.cli.cli import ROOT, SMALL


@pytest.fixture
def checkpoint(tmp_path: Path) -> str:
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", SMALL)
    weights = {f"model.{name}": x for name, x in experiment.build_model().state_dict().items()}  # type: ignore[attr-defined]
    torch.save({"experiment": experiment.to_dict(), "state_dict": weights}, tmp_path / "a.ckpt")
    return str(tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.d_model=32"],
         "model.d_model=32 does not fit --checkpoint {}, which was trained with model.d_model=16; drop it"),
        (["sleep.n_passes=3", "model.d_ff=32", "model.residual_scale=0.5"],
         "model.d_ff=32 does not fit --checkpoint {}, which was trained with model.d_ff=24; drop it"),
        (["model.d_model=24", "model.d_ff=32"],
         "model.d_model=24, model.d_ff=32 do not fit --checkpoint {}, which was trained with model.d_model=16, "
         "model.d_ff=24; drop them"),
        (["model.pattern=AGAGAG", "training.seed=7"],
         "model.pattern=AGAGAG does not fit --checkpoint {}, which was trained with model.pattern=AGAG; drop it"),
    ],
)  # fmt: skip
def test_the_override_that_does_not_fit_is_named(checkpoint: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_trained(checkpoint, overrides)
    assert str(caught.value) == message.format(checkpoint)
    assert load_trained(checkpoint, ["sleep.n_passes=3"])[0].sleep.n_passes == 3


def test_a_file_that_never_was_a_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bad.yaml"
    for content in ("task: {name: rule110}\n", ""):
        file.write_text(content)
        assert main(["test", f"--checkpoint={file}"]) == 2
        said = capsys.readouterr().err
        assert said == f"error: --checkpoint {file} is no checkpoint; give a run directory or a .ckpt file\n"
    (tmp_path / "a.ckpt").write_text("task: {name: rule110}\n")
    assert main(["test", f"--checkpoint={tmp_path}/a.ckpt"]) == 2
    assert "a.ckpt is damaged (File is not a zip file); train again" in capsys.readouterr().err
