"""Numbers with three digits and a unit."""

import pytest

from sleep_lightning.formatting import duration, in_bytes, in_flop, in_flop_of, score, with_unit


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (12, "12"), (999.4, "999"), (999.6, "1k"), (1_234_567, "1.23M"), (-2500, "-2.5k"), (1e24, "1e+03Z")],
)
def test_three_digits(value: float, shown: str) -> None:
    assert with_unit(value) == shown


def test_a_unit_follows_a_space() -> None:
    assert in_flop(8.523e9) == "8.52 GFLOP"
    assert in_flop(999_999_999_999) == "1 TFLOP"
    assert in_flop_of(3.41e12, 1.03e13) == "3.41/10.3 TFLOP"
    assert in_flop_of(0, 12) == "0/12 FLOP"
    assert in_bytes(8192) == "8.19 kB"
    assert in_bytes(12) == "12 B"
    assert with_unit(37e9, "FLOP/s") == "37 GFLOP/s"
    assert with_unit(9.81, "s") == "9.81 s" and with_unit(5400, "s") == "1 h 30 min"


def test_scores_keep_three_digits() -> None:
    assert [score(x) for x in (0.74213, 0.0, 1.0, 12.3456, 0.000123456)] == [
        "0.742",
        "0.000",
        "1.000",
        "12.346",
        "0.000123",
    ]


def test_long_times_are_in_days() -> None:
    assert duration(71.9 * 3600) == "71 h 54 min"
    assert duration(4e5) == "4.6 days"
    assert duration(90338 * 3600) == "3,764 days"
