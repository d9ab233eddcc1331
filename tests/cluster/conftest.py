import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from tests.cluster.services import Postgres, Slurm, why_not
from tests.cluster.small_run import fit_words


@pytest.fixture(scope="session")
def _possible() -> None:
    if (reason := why_not()) is not None:
        pytest.skip(reason)


@pytest.fixture(scope="session")
def started_slurm(_possible: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    service = Slurm(tmp_path_factory.mktemp("slurm") / "s")
    try:
        service.start()
        yield service
    finally:
        service.stop()


@pytest.fixture
def slurm(started_slurm: Slurm, monkeypatch: pytest.MonkeyPatch) -> Slurm:
    """A SLURM that our processes know."""
    for name, value in started_slurm.environment.items():
        monkeypatch.setenv(name, value)
    return started_slurm


@pytest.fixture(scope="session")
def started_postgres(_possible: None) -> Iterator[Postgres]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # pytest's are closed to other users
        service = Postgres(Path(folder))
        service.start()
        try:
            yield service
        finally:
            service.stop()


@pytest.fixture
def postgres(started_postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> Postgres:
    """A PostgreSQL whose password our processes know."""
    for name, value in started_postgres.environment.items():
        monkeypatch.setenv(name, value)
    return started_postgres


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small run, trained by one process."""
    run = tmp_path_factory.mktemp("alone") / "run"
    assert main(fit_words(run)) == 0
    return run
