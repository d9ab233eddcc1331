"""Tables a person reads when a command ends."""

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from sleep_lightning.training.metrics import Score


def score_table(scores: Mapping[str, Score], title: str) -> Table:
    """Accuracy by slice, each beside its baselines."""
    table = Table(title=title, title_justify="left")
    table.add_column("slice")
    for column in ("answers", "exact", "majority", "uniform", "tokens", "majority", "loss"):
        table.add_column(column, justify="right")
    for name, s in scores.items():
        b = s.baselines
        numbers = (s.exact_match, b.majority_exact_match, b.uniform_exact_match, s.token_accuracy)
        table.add_row(
            name, str(s.answers), *(f"{x:.4f}" for x in (*numbers, b.majority_token_accuracy)), f"{s.loss:.4f}"
        )
    return table


def print_facts(console: Console, facts: Mapping[str, str]) -> None:
    """Name and value, a line each; values are printed whole so that they can be copied."""
    width = max(map(len, facts))
    for name, value in facts.items():
        console.print(f"  {name:<{width}}  {value}", highlight=False, soft_wrap=True)
