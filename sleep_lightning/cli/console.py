"""Tables a person reads when a command ends."""

from collections.abc import Iterable, Mapping
from math import exp
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sleep_lightning.accuracy import Accuracy, why_no_better
from sleep_lightning.formatting import duration, with_unit
from sleep_lightning.lines import print_line
from sleep_lightning.names import printable
from sleep_lightning.tables import Column, FittingTable
from sleep_lightning.training.metrics import Score

if TYPE_CHECKING:  # it loads Lightning
    from sleep_lightning.training.rate import Rate


class PlainConsole(Console):
    """Writes out control characters, which a name or the reason of a failure may hold, in all that is given as text."""

    def render_str(self, text: str, *args: Any, **options: Any) -> Text:
        return super().render_str(printable(text, kept="\n\t"), *args, **options)


def plain_console(*, stderr: bool = False, quiet: bool = False) -> Console:
    """A console that prints text as it is: names of folders may hold ``[...]`` and ``:x:``."""
    return PlainConsole(stderr=stderr, quiet=quiet, markup=False, emoji=False)


def say(console: Console, text: str) -> None:
    """Print a text on lines of its own, whole if it is to be copied (``lines``)."""
    print_line(console, printable(text, kept="\n\t"))


def text_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table of texts, which are folded where there is little room."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    return table


SCORES = (
    *(
        Column("slice", label=True),
        Column("answers", 3),
        Column("exact"),
        Column("± error", 1),
        Column("majority"),
        Column("uniform", 1),
    ),
    *(Column("tokens", 4), Column("majority of tokens", 5), Column("loss", 2)),
    *(Column("perplexity", 6), Column("of unigrams", 6)),
)


def score_table(scores: Mapping[str, Score], title: str) -> FittingTable:
    """Accuracy by slice, each beside its standard error and its baselines."""
    return FittingTable(title, SCORES, [_score_cells(name, s) for name, s in scores.items()])


def arm_table(scores: Mapping[str, Mapping[str, Score]], title: str) -> FittingTable:
    """The same for several arms, a section each."""
    table = FittingTable(title, (Column("arm", label=True), *SCORES))
    for arm, slices in scores.items():
        for name, s in slices.items():
            table.add_row(arm, *_score_cells(name, s))
        table.add_section()
    return table


def _score_cells(name: str, s: Score) -> list[str]:
    b = s.baselines
    numbers = (s.exact_match, s.exact_match_se, b.majority_exact_match, b.uniform_exact_match, s.token_accuracy)
    accuracies = (f"{x:.4f}" for x in (*numbers, b.majority_token_accuracy))
    return [name, str(s.answers), *accuracies, f"{s.loss:.4f}", f"{s.perplexity:.4g}", f"{exp(b.unigram_loss):.4g}"]


def warning(accuracies: Iterable[Accuracy]) -> dict[str, str]:
    """A fact for display if none of these beats its majority answer; else none.

    Args:
        accuracies: of what was compared, or of one model.
    """
    known = [one for one in accuracies if one.majority is not None]
    if not known:
        return {}
    best = max(known, key=lambda one: one.exact_match - (one.majority or 0.0))
    sentence = why_no_better(best.exact_match, best.answers, best.majority or 0.0)
    return {} if sentence is None else {"warning": sentence}


def measured_line(measured: Mapping[str, float | None], predicted: Mapping[str, float | None]) -> str:
    """What a run took, on one line; what the machine does not report is said to be unknown.

    Args:
        measured: the names of ``resource_usage.MEASURED``.
        predicted: ``step_memory_bytes``, and on the CPU ``step_process_bytes``.
    """

    def shown(value: float | None, unit: str, otherwise: str = "unknown") -> str:
        return otherwise if value is None else with_unit(value, unit)

    step, expected = measured["step_memory_bytes"], predicted["step_memory_bytes"]
    process, rate = predicted.get("step_process_bytes"), measured["tokens_per_s"]
    foretold = f"predicted {shown(process, 'B')}, of which tensors" if process else "its tensors, as predicted,"
    return (
        f"{'unknown' if rate is None else with_unit(rate)} tokens/s in training, peak memory "
        f"{shown(measured['peak_memory_bytes'], 'B')} (a step {shown(step, 'B')}; {foretold} "
        f"{shown(expected, 'B')}), "
        f"energy {shown(measured['energy_j'], 'J', 'not reported by this machine')}"
    )


def parameters_line(parameters: int, learning: int) -> str:
    """How many there are, and how many of them learn if not all do."""
    return with_unit(parameters) + ("" if learning == parameters else f", of which {with_unit(learning)} learn")


def time_line(flops: float, rate: "Rate | None", at_once: int = 1) -> str:
    """How long training will take on this machine.

    Args:
        flops: of all runs.
        rate: of one of them; None where it was not measured.
        at_once: runs at a time.
    """
    if rate is None:
        return "not estimated: a probe in one process says nothing of several ranks, torch.compile or CUDA graphs"
    took = duration(flops / rate.flops_per_s / at_once)
    return (
        f"{f'about {took}' if took[0].isdigit() else took} here, at {with_unit(rate.flops_per_s, 'FLOP/s')}"
        + (f" in each of {at_once} runs at a time" if at_once > 1 else "")
        + f" (measured with {rate.batch} sequences; validation comes on top)"
    )


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Name and value, a line each; a longer value goes on below itself."""
    width = max(map(len, facts))
    for name, value in facts.items():
        print_line(console, printable(f"  {name:<{width}}  {value}", kept="\n\t"), indent=width + 4)
