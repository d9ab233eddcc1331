"""Tables: every column has a name of its own, over its own figures."""

from sleep_lightning.cli.console import score_table
from sleep_lightning.tasks import Baselines
from sleep_lightning.training.metrics import Score


def test_the_columns_of_a_score_are_told_apart() -> None:
    baselines = Baselines(majority_exact_match=0.1, majority_token_accuracy=0.2, uniform_exact_match=0.3)
    table = score_table({"all": Score(5, 0.6, 0.7, 0.8, baselines)}, "scores")
    shown = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    assert len(shown) == len(table.columns)
    assert (shown["majority"], shown["majority of tokens"], shown["tokens"]) == ("0.1000", "0.2000", "0.7000")
