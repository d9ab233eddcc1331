"""reproduce from the outside: real runs, their scores, the page; the same again; bad input."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.evidence.data_order import DataOrder
from sleep_lightning.evidence.joining import joined_scores
from sleep_lightning.evidence.scores import RunScore, finished_runs
from sleep_lightning.evidence.tables import read_table, write_table
from sleep_lightning.evidence.throughput import Speed, measure
from sleep_lightning.sweep.point import ARM, apply_point
from sleep_lightning.sweep.spec import load_sweep
from tests.cli.cli import ROOT, SMALL, run
from tests.evidence.rows import row
from tests.evidence.test_page import SPEEDS

SPEC = """
name: reproduce_rule110_steps
base: {root}/conf/rule110.yaml
overrides: [{overrides}]
space: {{task.steps: {{choices: ["[1]", "[2]"]}}}}
sampler: grid
budget: {{trials: 2}}
pruner: none
workers: 2
"""

SHIPPED = ["--sweeps", str(ROOT / "sweeps")]


@pytest.mark.process
@pytest.mark.slow
def test_from_sweeps_to_the_page_and_the_same_again(tmp_path: Path) -> None:
    (tmp_path / "sweeps").mkdir()
    own = [f'"{text}"' for text in SMALL if not text.startswith("task.steps")]
    spec = SPEC.format(root=ROOT, overrides=", ".join([*own, "training.max_steps=4", "sleep.n_passes=1"]))
    (tmp_path / "sweeps" / "reproduce_rule110_steps.yaml").write_text(spec)
    (tmp_path / "results").mkdir()
    write_table(Speed, SPEEDS, tmp_path / "results" / "throughput.csv")  # measuring takes a minute: kept if it is there
    done = run(tmp_path, "reproduce")
    assert done.returncode == 0, done.stderr
    assert "N = 1 falls as t grows" in done.stdout
    page = (tmp_path / "RESULTS.md").read_text()
    assert "\n2 runs, " in page
    order = read_table(DataOrder, tmp_path / "results" / "data_order.csv")
    assert [(row.first, row.runs, row.difference) for row in order] == [
        ("reproduce_rule110_steps 1", 1, ""),  # other data: nothing to compare
        ("reproduce_rule110_steps 2", 1, ""),
    ]
    assert "results/rule110.png" in page and (tmp_path / "results" / "rule110.png").exists()
    scores = read_table(RunScore, tmp_path / "results" / "scores.csv")
    assert [(row.level, row.seed, row.steps, row.slice) for row in scores] == [("1", 0, 4, "all"), ("2", 0, 4, "all")]
    assert all(row.majority > 0 and row.train_flops > 0 for row in scores)
    (tmp_path / "RESULTS.md").unlink()
    again = run(tmp_path, "reproduce", "--page-only")
    assert again.returncode == 0, again.stderr
    assert (tmp_path / "RESULTS.md").read_text() == page
    more = spec.replace("rule110_steps", "rule110")
    (tmp_path / "sweeps" / "reproduce_rule110.yaml").write_text(more)
    so_far = run(tmp_path, "reproduce", "--so-far")
    assert so_far.returncode == 0, so_far.stderr
    assert "**Not finished: 2 of 4 runs**" in (tmp_path / "RESULTS.md").read_text()
    assert read_table(RunScore, tmp_path / "results" / "scores.csv") == scores
    (tmp_path / "sweeps" / "reproduce_rule110_steps.yaml").write_text(spec.replace("max_steps=4", "max_steps=5"))
    other = run(tmp_path, "reproduce", "--so-far")
    assert other.returncode == 2
    assert "runs/sweeps/reproduce_rule110_steps holds another reproduce_rule110_steps than sweeps does" in other.stderr
    folder = tmp_path / "runs" / "sweeps" / "reproduce_rule110_steps"
    text = (folder / "sweep.yaml").read_text()
    (folder / "sweep.yaml").write_text(text.replace("space:\n", "space:\n  sleep.window_size: {choices: [3, 6]}\n"))
    with pytest.raises(ValueError, match="2 keys vary; results are derived from sweeps over one key"):
        finished_runs(folder)


@pytest.mark.slow
@pytest.mark.process
def test_shares_of_two_machines_are_one_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = [f'"{text}"' for text in SMALL if not text.startswith("task.steps")]
    spec = SPEC.format(root=ROOT, overrides=", ".join([*own, "training.max_steps=4", "sleep.n_passes=1"]))
    spec = spec.replace(', "[2]"', "").replace("trials: 2", "trials: 1") + "seeds: [0, 1]\n"
    machines = [tmp_path / "one", tmp_path / "two"]
    for i, machine in enumerate(machines, 1):
        (machine / "sweeps").mkdir(parents=True)
        (machine / "sweeps" / "reproduce_rule110_steps.yaml").write_text(spec)
        (machine / "results").mkdir()
        write_table(Speed, SPEEDS, machine / "results" / "throughput.csv")
        done = run(machine, "reproduce", "--share", f"{i}/2")
        assert done.returncode == 0, done.stderr
        assert "**Not finished: 1 of 2 runs**" in (machine / "RESULTS.md").read_text()
    one, two = machines
    tables = [read_table(RunScore, machine / "results" / "scores.csv") for machine in machines]
    assert [row.seed for rows in tables for row in rows] == [0, 1]
    assert {row.sweep for rows in tables for row in rows} == {"reproduce_rule110_steps"}
    monkeypatch.chdir(one)
    assert main(["reproduce", "--page-only", "--join", "../two/results"]) == 0
    assert "\n2 runs, " in (one / "RESULTS.md").read_text()
    assert read_table(RunScore, one / "results" / "scores.csv") == [*tables[0], *tables[1]]
    orders = read_table(DataOrder, one / "results" / "data_order.csv")
    assert [row.seed for row in orders] == [0, 1]
    for part in (two / "runs" / "sweeps").iterdir():  # the folders of runs merge, too
        shutil.move(part, one / "runs" / "sweeps" / part.name)
    assert main(["reproduce", "--so-far"]) == 0
    assert read_table(RunScore, one / "results" / "scores.csv") == [*tables[0], *tables[1]]


def test_runs_of_another_size_are_not_joined() -> None:
    ours, theirs = row("reproduce_depo", "n1", 0, 0.5), row("reproduce_depo", "n1", 1, 0.6)
    assert joined_scores([ours], [("b", [theirs])]) == [ours, theirs]
    assert joined_scores([ours], [("b", [replace(theirs, seed=0)])]) == [ours]
    with pytest.raises(ValueError, match=r"^--join b: reproduce_depo n1 has another size there"):
        joined_scores([ours], [("b", [replace(theirs, steps=601)])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweeps", "nowhere"], "--sweeps nowhere has no reproduce_*.yaml; the shipped ones lie in sweeps/"),
        ([*SHIPPED, "--page-only"], "--page-only: results has no scores.csv yet; run reproduce without it first"),
        ([*SHIPPED, "--so-far"], f"--so-far: no sweep of {ROOT / 'sweeps'} has begun in runs/sweeps; run reproduce"),
        (["--so-far", "--page-only"], "--so-far scores what is finished and --page-only does not; give one of them"),
        (["--share", "1/2", "--so-far"], "--share 1/2 trains, and --so-far and --page-only do not; give one of them"),
        ([*SHIPPED, "--share", "3/2"], "--share '3/2' must be I/N with I from 1 to N"),
        ([*SHIPPED, "--join", "nowhere"], "--join nowhere has no scores.csv; name a results/ folder that reproduce"),
        (["--seconds", "0"], "--seconds 0 must be a number above 0"),
        ([*SHIPPED, "--output", "/proc/none"], "--output /proc/none cannot be written: No such file or directory"),
    ],
)
def test_bad_input_ends_in_one_sentence(
    tmp_path: Path, arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_what_a_pass_costs_is_measured() -> None:
    found = list(measure(1.0))
    by_passes = {row.n_passes: row for row in found if row.question == "passes"}
    assert sorted(by_passes) == [1, 2, 3, 4, 6]
    assert by_passes[1].times_slower == by_passes[1].flops_ratio == 1.0
    assert by_passes[6].flops_ratio > by_passes[2].flops_ratio > 1.5
    whole, *parts = [row for row in found if row.question == "windows"]
    assert whole.window_size > 192 and [row.window_size for row in parts] == [192, 96, 48, 24]
    assert all(row.rounds >= 5 and row.tokens_per_s > 0 for row in found)


@pytest.mark.parametrize("name", ["reproduce_rule110", "reproduce_depo"])
def test_arms_at_equal_flops_are(name: str) -> None:
    """Of the shipped sweeps, whose rates differ between arms, so that steps are written out."""
    sweep = load_sweep(ROOT / "sweeps" / f"{name}.yaml")
    arms = {str(point[ARM]).partition(":")[0]: apply_point(sweep.base, point) for point in sweep.space.points()}
    steps = {arm: sequence_cost(e).total * e.training.max_steps for arm, e in arms.items()}
    assert steps["more-tokens"] == pytest.approx(steps["n4"], rel=0.001)
    assert {e.training.batch_size for e in arms.values()} == {arms["n4"].training.batch_size}
    n1, longer = arms["n1"], arms["more-tokens"]
    assert replace(longer, training=replace(longer.training, max_steps=n1.training.max_steps)) == n1


@pytest.mark.slow
def test_the_papers_sizes_take_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["reproduce", "--paper", *SHIPPED]) == 2
    assert "--paper trains 6.88 EFLOP and there is no GPU here; run it on one " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
