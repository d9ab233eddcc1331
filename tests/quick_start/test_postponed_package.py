import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.quick_start.postponed_package import PostponedPackage, forget, postpone_torchmetrics

INIT = "import time\nfrom collections import Counter\nruns = globals().get('runs', 0) + 1\ntime.sleep(0.2)\nlate = 1\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A torchmetrics in which ``late`` is there once ``__init__`` has run."""
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torchmetrics"}
    forget("torchmetrics")
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "torchmetrics"
    folder.mkdir()
    for name, text in {
        "__init__": INIT,
        "__about__": "__version__ = '9'",
        "utilities": "",
        "metric": "class Metric: ...",
        "collections": "class MetricCollection: ...",
    }.items():
        (folder / f"{name}.py").write_text(text)
    yield folder
    forget("torchmetrics")
    sys.modules.update(before)


def test_init_runs_once_when_it_is_wanted(package: Path) -> None:
    postpone_torchmetrics()
    import torchmetrics

    assert isinstance(torchmetrics, PostponedPackage) and torchmetrics.__version__ == "9"
    assert torchmetrics.Metric is sys.modules["torchmetrics.metric"].Metric
    assert "runs" not in vars(torchmetrics)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(torchmetrics.late)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1, 1, 1, 1] and torchmetrics.runs == 1
    assert not isinstance(torchmetrics, PostponedPackage)
    with pytest.raises(AttributeError, match="nonsense"):
        torchmetrics.nonsense  # noqa: B018


def test_one_that_is_made_otherwise_is_imported_as_ever(package: Path) -> None:
    (package / "metric.py").write_text("from torchmetrics import late\nclass Metric: ...")
    postpone_torchmetrics()
    assert not [name for name in sys.modules if name.startswith("torchmetrics")]
    import torchmetrics

    assert torchmetrics.runs == 1


def test_an_init_that_fails_says_so_every_time(package: Path) -> None:
    (package / "__init__.py").write_text("raise RuntimeError('broken')")
    postpone_torchmetrics()
    import torchmetrics

    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken"):
            torchmetrics.late  # noqa: B018


def test_what_is_imported_already_stays(package: Path) -> None:
    import torchmetrics

    postpone_torchmetrics()
    assert sys.modules["torchmetrics"] is torchmetrics and not isinstance(torchmetrics, PostponedPackage)
