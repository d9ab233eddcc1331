"""Tables: every column has a name of its own, over its own figures."""

from math import log

from sleep_lightning.cli.console import measured_line, score_table
from sleep_lightning.tasks import Baselines
from sleep_lightning.training.metrics import Score


def test_the_columns_of_a_score_are_told_apart() -> None:
    baselines = Baselines(
        majority_exact_match=0.1, majority_token_accuracy=0.2, uniform_exact_match=0.3, unigram_loss=log(7)
    )
    table = score_table({"all": Score(5, 0.6, 0.7, 0.8, baselines)}, "scores")
    shown = dict(zip((column.name for column in table.columns), table.rows[0], strict=True))
    assert len(shown) == len(table.columns)
    assert (shown["exact"], shown["± error"]) == ("0.6000", "0.2191")
    assert (shown["loss"], shown["perplexity"], shown["of unigrams"]) == ("0.8000", "2.226", "7")
    assert (shown["majority"], shown["majority of tokens"], shown["tokens"]) == ("0.1000", "0.2000", "0.7000")


def test_what_was_measured_has_units() -> None:
    measured = {"tokens_per_s": 2350.0, "peak_memory_bytes": 8.13e8, "step_memory_bytes": 6.87e7, "energy_j": 2.5e6}
    assert measured_line(measured, {"step_memory_bytes": 4.4e6}) == (
        "2.35k tokens/s in training, peak memory 813 MB (a step 68.7 MB; its tensors, as predicted, 4.4 MB), "
        "energy 2.5 MJ"
    )
    with_process = measured_line(measured, {"step_memory_bytes": 4.4e6, "step_process_bytes": 7.08e7})
    assert "(a step 68.7 MB; predicted 70.8 MB, of which tensors 4.4 MB)" in with_process
    unknown = measured_line(dict.fromkeys(measured), {"step_memory_bytes": None})
    assert unknown.startswith("unknown tokens/s in training, peak memory unknown (a step unknown; ")
    assert unknown.endswith("energy not reported by this machine")
