"""The picture of every seed's learning curve."""

from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.tracking.figures import seeds
from sleep_lightning.tracking.figures.seeds import SeedsPanel, draw_seeds


def drawn(panels: list[SeedsPanel], path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    found: list[Any] = []
    monkeypatch.setattr(seeds, "save_figure", lambda figure, path: found.append(figure))
    draw_seeds(panels, {"solved": 0.95, "majority": 0.07}, path, "all")
    return found[0]


@pytest.mark.parametrize("count", [1, 4, 6])
def test_a_panel_for_each_point_and_a_line_for_each_seed(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = [[(1e12, 0.1), (2e12, 0.9)], [(1e12, 0.2)], [(1e12, 0.1), (2e12, 0.3), (3e12, 0.4)]]
    panels = [SeedsPanel(f"point {i}", curves[: 1 + i % 3]) for i in range(count)]
    figure = drawn(panels, tmp_path / "x.png", monkeypatch)
    shown = [axes for axes in figure.axes if axes.get_visible()]
    assert [axes.get_title() for axes in shown] == [panel.title for panel in panels]
    for axes, panel in zip(shown, panels, strict=True):
        lines = [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
        assert all(list(curve) in lines for curve in panel.curves)
        assert len(lines) == 2 * len(panel.curves) + 2  # with its end, and the two levels
        assert [line.get_label() for line in axes.lines[-2:]] == ["solved 0.95", "majority 0.07"]
    labelled = [axes.xaxis.get_tick_params()["labelbottom"] for axes in shown]
    assert labelled == [i + min(count, 4) >= count for i in range(count)]


def test_it_is_written(tmp_path: Path) -> None:
    draw_seeds([SeedsPanel("n_passes=1, " * 9, [[(1.0, 0.5)]])], {"solved": 0.95}, tmp_path / "x.png", "all")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")
