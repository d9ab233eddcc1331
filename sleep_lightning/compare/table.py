"""The table of a comparison: a row per arm (and N at test), mean and spread over seeds beside the baselines."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from sleep_lightning.accuracy import with_error
from sleep_lightning.compare.data_order import first_difference
from sleep_lightning.compare.kept import REMEDY, kept
from sleep_lightning.compare.runs import Run
from sleep_lightning.compare.window_alone import window_alone
from sleep_lightning.formatting import in_flop, with_unit
from sleep_lightning.runs.damage import NUMBER, Each, check_content, reading
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.tables import Column, FittingTable, markdown_table
from sleep_lightning.training.evaluation import load_trained, score_split


@dataclass(frozen=True)
class Row:
    """One arm, tested with one N.

    Attributes:
        arm: its name.
        about: its description.
        train_passes: N at training ("1, 2, 4": sampled).
        test_passes: N at test.
        seeds: finished seeds.
        parameters: of the model.
        steps, tokens, train_flops: of one run, mean over seeds (they differ where training stops early).
        wall_s: seconds of one run, mean over seeds.
        exact_match: test exact match by seed.
        slices: exact match by difficulty, by seed.
        majority, uniform: baselines of the test answers, mean over seeds.
        answers: number of test answers, the same in all seeds.
        no_memory: exact match with the memory zeroed at every boundary, by seed; none where there is nothing to zero.
        seed_steps: steps by seed.
    """

    arm: str
    about: str
    train_passes: str
    test_passes: int
    seeds: list[int]
    parameters: int
    steps: int
    tokens: int
    train_flops: int
    wall_s: float
    exact_match: list[float]
    slices: dict[str, list[float]]
    majority: float
    uniform: float
    answers: int
    no_memory: list[float] = field(default_factory=list)
    seed_steps: list[int] = field(default_factory=list)


SCORE: dict[str, Any] = dict.fromkeys(("answers", "exact_match", "token_accuracy", "loss"), NUMBER) | {
    "baselines": dict.fromkeys(("majority_exact_match", "uniform_exact_match"), NUMBER)
}
"""What is read of the score of a slice."""


def final_scores(directory: RunDirectory, n_passes: int, steps: int) -> dict[str, Any]:
    """Scores of a finished run's final weights on the test split with this N; cached in the run directory."""
    file = directory.path / f"test_n{n_passes}.json"

    def measure() -> dict[str, Any]:
        experiment, model = load_trained(str(directory.last), [f"sleep.n_passes={n_passes}"])
        scores = {name: asdict(score) for name, score in score_split(experiment, model, "test").items()}
        parameters = sum(p.numel() for p in model.parameters())
        return {"parameters": parameters, "scores": scores}

    content = kept(file, steps, {"parameters": int, "scores": {"all": SCORE}}, measure)
    check_content(file, content["scores"], Each(SCORE), REMEDY)
    return content


def build_rows(runs: Sequence[Run], test_passes: Sequence[int]) -> list[Row]:
    """Rows of the finished runs in the order of their arms, each tested with its own N and with ``test_passes``."""
    arms = {run.arm.name: run.arm for run in runs}
    rows = []
    for name in arms:
        finished = [run for run in runs if run.arm.name == name and run.summary is not None]
        if finished:
            own = finished[0].experiment.sleep.n_passes
            others = test_passes if finished[0].experiment.stack.writers() else ()
            with reading(finished[0].directory.summary, "remove it and rerun the command"):
                rows += [_row(finished, n) for n in dict.fromkeys([own, *others])]
    return rows


def _row(runs: list[Run], n_passes: int) -> Row:
    first, summaries = runs[0], [run.summary or {} for run in runs]
    pairs = zip(runs, summaries, strict=True)
    tested = [final_scores(run.directory, n_passes, summary["steps"]) for run, summary in pairs]
    everything = [t["scores"]["all"] for t in tested]
    sampled = first.experiment.training.sampled_passes
    remembers = bool(first.experiment.stack.writers())
    return Row(
        arm=first.arm.name,
        about=first.arm.about,
        train_passes=", ".join(map(str, sampled or [first.experiment.sleep.n_passes])),
        test_passes=n_passes,
        seeds=[run.seed for run in runs],
        parameters=tested[0]["parameters"],
        **{key: round(mean(s[key] for s in summaries)) for key in ("steps", "tokens", "train_flops")},
        wall_s=mean(s["wall_s"] for s in summaries),
        exact_match=[score["exact_match"] for score in everything],
        slices={
            name: [t["scores"][name]["exact_match"] for t in tested] for name in tested[0]["scores"] if name != "all"
        },
        majority=mean(score["baselines"]["majority_exact_match"] for score in everything),
        uniform=mean(score["baselines"]["uniform_exact_match"] for score in everything),
        answers=everything[0]["answers"],
        no_memory=[
            window_alone(run.directory, s["steps"]) for run, s in zip(runs, summaries, strict=True) if remembers
        ],
        seed_steps=[s["steps"] for s in summaries],
    )


def with_spread(values: Sequence[float], answers: float | None = None) -> str:
    """Mean and standard deviation over seeds: ``0.982 ± 0.011``; for one seed, the standard error by its answers."""
    return f"{mean(values):.3f} ± {stdev(values):.3f}" if len(values) > 1 else with_error(values[0], answers)


def cells(row: Row, slices: Sequence[str], no_memory: bool) -> dict[str, str]:
    """A row of the printed table, by column; with ``no_memory``, if there is such a column."""
    passes = row.train_passes + ("" if row.train_passes == str(row.test_passes) else f" → {row.test_passes}")
    numbers = {
        "arm": row.arm,
        "N": passes,
        "parameters": with_unit(row.parameters),
        "seeds": str(len(row.seeds)),
        "steps": _steps(row),
        "tokens": with_unit(row.tokens),
        "training": in_flop(row.train_flops),
        "seconds": f"{row.wall_s:.0f}",
        "exact match": with_spread(row.exact_match, row.answers),
    }
    numbers |= {name.replace("_", " "): with_spread(row.slices[name]) for name in slices}
    if no_memory:
        numbers["no memory"] = f"{mean(row.no_memory):.3f}" if row.no_memory else ""
    return numbers | {"majority": f"{row.majority:.3f}", "uniform": f"{row.uniform:.3f}"}


def _steps(row: Row) -> str:
    """Their mean, with the least and most where seeds differ."""
    differ = len(set(row.seed_steps)) > 1
    return f"{row.steps} ({min(row.seed_steps)} to {max(row.seed_steps)})" if differ else str(row.steps)


def kinds_of_spread(rows: Sequence[Row]) -> str:
    """What stands behind ± in the table."""
    one = "one seed ± standard error of its answers"
    several = [len(row.seeds) > 1 for row in rows]
    return "mean ± sd over seeds" + (f"; {one}" if not all(several) else "") if any(several) else one


def unequal_seeds(rows: Sequence[Row]) -> str | None:
    """Which arms have other seeds than the first, if any: their means are not of the same runs."""
    others = {row.arm: row for row in rows if row.seeds != rows[0].seeds}.values()
    if not others:
        return None
    said = ", ".join(f"{row.arm} has {' '.join(map(str, row.seeds))}" for row in [rows[0], *others])
    return f"not the same in all arms: {said}; rerun the command for those that failed, or compare seed by seed"


RANKS = {"seeds": 7, "seconds": 6, "tokens": 5, "steps": 4, "parameters": 3, "uniform": 2, "training": 1}
"""Columns that a narrow terminal leaves out, the highest first, behind the slices."""


def draw_table(rows: Sequence[Row], title: str, elsewhere: str = "") -> FittingTable:
    """The rows as a table for the terminal; ``elsewhere`` says where the columns that do not fit are."""
    lines = _lines(rows)
    slices = {name.replace("_", " ") for name in _slices(rows)}
    ranks = RANKS | dict.fromkeys(slices, max(RANKS.values()) + 1)
    columns = [Column(name, ranks.get(name, 0), label=name == "arm") for name in lines[0]]
    return FittingTable(title, columns, [list(line.values()) for line in lines], elsewhere=elsewhere)


def as_markdown(rows: Sequence[Row]) -> str:
    """The rows as a Markdown table."""
    lines = _lines(rows)
    return markdown_table(list(lines[0]), map(dict.values, lines), numbers=True) + "\n"


def _lines(rows: Sequence[Row]) -> list[dict[str, str]]:
    return [cells(row, _slices(rows), any(other.no_memory for other in rows)) for row in rows]


def _slices(rows: Sequence[Row]) -> list[str]:
    """Slices that all rows share."""
    return [name for name in rows[0].slices if all(name in row.slices for row in rows)]


def check_data_order(runs: Sequence[Run]) -> str:
    """Whether all arms of a seed trained on the same data in the same order: a sentence for the results.

    Arms that change the task (to less of a text, say) are named and left out.
    """
    others = list(dict.fromkeys(run.arm.name for run in runs if _changes_task(run)))
    runs, compared = [run for run in runs if not _changes_task(run)], 0
    own = f"; {', '.join(others)}: a task of their own" if others else ""
    for seed in sorted({run.seed for run in runs}):
        finished = {run.arm.name: run.summary for run in runs if run.seed == seed and run.summary is not None}
        hashes, difference = first_difference(
            {arm: summary.get("data_digests", {}) for arm, summary in finished.items()}
        )
        if difference:
            return f"DIFFERS: {difference} (seed {seed}){own}"
        compared += hashes
    if compared:
        return f"the same in all arms of a seed ({compared} hashes compared){own}"
    arms = len({run.arm.name for run in runs})
    few = "one arm" if arms <= 1 else "no two arms of a seed validated at the same step"
    return f"not compared: {few}{own}"


def _changes_task(run: Run) -> bool:
    return any(change.startswith("task.") for change in run.arm.changes)


def write_results(
    rows: Sequence[Row], folder: Path, data_order: str, page: str, serving: list[dict[str, object]]
) -> list[Path]:
    """``comparison.json`` (every seed's figures) and ``comparison.md``, both with the serving page."""
    content = {"data_order": data_order, "rows": [asdict(row) for row in rows], "serving": serving}
    write_json(folder / "comparison.json", content)
    write_text(folder / "comparison.md", f"{as_markdown(rows)}\n{page}")
    return [folder / "comparison.json", folder / "comparison.md"]
