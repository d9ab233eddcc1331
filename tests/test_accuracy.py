"""An accuracy is not alone: its standard error by the number of answers, and its baselines."""

import math

import pytest

from sleep_lightning.accuracy import Accuracy, standard_error, with_error


@pytest.mark.parametrize(("share", "answers", "error"), [(0.5, 100, 0.05), (0.0, 8, 0.0), (1.0, 8, 0.0), (0.1, 9, 0.1)])
def test_the_standard_error_is_the_binomial(share: float, answers: int, error: float) -> None:
    assert standard_error(share, answers) == pytest.approx(error)
    assert standard_error(share, math.inf) == 0


def test_what_was_recorded_is_shown() -> None:
    assert with_error(0.4372, 256) == "0.437 ± 0.031"
    assert with_error(0.4372, None) == "0.437"
    row = {"exact_match": 0.4372, "answers": 256, "majority_exact_match": 0.084, "uniform_exact_match": 0.004}
    assert str(Accuracy.of_validation(row)) == "0.437 ± 0.031 (majority 0.084, uniform 0.004)"
    summary = {"exact_match": 0.4372, "answers": 256, "majority_baseline": 0.084}
    assert str(Accuracy.of_summary(summary)) == "0.437 ± 0.031 (majority 0.084)"
    assert str(Accuracy.of_validation({"exact_match": 0.5})) == "0.500"  # of an earlier version


@pytest.mark.parametrize("answers", [0, -1, "many", None])
def test_answers_that_count_nothing_are_not_known(answers: object) -> None:
    assert Accuracy.of_summary({"exact_match": 0.5, "answers": answers}).answers is None


def test_of_several_seeds_the_number_of_answers_is_no_measure_of_the_noise() -> None:
    one, other = Accuracy(0.4, 100, 0.1, 0.05), Accuracy(0.6, 100, 0.2, None)
    assert Accuracy.mean([one]) == one
    both = Accuracy.mean([one, other])
    assert (both.exact_match, both.answers, both.uniform) == (pytest.approx(0.5), None, None)
    assert both.majority == pytest.approx(0.15)
