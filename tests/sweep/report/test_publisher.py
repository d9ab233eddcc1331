"""Reports while a sweep runs: not too often, and whatever goes wrong, the sweep continues."""

import threading
import time
from html import escape
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from sleep_lightning.sweep.report import publisher
from sleep_lightning.sweep.report.content import build_report
from sleep_lightning.sweep.report.origin import CHARTS
from sleep_lightning.sweep.report.publisher import Publisher, chart_lines, parameters
from sleep_lightning.tracking.mlflow_logger import MLflowRun
from tests.sweep.studies import ToldStudy
from tests.sweep.sweeps import small_sweep


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store: making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"


@pytest.mark.long
def test_the_mlflow_run_holds_the_sweep(tmp_path: Path, uri: str) -> None:
    study = ToldStudy(tmp_path / "sweep")
    logger = MLflowRun(uri, "e", "small")
    reports = Publisher(study.study, study.folder, logger, {}, every_seconds=1000)
    reports.begin(study.sweep)
    study.finish(2, 0.5, 2e6)
    reports.refresh()
    study.finish(1, 0.25, 1e6)
    reports.refresh()
    assert not (study.folder / "report.html").exists()  # too early
    reports.preset_charts()
    reports.publish()
    logger.end("FINISHED")
    client = MlflowClient(uri)
    run = client.get_run(logger.run_id)
    names = {file.path for file in client.list_artifacts(logger.run_id)}
    assert names == {"report.html", "frontier.html", "frontier.png", "frontier.json", "trials.csv"}
    assert run.data.params["sweep.sampler"] == "random"
    assert run.data.params["sweep.space.sleep.grad_passes"] == "choices=[None, 1], when={'sleep.n_passes': [3, 4]}"
    assert run.data.params["sweep.objectives.train_flops"] == "minimize"
    assert run.data.tags["sweep.name"] == "small"
    assert escape(study.study.user_attrs[CHARTS]["url"]) in (study.folder / "report.html").read_text()
    history = client.get_metric_history(logger.run_id, "sweep/flops_spent")
    assert [(m.step, m.value) for m in history] == [(1, 2e6), (2, 3e6)]  # published again, and not twice
    assert run.data.metrics["sweep/hypervolume"] == pytest.approx((0.25 * 1 + 0) / 2)


def test_files_are_written_when_the_last_are_old_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = ToldStudy(tmp_path)
    now, written = [0.0], list[float]()
    monkeypatch.setattr(publisher.time, "monotonic", lambda: now[0])

    def write(*_: object) -> list[Path]:
        written.append(now[0])
        now[0] += 3  # drawing takes that long: so 60 s until the next
        return []

    monkeypatch.setattr(publisher, "write_report", write)
    reports = Publisher(study.study, tmp_path, None, {})
    while now[0] < 100:
        reports.refresh()
        now[0] += 1
    assert written == [30, 90]


def test_what_goes_wrong_warns(tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    study = ToldStudy(tmp_path / "sweep")
    logger = MLflowRun(uri, "e", "small")
    reports = Publisher(study.study, study.folder, logger, {})

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("no room left")

    with monkeypatch.context() as patch:
        patch.setattr(logger._client, "log_artifact", refuse)
        patch.setattr(logger._client, "log_batch", refuse)
        reports.begin(study.sweep)
        reports.publish()
        with pytest.warns(UserWarning, match="kept and sent later: MlflowException: no room left"):
            assert logger.flush() > 1
        assert (study.folder / "report.html").exists()
        patch.setattr(publisher, "write_report", lambda *_: 1 / 0)
        with pytest.warns(UserWarning, match="no report, ZeroDivisionError"):
            reports.publish()
        patch.setattr(publisher, "build_report", lambda *_: {}["damaged"])
        reports._next_metrics = 0
        with pytest.warns(UserWarning, match="no report, KeyError: 'damaged'"):
            reports.refresh()
    logger.end("FINISHED")


def test_a_store_that_does_not_answer_holds_no_sweep_up(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, asked = threading.Event(), list[object]()

    def slow(*about: object) -> None:
        asked.append(about)
        answer.wait(30)

    monkeypatch.setattr(publisher, "preset_chart_page", slow)
    monkeypatch.setattr(publisher, "PATIENCE", 0.1)
    monkeypatch.setattr(publisher, "write_report", lambda *_: [])
    study = ToldStudy(tmp_path / "sweep")
    logger = MLflowRun(uri, "e", "small", flush_seconds=1000)
    reports = Publisher(study.study, study.folder, logger, {})
    start = time.monotonic()
    reports.begin(study.sweep)
    study.finish(2, 0.5, 2e6)
    reports.publish()
    reports.close()
    assert time.monotonic() - start < 10 and len(asked) == 1, "one at a time, and nobody waits for it"
    assert reports.charts is not None and f"sweep-{logger.run_id}&compareRunsMode=CHART" in reports.charts.url
    answer.set()
    monkeypatch.setattr(publisher, "PATIENCE", 30.0)  # from here on it answers, on a busy machine too
    reports.close()
    reports.publish()
    reports.close()
    assert len(asked) == 2
    logger.end("FINISHED")


def test_the_lines_of_the_charts_are_those_of_the_report(tmp_path: Path) -> None:
    study = ToldStudy(tmp_path / "sweep")
    study.finish(1, 0.25, 1e6)
    study.finish(2, 0.5, 1e8)
    study.finish(3, 0.25, 1e7)  # dominated
    lines = chart_lines(build_report(study.study, study.folder))
    assert [(round(x, 6), y) for x, y in lines.edge] == [(6, 0.25), (8, 0.5)]
    assert (round(lines.left, 6), round(lines.right, 6)) == (6, 8)


def test_parameters_are_flat_and_leave_out_what_is_not_set() -> None:
    flat = parameters(small_sweep(seeds=[0, 2]))
    assert flat["sweep.seeds"] == [0, 2]
    assert flat["sweep.budget.trials"] == 4
    assert flat["sweep.space.sleep.n_passes"] == "choices=[1, 2, 3, 4]"
    assert all(isinstance(key, str) and not isinstance(value, dict) for key, value in flat.items())
