import dataclasses

import pytest

from sleep_lightning.__main__ import COMMANDS, main
from sleep_lightning.cli.help import attribute_docstrings, key_lines, task_config
from sleep_lightning.config import SECTIONS
from sleep_lightning.tasks import TASKS
from tests.cli.cli import ROOT, run


def test_every_key_has_a_line_of_its_own() -> None:
    text = "\n".join(key_lines())
    for config in [*SECTIONS.values(), *map(task_config, TASKS)]:
        docs = attribute_docstrings(config)
        for field in dataclasses.fields(config):  # type: ignore[arg-type]
            assert docs[field.name], field.name
            assert f".{field.name} = " in text


@pytest.mark.process
def test_help_lists_keys_with_type_and_default() -> None:
    done = run(ROOT, "--help")
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


def test_a_command_that_there_is_not_and_an_option_that_there_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, message in {("fly",): "invalid choice: 'fly'", ("fit", "--fast"): "arguments: --fast"}.items():
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert message in capsys.readouterr().err
