"""What a pass is worth in tokens: ``L(N, D) = E + (A / (D N^phi))^alpha`` over N and the tokens D of a run.

A token seen with N passes counts as ``N^phi`` tokens seen with one: the exponent of recurrence of arXiv:2604.21106, for
passes over a window. Passes pay at equal training FLOPs where phi is above the exponent of what they cost.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

import numpy as np

from sleep_lightning.formatting import in_flop
from sleep_lightning.sweep.bootstrap import MOST_LISTED, Array
from sleep_lightning.sweep.iso_flop import Cell, Estimate, Seeds, slope

REFITS = MOST_LISTED
"""All resamples of few seeds, else so many."""
LEAST_R2, MOST_MISS = 0.9, 0.1
"""A law fits if it explains that share of the variance of log loss, and predicts the largest budget that well."""
LEAST_CELLS = 6


@dataclass(frozen=True)
class Law:
    """``L(N, D) = E + (A / (D N^phi))^alpha`` fitted to the means of all cells.

    Attributes:
        phi: exponent of a pass: a token with N passes is worth ``N^phi`` tokens with one.
        cost: exponent of its training FLOPs: a token costs ``N^cost``. Passes pay where phi is larger.
        alpha, floor, scale: the other constants (floor is E, scale A in tokens).
        r2: share of the variance of log loss explained.
        miss: largest relative error of the losses at the largest budget, predicted from the others; None: one budget.
    """

    phi: Estimate
    cost: float
    alpha: float
    floor: float
    scale: float
    r2: float
    miss: float | None

    @property
    def fits(self) -> bool:
        """Whether it may be stated."""
        return self.r2 >= LEAST_R2 and self.miss is not None and self.miss <= MOST_MISS

    def loss(self, n_passes: float, tokens: float) -> float:
        """Predicted, in nats per label."""
        return float(self.floor + (self.scale / (tokens * n_passes**self.phi.value)) ** self.alpha)


def why_no_law(cells: Sequence[Cell], means: Sequence[float]) -> str | None:
    """What keeps a law from being fitted to the means of cells, in words; None if nothing does."""
    if len(cells) < LEAST_CELLS or len({cell.n_passes for cell in cells}) < 2:
        return "it takes two N and six pairs of N and budget"
    for cell, loss in zip(cells, means, strict=True):
        if not (isfinite(loss) and loss > 0):
            return f"the mean loss of N = {cell.n_passes} at {in_flop(cell.budget)} is {loss:g}, which has no logarithm"
    return None


def fit_law(cells: Sequence[Cell], seeds: Seeds) -> Law | None:
    """Fitted to the means; None if ``why_no_law`` says so."""
    if why_no_law(cells, seeds.means.tolist()):
        return None
    log_n = np.log([cell.n_passes for cell in cells])
    tokens = np.array([cell.tokens for cell in cells])
    unit = float(np.exp(np.log(tokens).mean()))
    log_d, means = np.log(tokens / unit), seeds.means
    best = _fit(log_n, log_d, means)
    phis = [  # a seed whose loss is 0 may be drawn alone
        _fit(log_n, log_d, drawn, [best])[2] if (drawn > 0).all() else nan for drawn in seeds.resampled[:, :REFITS].T
    ]
    residual = np.log(means) - np.log(_predict(best, log_n, log_d))
    spread = np.log(means) - np.log(means).mean()
    r2 = 1 - float((residual**2).sum() / max((spread**2).sum(), 1e-300))
    per_token = np.log([cell.flops / cell.tokens for cell in cells])
    log_a, log_alpha, phi, log_floor = best
    return Law(
        phi=seeds.estimate(float(phi), np.array(phis)),
        cost=slope(log_n, per_token),
        alpha=float(np.exp(log_alpha)),
        floor=float(np.exp(log_floor)),
        scale=float(np.exp(log_a)) * unit,
        r2=r2,
        miss=_miss(cells, log_n, log_d, means),
    )


def _miss(cells: Sequence[Cell], log_n: Array, log_d: Array, means: Array) -> float | None:
    """Largest relative error at the largest budget, predicted from the others."""
    last = np.array([cell.budget == max(cell.budget for cell in cells) for cell in cells])
    if (~last).sum() < LEAST_CELLS or len(set(log_n[~last])) < 2:
        return None
    earlier = _fit(log_n[~last], log_d[~last], means[~last])
    return float(np.abs(_predict(earlier, log_n[last], log_d[last]) / means[last] - 1).max())


def _predict(constants: Sequence[float] | Array, log_n: Array, log_d: Array) -> Array:
    """Losses by log A, log alpha, phi and log E."""
    log_a, log_alpha, phi, log_floor = constants
    reach = np.clip(np.exp(log_alpha) * (log_a - log_d - phi * log_n), -60, 60)
    return np.asarray(np.exp(log_floor) + np.exp(reach))


def _fit(log_n: Array, log_d: Array, losses: Array, starts: Sequence[Array] | None = None) -> Array:
    """The constants with the least Huber loss of log losses, from several starts."""
    from scipy.optimize import least_squares

    log_least = float(np.log(losses.min()))
    if starts is None:
        middle = float(np.log(losses).mean())
        starts = [
            np.array([middle / alpha, np.log(alpha), phi, floor])
            for alpha in (0.1, 0.5, 2.0)
            for phi in (0.0, 0.7)
            for floor in (log_least - 5, log_least - 0.2)
        ]

    def residuals(constants: Array) -> Array:
        return np.asarray(np.log(_predict(constants, log_n, log_d)) - np.log(losses))

    def jacobian(constants: Array) -> Array:
        log_a, log_alpha, phi, log_floor = constants
        distance, alpha = log_a - log_d - phi * log_n, np.exp(log_alpha)
        reach, floor = np.exp(np.clip(alpha * distance, -60, 60)), np.exp(log_floor)
        falling, held = alpha * reach / (floor + reach), floor / (floor + reach)
        return np.stack([falling, falling * distance, -falling * log_n, held], axis=1)

    bounds = ([-50, -5, -5, min(-30, log_least - 5)], [50, 3, 5, log_least])
    found = [
        least_squares(residuals, np.clip(start, *bounds), jacobian, bounds=bounds, loss="huber", f_scale=0.1)
        for start in starts
    ]
    return np.asarray(min(found, key=lambda one: one.cost).x)
