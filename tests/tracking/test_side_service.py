import warnings
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger

from sleep_lightning.__main__ import main
from sleep_lightning.tracking.side_service import started
from tests.cli.test_tracking import fit_arguments

OWN = '''
from lightning.pytorch.loggers import CSVLogger


class LoggedOut(CSVLogger):
    @property
    def experiment(self):
        raise PermissionError("no key; log in first")


class Fills(CSVLogger):
    """Its disk is full from the second row on."""

    rows = 0

    def log_metrics(self, metrics, step=None):
        self.rows += 1
        if self.rows > 1:
            raise OSError(28, "No space left on device")
        super().log_metrics(metrics, step)
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_loggers.py").write_text(OWN)
    return tmp_path


def arguments(name: str, *more: str) -> list[str]:
    loggers = f"tracking.loggers=[{{class_path: own_loggers.{name}}}, csv]"
    return [*fit_arguments("run", 4, loggers), "training.search_path=[.]", *more]


def test_a_logger_that_cannot_start_is_refused_before_the_run(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments("LoggedOut")) == 2
    assert capsys.readouterr().err == (
        "error: tracking.loggers[0]: LoggedOut cannot start: no key; log in first; mend that, drop it, or set "
        "tracking.required=false\n"
    )


def test_it_is_left_out_where_tracking_is_not_required(folder: Path) -> None:
    with pytest.warns(UserWarning, match="LoggedOut cannot start: no key; log in first; training without it"):
        assert main(arguments("LoggedOut", "tracking.required=false")) == 0
    assert list(folder.rglob("metrics.csv"))


def test_a_logger_that_fails_later_warns_once_and_the_training_ends_well(folder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main(arguments("Fills", "training.log_every=1")) == 0
    said = [str(one.message) for one in caught if "Fills" in str(one.message)]
    assert len(said) == 1 and said[0].endswith("training continues: [Errno 28] No space left on device")


def test_it_is_still_of_its_class(tmp_path: Path) -> None:
    logger = started(CSVLogger(tmp_path), "tracking.loggers[0]", required=True)
    assert isinstance(logger, CSVLogger) and type(logger).__name__ == "CSVLogger"
