"""Curves and laws of made-up losses, whose minima and exponents are known."""

from dataclasses import replace

import numpy as np
import pytest

from sleep_lightning.sweep.iso_flop import Cell, Seeds, curves, minimum
from sleep_lightning.sweep.law import fit_law
from sleep_lightning.sweep.report.law import SliceLaw

BUDGETS, DEPTHS = (1e12, 2e12, 4e12, 8e12), (1, 2, 3, 4, 6)
COST, PHI, ALPHA, FLOOR, SCALE = 0.8, 0.5, 0.4, 0.05, 2e4


def cells_of(loss: "object", seeds: int = 5, noise: float = 0.01) -> list[Cell]:
    """Cells of a loss over N and tokens; a token with N passes costs 1e6 N^COST FLOPs; seeds differ by a factor."""
    rng, found = np.random.default_rng(1), []
    for budget in BUDGETS:
        for n in DEPTHS:
            tokens = budget / (1e6 * n**COST)
            drawn = {seed: loss(n, tokens, budget) * float(np.exp(noise * rng.normal())) for seed in range(seeds)}  # type: ignore[operator]
            found.append(Cell(budget, n, tokens, budget, drawn))
    return found


def law(n: float, tokens: float, _: float) -> float:
    return float(FLOOR + (SCALE / (tokens * n**PHI)) ** ALPHA)


def bowl(n: float, _: float, budget: float) -> float:
    """Its minimum is at N = 2 (C / 1e12)^0.3."""
    return float(0.3 + 0.1 * (np.log(n) - np.log(2) - 0.3 * np.log(budget / 1e12)) ** 2)


def test_the_law_is_found() -> None:
    cells = cells_of(law)
    found = fit_law(cells, Seeds(cells))
    assert found is not None
    assert found.phi.low <= PHI <= found.phi.high
    assert found.phi.value == pytest.approx(PHI, abs=0.05)
    assert found.cost == pytest.approx(COST, abs=1e-9)
    assert found.r2 > 0.99
    assert found.miss is not None
    assert found.miss < 0.05
    assert found.fits
    assert found.loss(2, 1e6) == pytest.approx(law(2, 1e6, 0), rel=0.02)
    exact = fit_law(exactly := cells_of(law, noise=0.0), Seeds(exactly))
    assert exact is not None
    assert [exact.phi.value, exact.alpha, exact.floor] == pytest.approx([PHI, ALPHA, FLOOR], rel=0.01)


def test_what_is_no_law_does_not_fit() -> None:
    """A jump that later budgets make: predicted from the earlier ones it is missed."""
    jump = cells_of(lambda n, tokens, budget: 0.05 if budget > 4e12 and n > 2 else 0.6 + 0.001 * n)
    found = fit_law(jump, Seeds(jump))
    assert found is not None
    assert not found.fits
    few = cells_of(law)[:5]
    assert fit_law(few, Seeds(few)) is None
    flat = [cell for cell in cells_of(law) if cell.n_passes == 1] * 2
    assert fit_law(flat, Seeds(flat)) is None


def test_minima_and_their_exponent() -> None:
    cells = cells_of(bowl)
    found, exponent = curves(cells, Seeds(cells))
    assert [curve.budget for curve in found] == list(BUDGETS)
    for curve in found:
        true = 2 * (curve.budget / 1e12) ** 0.3
        assert curve.best.low <= curve.best.value <= curve.best.high
        assert curve.best.value == pytest.approx(true, rel=0.1)
        assert not curve.at_edge
        assert sum(curve.wins.values()) == pytest.approx(1)
    assert exponent is not None
    assert exponent.low <= 0.3 <= exponent.high
    assert exponent.value == pytest.approx(0.3, abs=0.07)


def test_a_minimum_at_the_edge_gives_no_exponent() -> None:
    cells = cells_of(lambda n, tokens, budget: 0.1 * n)
    found, exponent = curves(cells, Seeds(cells))
    assert exponent is None
    assert [(curve.best.value, curve.at_edge) for curve in found] == [(1.0, True)] * 4
    assert minimum(np.array([1, 2, 4]), np.array([0.3, 0.5, 0.2])) == 4.0  # opens downwards


def test_only_seeds_that_have_finished_everywhere_count() -> None:
    cells = cells_of(bowl, seeds=3)
    first = cells[0]
    cells[0] = Cell(first.budget, first.n_passes, first.tokens, first.flops, {1: first.losses[1]})
    seeds = Seeds(cells)
    assert seeds.losses.shape == (20, 1)
    assert str(curves(cells, seeds)[0][0].best).count("[") == 0  # no interval from a single seed
    cells[1] = Cell(first.budget, 2, first.tokens, first.flops, {2: 0.1})
    with pytest.raises(ValueError, match="no seed has finished"):
        Seeds(cells)


def test_the_minimum_lies_next_to_the_lowest_loss() -> None:
    """Recorded means: those far from the lowest do not move it."""
    depths = np.array([1, 2, 3, 4, 6])
    assert minimum(depths, np.array([0.007, 0.00064, 0.000328, 0.00102, 0.035])) == pytest.approx(2.664, abs=0.001)
    assert minimum(depths, np.array([0.90, 0.91, 0.92, 0.95, 1.50])) == 1.0
    far = [minimum(depths, np.array([0.6, 0.5, 0.55, 0.7, last])) for last in (0.8, 8.0)]
    assert far[0] == far[1] == pytest.approx(1.902, abs=0.001)
    parabola = 0.3 + 0.1 * (np.log(depths) - np.log(2.5)) ** 2
    assert minimum(depths, parabola) == pytest.approx(2.5)


def test_equal_losses_determine_no_minimum() -> None:
    depths = np.array([1, 2, 3, 4, 6])
    for level in (0.5, 0.3, 0.1, 0.0):
        assert np.isnan(minimum(depths, np.full(5, level)))
    assert np.isnan(minimum(depths, np.array([0.3, 0.5, 0.5, 0.5, 0.3])))
    assert np.isnan(minimum(depths, np.array([0.3, 0.2, np.nan, 0.5, 0.3])))
    assert minimum(depths, np.array([0.4, 0.2, 0.2 + 1e-13, 0.5, 0.6])) == pytest.approx(np.sqrt(6))
    assert minimum(depths, np.array([0.2, 0.2, 0.5, 0.5, 0.6])) == pytest.approx(np.sqrt(2))
    cells = cells_of(lambda n, tokens, budget: 0.5, noise=0.0)
    found, exponent = curves(cells, Seeds(cells))
    assert exponent is None
    assert [str(curve.best) for curve in found] == ["not determined"] * 4
    assert not found[0].at_edge
    assert found[0].wins == pytest.approx(dict.fromkeys(DEPTHS, 0.2))


@pytest.mark.parametrize(
    ("seeds", "expected"), [(3, "too few seeds for a verdict: 3 of 5"), (5, "looping does not pay at equal training")]
)
def test_a_verdict_takes_five_seeds(seeds: int, expected: str) -> None:
    """A pass is worth N^0.5 tokens here and costs N^0.8."""
    cells = cells_of(law, seeds)
    found = Seeds(cells)
    assert expected in SliceLaw("all", tuple(cells), (), found.count, (), None, fit_law(cells, found)).verdict()


@pytest.mark.parametrize("loss", [0.0, float("nan"), float("inf")])
def test_a_mean_without_a_logarithm_gives_curves_and_no_law(loss: float) -> None:
    cells = cells_of(law, seeds=2)
    cells[7] = replace(cells[7], losses={0: loss, 1: loss})
    seeds = Seeds(cells)
    assert fit_law(cells, seeds) is None
    found, exponent = curves(cells, seeds)
    one = SliceLaw("all", tuple(cells), tuple(seeds.means.tolist()), 2, tuple(found), exponent, None)
    assert one.verdict() == f"no law: the mean loss of N = 3 at 2 TFLOP is {loss:g}, which has no logarithm"
    assert (str(found[1].best) == "not determined") is (loss != 0)


def test_one_seed_without_a_loss_bounds_nothing() -> None:
    """Where it alone is drawn there is no law."""
    cells = cells_of(law, seeds=2)
    cells[7] = replace(cells[7], losses={0: 0.0, 1: 0.5})
    found = fit_law(cells, Seeds(cells))
    assert found is not None
    assert np.isinf(found.phi.low)
    tiny = [replace(cell, losses={seed: 1e-20 * x for seed, x in cell.losses.items()}) for cell in cells_of(law, 1)]
    assert fit_law(tiny, Seeds(tiny)) is not None
