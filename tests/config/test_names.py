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
        (["sweep", "show", ""], "NAME is empty"),
        (["compare", BASE, "--arms", "n1", "--output", ""], "--output is empty; name a file or folder, or drop it"),
        (["sweep", str(ROOT / "sweeps" / "depo_depth_cost.yaml"), "--output", ""], "--output is empty"),
        (["reproduce", "--output", ""], "--output is empty"),
        (["reproduce", "--output", LONG], "--output='xxx"),
        (["reproduce", "--sweeps", "a\0b"], "--sweeps='a\\x00b' cannot be a path"),
        (["fit", "--resume", ""], "--resume is empty"),
        (["fit", "--resume", LONG], "--resume='xxx"),
        (["test", "--checkpoint", ""], "--checkpoint is empty"),
        (["test", "--checkpoint", "a\0b"], "--checkpoint='a\\x00b' cannot be a path"),
        (["fit", "--config", LONG], "--config='xxx"),
        (["fit", "--config", ""], "Is a directory"),
        (["fit", "--config", "a\0b"], "--config='a\\x00b' cannot be a path"),
        (["sweep", "a\0b.yaml"], "sweep='a\\x00b.yaml' cannot be a path"),
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


@pytest.mark.parametrize("words", ["validate --checkpoint x", "predict --checkpoint x", "bench storage", "doctor"])
@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("", "--output is empty; name a file or folder, or drop it"),
        (LONG, "--output='xxx"),
        ("x" * 250, "cannot be written: File name too long; choose another place"),
        ("a\0b", "--output='a\\x00b' cannot be a path"),
        ("none/a.json", "--output none/a.json: there is no folder none; create it first"),
        (".", "--output . cannot be written: Is a directory; choose another place"),
        ("/dev/null/a.json", "--output /dev/null/a.json: there is no folder /dev/null; create it first"),
        ("/proc/a.json", "--output /proc/a.json cannot be written: No such file or directory; choose another place"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_any_compute(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: str,
    place: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*words.split(), "--output", place]) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
    assert not list(tmp_path.iterdir())
