"""Results beside what answers without the evidence score, and a mean beside its seeds."""

from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.sweep.report.baselines import baseline_facts, warning, with_seeds
from sleep_lightning.sweep.report.content import read_report
from tests.sweep.studies import ToldStudy


def told(*exact: float) -> ToldStudy:
    study = ToldStudy(Path("runs/sweeps/small"))
    for n, value in enumerate(exact, 1):
        study.finish(n, value, n * 1e12)
    return study


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")


@pytest.mark.parametrize(("exact", "warned"), [((0.08, 0.125), True), ((0.08, 0.126), False), ((), False)])
def test_it_is_said_when_nothing_beats_the_majority_answer(
    exact: tuple[float, ...], warned: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    study = told(*exact)
    said = "nothing beats the majority answer: 0.125 at best, 0.125 without evidence"
    assert warning(read_report(study.folder)) == (said if warned else None)
    for verb in (["show", "small"], ["list"], *([["best", "small"]] if exact else [])):
        assert main(["sweep", *verb]) == 0
        assert (said in capsys.readouterr().out) == warned
    assert main(["sweep", "report", "small"]) == 0
    assert (said in (study.folder / "report.html").read_text()) == warned


def test_a_lead_within_its_standard_error_beats_nothing() -> None:
    study = told(0.13)
    assert warning(read_report(study.folder)) is None
    study.record(0, answers=1024)
    said = "nothing beats the majority answer: 0.130 ± 0.011 at best, 0.125 without evidence"
    assert warning(read_report(study.folder)) == said


def test_one_seed_stands_beside_its_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    told(0.5).record(0, answers=1024)
    for verb in (["show", "small"], ["best", "small"], ["report", "small"]):
        assert main(["sweep", *verb]) == 0
    assert capsys.readouterr().out.count("0.500 ± 0.016") == 3  # best: in the table and below it
    assert "<td>0.500 ± 0.016</td>" in Path("runs/sweeps/small/report.html").read_text()


def test_baselines_stand_beside_the_results(capsys: pytest.CaptureFixture[str]) -> None:
    report = read_report(told(0.5).folder)
    assert dict(baseline_facts(report)) == {"majority answer": "0.125", "uniform guess": "0.062"}
    for verb in ("show", "best"):
        assert main(["sweep", verb, "small"]) == 0
        assert "majority answer 0.125, uniform guess 0.062\n" in capsys.readouterr().out


def test_a_mean_stands_beside_its_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    assert with_seeds(0.5, []) == with_seeds(0.5, [0.5]) == "0.500"
    assert with_seeds(0.742, [0.512, 0.973]) == "0.742 (mean of 0.512 0.973)"
    assert with_seeds(0.5, [0.1 * i for i in range(1, 10)]) == "0.500 (mean of 9 seeds from 0.100 to 0.900)"
    told().finish(2, 0.75, 1e12, seeds=[0.5, 1.0])
    for verb in ("show", "best"):
        assert main(["sweep", verb, "small"]) == 0
        assert "0.750 (mean of 0.500 1.000)" in capsys.readouterr().out
