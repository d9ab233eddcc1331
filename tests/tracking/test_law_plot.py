"""The picture of an iso-FLOP study."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure

from sleep_lightning.tracking.figures import law_plot
from sleep_lightning.tracking.figures.law_plot import Bowl, LawPanel, draw_law

NAN = float("nan")


def bowl(means: tuple[float, ...], best: tuple[float, float, float] = (2**0.5, 1.0, 2.0)) -> Bowl:
    return Bowl(1e12, (1, 2, 4), means, means, means, best)


def drawn(monkeypatch: pytest.MonkeyPatch, panels: list[LawPanel]) -> Figure:
    figures = list[Figure]()
    monkeypatch.setattr(law_plot, "save_figure", lambda figure, path: figures.append(figure))
    draw_law(panels, Path("law.png"), "study")
    return figures[0]


@pytest.mark.parametrize(("slices", "grid"), [(1, (1, 2)), (3, (1, 4)), (4, (2, 3)), (5, (2, 3)), (6, (2, 4))])
def test_the_grid_leaves_few_gaps(monkeypatch: pytest.MonkeyPatch, slices: int, grid: tuple[int, int]) -> None:
    figure = drawn(monkeypatch, [LawPanel(str(i), (bowl((1.0, 0.5, 1.0)),)) for i in range(slices)])
    assert len(figure.axes) == slices + 1 and figure.axes[-1].get_title() == "N* and its interval"
    spec = figure.axes[0].get_subplotspec()
    assert spec is not None and spec.get_gridspec().get_geometry() == grid


@pytest.mark.parametrize(("means", "height"), [((1.0, 0.5, 1.0), 0.75), ((1.0, 0.0001, 1.0), 0.01)])
def test_the_star_lies_on_its_line(monkeypatch: pytest.MonkeyPatch, means: tuple[float, ...], height: float) -> None:
    """Half way between N = 1 and 2; of losses that span a lot, on a logarithmic axis."""
    axes = drawn(monkeypatch, [LawPanel("all", (bowl(means),))]).axes[0]
    (star,) = (line for line in axes.lines if line.get_marker() == "*")
    assert axes.get_yscale() == ("log" if height < 0.1 else "linear")
    assert (*star.get_xdata(), *star.get_ydata()) == pytest.approx((2**0.5, height))


def test_what_is_not_determined_is_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(monkeypatch, [LawPanel("all", (bowl((1.0, 0.5, 1.0), (NAN, NAN, NAN)),))]).axes[0]
    (star,) = (line for line in axes.lines if line.get_marker() == "*")
    assert not (star.get_ydata() == star.get_ydata()).any()  # type: ignore[union-attr]
    assert len(axes.lines) == 2, "no interval"
