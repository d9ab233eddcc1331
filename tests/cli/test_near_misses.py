"""What one types almost right gets the right advice, before any compute."""

from pathlib import Path

import pytest

from sleep_lightning.__main__ import main

NEEDS = "fit needs an experiment: --config with one of conf/a.yaml; task.name=...; or --resume for a run"
FILE = "argument 'conf/a.yaml' is a file, and no key=value; an experiment is given as --config conf/a.yaml"
UNQUOTED = 'choice [1] must be a number, a word, true, false or null; a list goes in quotes: "[1]"'
SPACES = {
    "list": "sleep.n_passes: [1, 2]",
    "values": "sleep.n_passes: {values: [1, 2]}",
    "bounds": "training.muon_lr: {min: 0.01, max: 0.1}",
    "unquoted": "task.steps: {choices: [[1], [2]]}",
    "base": "sleep.n_passes: {choices: [1, 2]}",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("fit", NEEDS),
        ("fit conf/a.yaml", FILE),
        ("fit conf/b.yaml", "argument 'conf/b.yaml' is not key=value; write for example training.max_steps=500"),
        ("cost conf/a.yaml", FILE),
        ("sweep list.yaml", "space.sleep.n_passes=[1, 2] must be a mapping; write {choices: [1, 2]}"),
        ("sweep values.yaml", "space.sleep.n_passes.values: there is no such key; did you mean choices?"),
        ("sweep bounds.yaml", "space.training.muon_lr.min: there is no such key; did you mean low?"),
        ("sweep unquoted.yaml", UNQUOTED),
        ("sweep base.yaml", "base='b/x.yaml': there is no b/x.yaml; base is relative to the folder of this file"),
    ],
)
def test_advice(
    arguments: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "a.yaml").write_text("task: {name: rule110}\n")
    for name, space in SPACES.items():
        base = "b/x.yaml" if name == "base" else "conf/a.yaml"
        (tmp_path / f"{name}.yaml").write_text(f"name: s\nbase: {base}\nspace: {{{space}}}\n")
    assert main(arguments.split()) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()
