"""reproduce from the outside: real runs, their scores, the page; the same again; bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

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
from tests.pretrained.published import write_configs
from tests.pretrained.test_ouro_and_jet import TINY_JET, TINY_OURO, write

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


RECORDED = ROOT / "results" / "runs_reproduce_depo.jsonl"


@pytest.mark.slow
def test_runs_taken_from_records_count_with_their_validation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All shipped runs of Depo: nothing is trained and no weights are there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    spec = yaml.safe_load((ROOT / "sweeps" / "reproduce_depo.yaml").read_text())
    spec["base"] = str(ROOT / "conf" / "depo.yaml")
    spec["overrides"].append("tracking.enabled=false")
    (tmp_path / "sweeps" / "reproduce_depo.yaml").write_text(yaml.safe_dump(spec))
    (tmp_path / "results").mkdir()
    write_table(Speed, SPEEDS, tmp_path / "results" / "throughput.csv")
    records = shutil.copy(RECORDED, tmp_path / "results")
    assert main(["reproduce", "--records", "results"]) == 0
    rows = read_table(RunScore, tmp_path / "results" / "scores.csv")
    assert len(rows) == 40 * 5 and {row.split for row in rows} == {"validation"}
    recorded = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    for one in recorded:
        training, summary = one["experiment"]["training"], one["summary"]
        (own,) = [
            row
            for row in rows
            if (row.seed, row.steps, row.slice) == (training["seed"], training["max_steps"], "all")
            and row.train_passes == one["experiment"]["sleep"]["n_passes"]
        ]
        assert own.exact_match == pytest.approx(summary["exact_match"], rel=1e-5)
        assert own.answers == summary["slices"]["all"]["answers"] and 220_000 < own.parameters < 230_000
    page = (tmp_path / "RESULTS.md").read_text()
    assert "without their weights on the validation split, on which rates were tuned with other" in page
    assert "training seeds: reproduce_depo: all)" in page
    assert "| Depo: N = 4 beats N = 1 trained longer, at equal FLOPs | not in the paper | **" in page
    assert "N = 4 needs its passes at test (4 passes beat 1) | not in the paper | **not run**" in page
    assert Path(records).read_text() == RECORDED.read_text()


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
    validated = replace(theirs, seed=0, split="validation")
    assert joined_scores([validated], [("b", [ours])]) == [ours]
    assert joined_scores([ours], [("b", [validated])]) == [ours]
    with pytest.raises(ValueError, match=r"^--join b: reproduce_depo n1 has another size there"):
        joined_scores([ours], [("b", [replace(theirs, steps=601)])])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sweeps", "nowhere"], "--sweeps nowhere has no reproduce_*.yaml; the shipped ones lie in sweeps/"),
        ([*SHIPPED, "--page-only"], "--page-only: results has no scores.csv yet; run reproduce without it first"),
        ([*SHIPPED, "--so-far"], f"--so-far: no sweep of {ROOT / 'sweeps'} has begun in runs/sweeps; run reproduce"),
        (["--so-far", "--page-only"], "--so-far scores what is finished and --page-only does not; give one of them"),
        (
            ["--records", "results", "--so-far"],
            "--records results takes and adds runs, and --so-far and --page-only do",
        ),
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


@pytest.mark.slow
def test_weights_that_are_not_there_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweeps").mkdir()
    for path in (ROOT / "sweeps").glob("paper_5*.yaml"):
        (tmp_path / "sweeps" / path.name).write_text(path.read_text().replace("../conf", str(ROOT / "conf")))
    assert main(["reproduce", "--paper"]) == 2
    fetch = "hf download ByteDance/Ouro-1.4B --local-dir weights/Ouro-1.4B fetches it"
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("error: --paper: paper_5_gsm_ouro.yaml left out: sweep sweeps/paper_5_gsm_ouro.yaml: ")
    assert said.endswith(f"model.pretrained=weights/Ouro-1.4B is no directory; {fetch}")
    write_configs(tmp_path)
    assert main(["reproduce", "--paper"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "Ouro-1.4B has no model.safetensors and no model.safetensors.index.json; hf download ByteDance" in said


LARGER = {"vocab_size": 2000}
"""A token for every word of the problems."""
TINY = {
    "paper_4_gsm_jet": (TINY_JET | LARGER, ["sleep.loop=0/2/1"]),
    "paper_5_gsm_ouro": (TINY_OURO | LARGER, []),
    "paper_6_gsm_ouro_sliding": (
        TINY_OURO | LARGER,
        [
            "task.max_tokens=600",
            "sleep.window_size=100",
            "training.stages=[{steps: 1, train: memory, eviction: hard}]",
            "training.unique_sequences=4",
        ],
    ),
}
SHORT = [
    *("task.ops=[2, 4]", "task.min_tokens=300", "task.max_tokens=599", "model.insert={every: 1, rule: J, heads: 2}"),
    *("training.batch_size=4", "training.accumulate=2", "training.max_steps=2", "training.val_batches=1"),
    *("training.val_every=2", "training.checkpoint_every=1", "training.precision=fp32", "tracking.enabled=false"),
]


@pytest.mark.slow
@pytest.mark.process
def test_the_papers_sweeps_on_pretrained_models_from_weights_to_the_page(tmp_path: Path) -> None:
    """The shipped files with tiny random models and two steps of four problems."""
    for folder in ("sweeps", "weights"):
        (tmp_path / folder).mkdir()
    for name, (config, own) in TINY.items():
        tiny = tmp_path / "weights" / name
        write(config, tiny)
        content = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
        short = [one for one in SHORT if config["model_type"] == "ouro" or not one.startswith("model.insert")]
        content["base"] = str(ROOT / content["base"].removeprefix("../"))
        content["overrides"] = [
            *content.get("overrides", []), *short, *own, f"model.pretrained={tiny}", "task.tokenizer=words",
        ]  # fmt: skip
        (tmp_path / "sweeps" / f"{name}.yaml").write_text(yaml.safe_dump(content))
    done = run(tmp_path, "reproduce", "--paper", timeout=600)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "PAPER.md").read_text()
    assert "10 of 10 runs are finished" in page
    for name, levels in (("paper_4_gsm_jet", 4), ("paper_5_gsm_ouro", 3), ("paper_6_gsm_ouro_sliding", 3)):
        lines = [line for line in page.split(f"## {name}\n")[1].split("##")[0].splitlines() if "| op_" in line]
        assert len([line for line in lines if "not run" not in line]) == 2 * levels, page
    assert "| n6 | op_8 | not run | 0 | - | 0.388 | - |" in page
    scores = (tmp_path / "results" / "paper_scores.csv").read_text()
    again = run(tmp_path, "reproduce", "--paper", timeout=600)
    assert again.returncode == 0 and (tmp_path / "results" / "paper_scores.csv").read_text() == scores
    assert (tmp_path / "PAPER.md").read_text() == page
