import dataclasses
import re

import pytest

from sleep_lightning.__main__ import COMMANDS, main
from sleep_lightning.cli.help import attribute_docstrings, explain, task_config
from sleep_lightning.compare.arms import ARMS
from sleep_lightning.config import SECTIONS
from sleep_lightning.tasks import TASKS
from tests.cli.cli import ROOT, run


def test_every_key_has_a_line_of_its_own() -> None:
    text = "\n".join(explain("all"))
    for config in [*SECTIONS.values(), *map(task_config, TASKS)]:
        docs = attribute_docstrings(config)
        for field in dataclasses.fields(config):  # type: ignore[arg-type]
            assert docs[field.name], field.name
            assert f".{field.name} = " in text


@pytest.mark.process
def test_help_lists_keys_with_type_and_default() -> None:
    done = run(ROOT, "help", "all")
    assert done.returncode == 0
    assert "sleep.n_passes = 1  (int)" in done.stdout
    assert "training.tbptt_windows = null  (int or null)" in done.stdout
    assert "model.tie_embeddings = false  (bool)" in done.stdout


@pytest.mark.process
def test_config_prints_the_resolved_experiment() -> None:
    done = run(ROOT, "config", "--config", "conf/rule110.yaml", "task.ring_size=8")
    assert done.returncode == 0
    assert "window_size: 8" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_of_its_own(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    shown = capsys.readouterr().out
    assert "option_strings" not in shown  # a % that argparse takes for one of its own
    assert shown.startswith(f"usage: python -m sleep_lightning {name} ") and COMMANDS[name][1] in " ".join(
        shown.split()
    )


def test_help_fits_a_screen_and_names_the_sections(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--help"], ["fit", "--help"]):
        with pytest.raises(SystemExit, match="0"):
            main(arguments)
        shown = capsys.readouterr().out
        assert shown.count("\n") <= 40
        assert re.search(r"\n  training +\d+ keys\n", shown) and "help KEY explains one" in shown
    with pytest.raises(SystemExit, match="0"):
        main(["bench", "--help"])
    assert "training" not in capsys.readouterr().out.partition("options:")[2]  # it takes no keys


def test_a_key_or_a_section_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "sleep.n_passes"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("sleep:\n  sleep.n_passes = 1  (int)\n      ") and shown.count("sleep.n_passes =") == 1
    assert main(["help", "n_passes"]) == 0  # in every section that has it
    assert "sleep.n_passes = 1" in capsys.readouterr().out
    assert main(["help", "sleep"]) == 0
    shown = capsys.readouterr().out
    assert "sleep.window_size" in shown and "\ntraining:" not in shown
    assert main(["help"]) == 0
    assert "keys" in capsys.readouterr().out
    assert main(["help", "sleep.n_pass"]) == 2
    assert (
        capsys.readouterr().err
        == "error: help sleep.n_pass: there is no such key or section; did you mean sleep.n_passes?\n"
    )
    assert main(["help", "zzzz"]) == 2
    assert "sections are task, " in capsys.readouterr().err


def test_help_explains_the_arms_of_compare() -> None:
    lines = list(explain("arms"))
    assert {name for name in ARMS if any(line.strip().startswith(name) for line in lines)} == set(ARMS)
    assert "  deeper          untied blocks, one pass, equal FLOPs a step" in lines
