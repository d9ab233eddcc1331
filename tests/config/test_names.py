"""What becomes the name of a folder is one, or is refused before anything is made."""

from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from tests.cli.cli import ROOT

BASE = str(ROOT / "conf" / "rule110.yaml")
LONG = "x" * 300


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare", BASE, "--arms", f"{LONG}:sleep.n_passes=2"], "--arms='xxx"),
        (["compare", BASE, "--arms", "n" + "1" * 5000], "--arms='n111"),
        (["compare", BASE, "--arms", ".."], "--arms='..' cannot be the name of a folder"),
        (["compare", BASE, "--arms", "n1", "--output", LONG], "--output='xxx"),
        (["sweep", str(ROOT / "sweeps" / "depo_depth_cost.yaml"), "--output", LONG], "--output='xxx"),
        (["sweep", "show", LONG], "NAME='xxx"),
        (["fit", "--config", BASE, f"training.run_dir=runs/{LONG}"], "training.run_dir='runs/xxx"),
        (["fit", "--config", BASE, "training.run_dir=a\0b"], "training.run_dir='a\\x00b' cannot be a path"),
    ],
)
def test_a_name_that_no_folder_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and len(said) < 300
    assert not list(tmp_path.iterdir())


def test_names_of_folders_that_are_odd_stay_possible() -> None:
    assert load_experiment(BASE, ["training.run_dir=../a #1/.x:y"]).training.run_dir == "../a #1/.x:y"
