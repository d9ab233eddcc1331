"""Shells complete commands, options, files and keys."""

import subprocess

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.completion import script
from tests.cli.cli import ROOT

COMPLETE = r"""
compopt() { :; }
function=$(complete -p sleep-lightning | sed 's/.*-F \([^ ]*\).*/\1/')
$function
printf '%s\n' "${COMPREPLY[@]}"
"""
"""What bash does when Tab is pressed; compopt exists only there."""


@pytest.mark.process
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("fi", "fit"),
        ("fit --res", "--resume"),
        ("fit sleep.n_pa", "sleep.n_passes="),
        ("fit --config conf/rule110.y", "conf/rule110.yaml"),
        ("sweep sh", "show"),
        ("predict --ro", "--rows"),
        ("test --be", "--beside"),
        ("chat --checkpoint conf/rule110.y", "conf/rule110.yaml"),
        ("test --checkpoint conf/rule110.y", "conf/rule110.yaml"),
    ],
)
def test_bash_completes(line: str, expected: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    words = f"COMP_WORDS=(sleep-lightning {line})\nCOMP_CWORD={len(line.split())}\n"
    text = capsys.readouterr().out + words + COMPLETE
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, capture_output=True, text=True, check=False)
    assert expected in done.stdout.split(), (done.stdout, done.stderr)


def test_predict_is_not_offered_what_it_refuses() -> None:
    line = next(line for line in script("bash").splitlines() if "predict_option_strings" in line)
    assert "--rows" in line and "--beside" not in line


def test_zsh_gets_a_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "zsh"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("#compdef sleep-lightning") and "training.max_steps=" in shown
