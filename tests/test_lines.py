"""Lines on a narrow terminal: no number and no word is cut; what is copied is one piece."""

from io import StringIO

import pytest
from rich.console import Console

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.cli.compare import _progress
from sleep_lightning.cli.console import print_facts, warning
from sleep_lightning.lines import print_line

WIDTHS = [60, 80, 120, 200]
SENTENCE = (
    "step 20: loss 0.7388, exact match 0.094 ± 0.036 (majority 0.141, uniform 0.062), token accuracy 0.547, 1.99k "
    "tokens/s, 1.14 GFLOP"
)


def shown(width: int, *, terminal: bool = True) -> tuple[Console, StringIO]:
    file = StringIO()
    return Console(file=file, width=width, force_terminal=terminal, color_system=None), file


@pytest.mark.parametrize("width", WIDTHS)
def test_sentences_break_between_words(width: int) -> None:
    console, file = shown(width)
    print_line(console, SENTENCE)
    print_facts(console, {"training": SENTENCE, "n": "7"})
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert " ".join(file.getvalue().split()) == f"{SENTENCE} training {SENTENCE} n 7", "in whole words"
    facts = lines[next(i for i, line in enumerate(lines) if line.startswith("  training")) :]
    assert all(line.startswith(" " * 12) for line in facts[1:-1]), "a value goes on below itself"


def test_what_is_copied_and_what_goes_into_a_file_is_one_piece() -> None:
    link = f"MLflow charts: http://127.0.0.1:5000/#/experiments/1/runs (while this runs: mlflow server {'x' * 90})"
    for text, terminal in ((link, True), (f"python -m sleep_lightning test --checkpoint {'x ' * 90}.", True)):
        console, file = shown(80, terminal=terminal)
        print_line(console, text)
        assert file.getvalue() == f"{text}\n"
    console, file = shown(80, terminal=False)
    print_line(console, SENTENCE)
    assert file.getvalue() == f"{SENTENCE}\n"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_bars_of_a_comparison_show_whole_numbers(width: int) -> None:
    console, file = shown(width)
    progress = _progress(console)
    task = progress.add_task("re-embed seed 12", total=1200, at="loss 0.739, 2.35k tokens/s, exact match 0.127 ± 0.015")
    progress.update(task, completed=1199)
    console.print(progress.make_tasks_table(progress.tasks))
    text = file.getvalue()
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for number in ("1199/1200", "0.739,", "2.35k", "0.127", "0.015", "-:--:--" if "-:--" in text else "0:00:00"):
        assert number in text.split() or f"{number}" in text, (number, text)


def test_what_does_not_beat_the_majority_answer_is_said() -> None:
    low, high = Accuracy(0.15, 64, 0.141, 0.06), Accuracy(0.3, 64, 0.141, 0.06)
    assert warning([low]) == {
        "warning": "nothing beats the majority answer: 0.150 ± 0.045 at best, 0.141 without evidence"
    }
    assert warning([low, high]) == warning([high]) == warning([Accuracy(0.1)]) == warning([]) == {}
    assert warning([Accuracy(0.15, None, 0.141)]) == {}, "a mean over seeds has no error of its answers"
