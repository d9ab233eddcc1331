"""The report is what the stores hold: by hand, against brute force, and on studies with next to nothing in them."""

import csv
import io
import json
import math
import random
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from itertools import product
from pathlib import Path

import pytest

from sleep_lightning.frontier import Point
from sleep_lightning.sweep.report.content import Report, build_report, read_report
from sleep_lightning.sweep.report.files import as_csv, as_dot, as_json, frontier_plot, write_report
from sleep_lightning.sweep.report.origin import CHARTS
from sleep_lightning.sweep.report.page import report_page
from sleep_lightning.sweep.report.rows import Row
from sleep_lightning.tracking.figures.sweeps import frontier_figure
from sleep_lightning.tracking.figures.web_page import write_page
from tests.sweep.studies import ToldStudy

EVERY_FILE = {"frontier.json", "trials.csv", "frontier.png", "frontier.html", "report.html"}


def told(folder: Path) -> ToldStudy:
    """Two trials on the frontier, one below it, one pruned, one failed, one refused, one running."""
    study = ToldStudy(folder, seeds=[0, 1])
    study.finish(2, 0.5, 2e12, seeds=[0.4, 0.6])
    study.finish(1, 0.25, 1e12, seeds=[0.25, 0.25])
    study.prune(4, spent=1e12, whole=8e12)
    study.finish(4, 0.5, 4e12, seeds=[0.3, 0.7])
    study.fail(3, failed="out of <memory>", flops_spent=5e11, train_flops=6e12)
    study.fail(3, infeasible="train_flops 9e+12 is above 8e+12")
    study.ask(2)
    return study


def test_facts_by_hand(tmp_path: Path) -> None:
    told(tmp_path)
    report = read_report(tmp_path)
    assert report.states == {"complete": 3, "pruned": 1, "failed": 1, "infeasible": 1, "running": 1}
    assert (report.cost, report.value) == ("train_flops", "exact_match")
    assert [t.number for t in report.best] == [1, 0]
    assert report.flops_spent == 2 * (2e12 + 1e12 + 4e12) + 1e12 + 5e11
    assert report.flops_saved == 7e12
    assert report.gain(report.finished) == pytest.approx((0.25 * 1 + 0.5 * 2) / 4)  # of 4e12 FLOPs x 1
    done = [0.5 * 2 / 4, 0.3125]  # the second adds 0.25 x 1e12; nothing after it adds
    spent = [4e12, 6e12, 7e12, 15e12, 15.5e12]
    assert report.progress == [Point(s, pytest.approx(g)) for s, g in zip(spent, [*done, *done[1:] * 3], strict=True)]
    assert report.baselines == {"majority answer": (0.125, 0.125), "uniform guess": (0.0625, 0.0625)}
    assert report.trials[0].by_seed["exact_match"] == [0.4, 0.6]
    assert [report.n_passes(t) for t in report.trials] == [2, 1, 4, 4, 3, 3, 2]
    assert report.trials[4].reason == "out of <memory>"


def test_the_journal_alone_is_enough_for_the_seeds(tmp_path: Path) -> None:
    study = told(tmp_path)
    for file in tmp_path.glob("trials/*/summary.json"):
        file.unlink()
    report = build_report(study.study, tmp_path)
    assert report.baselines == {}
    assert report.trials[0].by_seed["exact_match"] == [0.4, 0.6]
    dot = as_dot(report, report.trials[0])
    assert (dot.low, dot.value, dot.high, dot.seeds) == (0.4, 0.5, 0.6, 2)


def beats(report: Report, a: Row, b: Row) -> bool:
    """Whether a is nowhere worse than b, and somewhere better, in the objectives as they were asked for."""
    signs = {name: 1 if way == "maximize" else -1 for name, way in report.objectives.items()}
    gains = [sign * (a.result[name] - b.result[name]) for name, sign in signs.items()]
    return min(gains) >= 0 and max(gains) > 0


@pytest.mark.parametrize("names", [("exact_match", "train_flops"), ("wall_s", "loss"), ("loss", "token_accuracy")])
@pytest.mark.parametrize("ways", list(product(["maximize", "minimize"], repeat=2)))
def test_frontier_of_any_two_objectives(tmp_path: Path, names: tuple[str, str], ways: tuple[str, str]) -> None:
    study = ToldStudy(tmp_path, objectives=dict(zip(names, ways, strict=True)))
    dice = random.Random(0)
    for _ in range(12):
        numbers = {name: dice.randrange(1, 6) / 5 for name in ("token_accuracy", "loss", "wall_s")}
        study.finish(1, dice.randrange(6) / 5, 1e6 * dice.randrange(1, 6), **numbers)
    report = build_report(study.study, tmp_path)
    expected = [t for t in report.trials if not any(beats(report, other, t) for other in report.trials)]
    points = {(t.result[names[0]], t.result[names[1]]) for t in expected}
    assert {(t.result[names[0]], t.result[names[1]]) for t in report.best} == points
    assert len(report.best) == len(points)
    assert 0 < report.gain(report.finished) <= 1
    gains = [gain for _, gain in report.progress]
    assert gains == sorted(gains) and gains[-1] == pytest.approx(report.gain(report.finished))
    assert gains == pytest.approx([report.gain(report.finished[: i + 1]) for i in range(12)])
    if names == ("wall_s", "loss") and ways == ("maximize", "minimize"):  # the axes that are turned round
        assert {file.name for file in write_report(report, tmp_path)} == EVERY_FILE


def test_a_single_objective_is_a_ranking(tmp_path: Path) -> None:
    study = ToldStudy(tmp_path, objectives={"loss": "minimize"})
    for n, loss, flops in ((1, 0.9, 1e6), (2, 0.3, 2e6), (3, 0.3, 1.5e6), (4, 0.5, 4e6)):
        study.finish(n, 0.1, flops, loss=loss)
    report = build_report(study.study, tmp_path)
    assert [t.number for t in report.best] == [2, 1, 3, 0]
    assert report.best_within(None).number == 2
    assert report.best_within(1e6).number == 0
    assert [value for _, value in report.progress] == [0.9, 0.3, 0.3, 0.3]
    assert frontier_plot(report).edge == ()
    assert {file.name for file in write_report(report, tmp_path)} == EVERY_FILE


def test_the_best_within_a_cost(tmp_path: Path) -> None:
    told(tmp_path)
    report = read_report(tmp_path)
    assert report.best_within(None).number == 0  # as good as 3, and cheaper
    assert report.best_within(1.5e12).number == 1
    with pytest.raises(ValueError, match=r"--max-flops 1e\+11: the cheapest finished trial took 1e\+12"):
        report.best_within(1e11)


def test_importances_need_trials_that_differ(tmp_path: Path) -> None:
    study, level = ToldStudy(tmp_path), [0.1, 0.2, 0.4, 0.8]
    for i in range(7):
        study.finish(1 + i % 4, level[i % 4], 1e6)
    assert build_report(study.study, tmp_path).importances == {}
    for i in range(9):
        study.finish(1 + i % 4, level[i % 4], 1e6)
    [(name, shares)] = build_report(study.study, tmp_path).importances.items()  # FLOPs are all the same: none
    assert name == "exact_match"
    assert sum(shares.values()) == pytest.approx(1)
    assert shares["sleep.n_passes"] > 0.5


def test_every_trial_has_a_line(tmp_path: Path) -> None:
    told(tmp_path)
    report = read_report(tmp_path)
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert [line["state"] for line in lines][:5] == ["complete", "complete", "pruned", "complete", "failed"]
    assert lines[0]["sleep.n_passes"] == "2" and lines[0]["sleep.grad_passes"] == ""  # does not apply to N = 2
    assert lines[3]["sleep.grad_passes"] in ("1", "null")
    assert lines[0]["exact_match_by_seed"] == "0.4;0.6"
    assert float(lines[2]["flops_spent"]) == 1e12
    frontier = as_json(report)
    assert [point["trial"] for point in frontier["frontier"]] == [1, 0]
    assert frontier["frontier"][1]["exact_match_by_seed"] == [0.4, 0.6]


class Tags(HTMLParser):
    """Names of a page's elements, what they load from elsewhere, and where links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.names, self.loaded, self.links = list[str](), list[str](), list[str]()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        found = [value or "" for name, value in attrs if name in ("src", "href")]
        if tag == "a":
            self.links += found
        else:
            self.loaded += found


def test_pages_need_no_network_and_escape_what_they_are_given(tmp_path: Path) -> None:
    told(tmp_path)
    report = replace(read_report(tmp_path), name="<img src=x>")
    drawn = [as_dot(report, t) for t in report.trials if t.curve]
    page = report_page(report, frontier_plot(report), drawn, "small")
    write_page(frontier_figure(frontier_plot(report)), tmp_path / "frontier.html", report.name)
    for text in (page, (tmp_path / "frontier.html").read_text()):
        assert text.count("* plotly.js v") == 1
        tags = Tags(text)
        assert "script" in tags.names and "img" not in tags.names
        assert tags.loaded == []
    assert "out of &lt;memory&gt;" in page
    assert page.count("Plotly.newPlot(") == 3  # frontier, hypervolume, curves: too few trials for importances
    assert "sweep best small --max-flops 1000000000000 --export" in page
    assert "7 TFLOP (31% of 22.5 TFLOP)" in page
    assert Tags(page).links == [f"trials/{i:04d}-seed{seed}/" for i in (0, 1, 3) for seed in (0, 1)]


def rows_of(page: str) -> list[list[str]]:
    """Texts of the table of all trials."""
    body = page.partition('<table id="trials"')[2].partition("</table>")[0]
    rows = [row.split("</td>")[:-1] for row in body.split("<tr>")[2:]]
    return [[re.sub("<[^>]*>", "", cell) for cell in row] for row in rows]


def test_all_trials_stand_in_a_table(tmp_path: Path) -> None:
    told(tmp_path)
    write_report(read_report(tmp_path), tmp_path)
    page = (tmp_path / "report.html").read_text()
    rows = rows_of(page)
    states = ["complete", "complete", "pruned", "complete", "failed", "infeasible", "running"]
    assert [row[:2] for row in rows] == [[str(i), state] for i, state in enumerate(states)]
    assert [row[2] for row in rows] == [
        *("0.500 (mean of 0.400 0.600)", "0.250 (mean of 0.250 0.250)", "0.100 when stopped"),
        *("0.500 (mean of 0.300 0.700)", "", "", ""),
    ]
    assert [row[3] for row in rows][:5] == ["2 TFLOP", "1 TFLOP", "4 TFLOP planned", "4 TFLOP", "3 TFLOP planned"]
    assert rows[4][-1] == "out of &lt;memory&gt;" and rows[0][8] == "2 s"
    for text in ("<td>sleep.grad_passes</td><td>sleep.n_passes is 3 or 4</td><td>null, 1</td>", "seeds</td><td>0, 1<"):
        assert text in page


def test_where_a_sweep_ran_is_said(tmp_path: Path) -> None:
    study = told(tmp_path)
    for trial, commit in ((0, "1" * 40), (1, "1" * 40), (3, "2" * 40)):
        file = tmp_path / "trials" / f"{trial:04d}-seed0" / "summary.json"
        environment = {
            "git_commit": commit,
            "machine": "Linux, 2 cores",
            "cpu": "EPYC",
            "device": "cpu",
            "torch": "2.9",
        }
        content = json.loads(file.read_text()) | {"environment": environment, "mlflow_run_id": f"run{trial}"}
        file.write_text(json.dumps(content))
    charts = {"url": "http://host/#/experiments/7/runs?viewStateShareKey=x", "server": "mlflow <server>"}
    study.study.set_user_attr(CHARTS, charts)
    (tmp_path / "sweep.yaml").write_text(
        "name: small\nsampler: gp\npruner: none\nbudget: {trials: 9, flops: 2.0e+13}\n"
    )
    write_report(build_report(study.study, tmp_path), tmp_path)
    page = (tmp_path / "report.html").read_text()
    facts = dict(re.findall("<td>([^<]*)</td><td>([^<]*)</td>", page.partition("<h2>")[0]))
    assert facts["commit"] == f"{'1' * 40} (2 runs); {'2' * 40} (1 run)"
    assert facts["machine"] == "Linux, 2 cores, EPYC, cpu" and facts["software"] == "torch 2.9"
    assert facts["search"] == "sampler gp, pruner none, at most 9 trials, 20 TFLOP"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d \S+( to .*)?", facts["date"])
    assert unescape(facts["wall time"]) == "< 1 s from the first start to the last end; finished runs 12 s"
    assert "(while this runs: <code>mlflow &lt;server&gt;</code>)" in page
    links = Tags(page).links
    assert charts["url"] in links and "http://host/#/experiments/7/runs/run3?workflowType=machine_learning" in links
    assert "trials/0003-seed1/" in links and "trials.csv" in links and "sweep.yaml" in links


@pytest.mark.parametrize("kind", ["empty", "failed only", "one", "tied", "nan"])
def test_studies_with_next_to_nothing(tmp_path: Path, kind: str) -> None:
    study = ToldStudy(tmp_path)
    if kind == "failed only":
        study.fail(1, failed="no output")
    if kind in ("one", "tied"):
        study.finish(1, 0.5, 1e6)
    if kind == "tied":
        for _ in range(9):
            study.finish(1, 0.5, 1e6)
    if kind == "nan":
        study.finish(1, 0.5, 1e6, loss=math.nan)
        study.finish(2, 0.0, 2e6)
    report = read_report(tmp_path)
    files = {file.name for file in write_report(report, tmp_path)}
    if kind in ("empty", "failed only"):
        assert files == EVERY_FILE - {"frontier.png", "frontier.html"}
        page = (tmp_path / "report.html").read_text()
        assert "No trial is finished yet" in page and "No trial that was validated has ended yet" in page
        assert "Not known for exact match and training FLOPs: it takes 8 finished trials; there are 0." in page
        assert ("No trial has failed, and none was infeasible." in page) == (kind == "empty")
        assert "not known: no finished run has recorded them" in page
        assert "* plotly.js v" not in page  # nothing is drawn
        assert report.best == [] and report.gain(report.finished) == 0
        with pytest.raises(ValueError, match=r"small has no finished trial yet; go on with: sweep resume NAME"):
            report.best_within(None)
        return
    assert files == EVERY_FILE
    assert [t.number for t in report.best] == [0]
    assert report.importances == {}
    [point] = json.loads((tmp_path / "frontier.json").read_text(), parse_constant=pytest.fail)["frontier"]
    assert point["loss"] == (None if kind == "nan" else 1.0)
    assert point["frontier_share"] is None and point["interval"] is None  # of one seed


def test_a_result_that_is_no_number_is_on_no_frontier(tmp_path: Path) -> None:
    study = ToldStudy(tmp_path)
    study.finish(1, 0.5, 1e6)
    report = build_report(study.study, tmp_path)
    first = report.trials[0]
    bad = [
        replace(first, number=i, result=first.result | {"exact_match": x}) for i, x in ((1, math.nan), (2, math.inf))
    ]
    report = replace(report, trials=(first, *bad))
    assert [t.number for t in report.finished] == [t.number for t in report.best] == [0]
    assert {file.name for file in write_report(report, tmp_path)} == EVERY_FILE


def test_a_journal_that_cannot_be_read(tmp_path: Path) -> None:
    told(tmp_path)
    journal = tmp_path / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 5, "worker')
    assert len(read_report(tmp_path).trials) == 7  # a line that is being written
    lines = whole.splitlines(keepends=True)
    for damage in (b"no JSON\n", b"{}\n", b"[1]\n", b"\xff\xfe\n"):
        journal.write_bytes(b"".join([*lines[:5], damage, *lines[5:]]))
        with pytest.raises(ValueError, match=r"journal\.log is damaged .*; restore it from a copy, or start again"):
            read_report(tmp_path)
    journal.write_bytes(b"")
    with pytest.raises(ValueError, match="holds a sweep that ended before its first trial; run its YAML again"):
        read_report(tmp_path)
    journal.unlink()
    with pytest.raises(ValueError, match=r"is not the folder of a sweep \(no journal\.log\)"):
        read_report(tmp_path)


def test_pruned_trials_are_crosses_where_they_stopped(tmp_path: Path) -> None:
    told(tmp_path)
    plot = frontier_plot(read_report(tmp_path))
    assert [(dot.trial, dot.n_passes, dot.cost, dot.value) for dot in plot.stopped] == [(2, 4, 1e12, 0.1)]
    [crosses] = [trace for trace in frontier_figure(plot).data if trace.name == "stopped early"]
    assert list(crosses.x) == [1e12]
    other = ToldStudy(tmp_path / "loss", objectives={"loss": "minimize", "train_flops": "minimize"})
    other.finish(1, 0.5, 1e6)
    other.prune(2, spent=1e5, whole=1e6)
    assert frontier_plot(read_report(tmp_path / "loss")).stopped == ()  # a curve has no losses
