"""The serving page of a comparison: accuracy of every arm against what an answer costs, and what it keeps for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sleep_lightning.compare.asking import Ask, answer_seconds, asker
from sleep_lightning.compare.kept import REMEDY
from sleep_lightning.compare.runs import Run
from sleep_lightning.compare.table import Row, with_spread
from sleep_lightning.config import Experiment
from sleep_lightning.cost.answering import Asked, asked_of, experiment_answer_cost
from sleep_lightning.formatting import in_bytes, in_flop, with_unit
from sleep_lightning.runs.damage import NUMBER, read_json
from sleep_lightning.runs.files import write_json
from sleep_lightning.tables import Column, FittingTable, markdown_table
from sleep_lightning.training.runtime.environment import check_device

MOST_TIMED, MOST_PARAMETERS = 2e9, 3e7
"""FLOPs of an answer, and parameters of a model, up to which it is timed: seconds for all arms."""


@dataclass(frozen=True)
class Served:
    """An arm, tested with one N, as a session would serve it (``cost/answering.py``).

    Attributes:
        arm, train_passes, test_passes, exact_match, majority, uniform, answers: of its row.
        context: tokens read before the question; 0 where a search for it comes first.
        question: tokens up to the one that the answer's first token follows.
        answer_flops: of an answer.
        answer_ms: the shortest of some, with random weights on this machine; None: too large to time.
        held_bytes: of a session.
        reading_flops: of the context, in one pass.
        sleep_flops: of passes 2 to N over it.
        questions: Q*, from which sleep is cheaper than the same passes on every answer; None without sleep.
    """

    arm: str
    train_passes: str
    test_passes: int
    exact_match: list[float]
    majority: float
    uniform: float
    answers: int
    context: int
    question: int
    answer_flops: int
    answer_ms: float | None
    held_bytes: int
    reading_flops: int
    sleep_flops: int
    questions: float | None

    @property
    def passes(self) -> str:
        """N, at training and at test if it differs."""
        return self.train_passes + ("" if self.train_passes == str(self.test_passes) else f" → {self.test_passes}")


def serve(rows: Sequence[Row], runs: Sequence[Run]) -> list[Served]:
    """What answers cost in each row, in their order; times are kept in the directory of the arm's first run."""
    found, timed = [], list[_Timed]()
    for row in rows:
        run = next(run for run in runs if run.arm.name == row.arm and run.summary is not None)
        sleep = replace(run.experiment.sleep, n_passes=row.test_passes, grad_passes=None)
        experiment = replace(run.experiment, sleep=sleep)
        asked = asked_of(experiment)
        cost = experiment_answer_cost(experiment, asked)
        file = run.directory.path / f"answer_n{row.test_passes}.json"
        timed.append(_Timed(experiment, asked, cost.answer_flops, row.parameters, file))
        found.append(
            Served(
                arm=row.arm,
                train_passes=row.train_passes,
                test_passes=row.test_passes,
                exact_match=row.exact_match,
                majority=row.majority,
                uniform=row.uniform,
                answers=row.answers,
                context=asked.context,
                question=asked.question,
                answer_flops=cost.answer_flops,
                answer_ms=None,
                held_bytes=cost.held_bytes,
                reading_flops=cost.reading_flops,
                sleep_flops=cost.sleep_flops,
                questions=cost.questions,
            )
        )
    missing = [one for one in timed if one.small and one.kept() is None]
    for one, seconds in zip(missing, answer_seconds([one.ask() for one in missing]), strict=True):
        write_json(one.file, {"answer_flops": one.flops, "answer_ms": 1e3 * seconds})
    return [replace(served, answer_ms=one.kept()) for served, one in zip(found, timed, strict=True)]


class _Timed(NamedTuple):
    """An arm whose answer may be timed, and the file that keeps the time."""

    experiment: Experiment
    asked: Asked
    flops: int
    parameters: int
    file: Path

    @property
    def small(self) -> bool:
        return self.flops <= MOST_TIMED and self.parameters <= MOST_PARAMETERS

    def kept(self) -> float | None:
        """Milliseconds, if they were measured for as many FLOPs."""
        like = {"answer_flops": int, "answer_ms": NUMBER}
        content = read_json(self.file, like, REMEDY) if self.file.exists() else {}
        return float(content["answer_ms"]) if content.get("answer_flops") == self.flops else None

    def ask(self) -> Ask:
        e = self.experiment
        return asker(e.build_model().to(check_device(e)).eval(), e.sleep, self.asked)


class _Cells(NamedTuple):
    arm: str
    N: str
    exact_match: str
    answer: str
    ms: str
    held: str
    reading: str
    sleep: str
    Q: str


HEADER = _Cells("arm", "N", "exact match", "answer", "ms", "held", "reading", "sleep", "Q*")
RANKS = {"reading": 2, "ms": 1}


def _cells(served: Served) -> _Cells:
    ms, questions = served.answer_ms, served.questions
    return _Cells(
        served.arm,
        served.passes,
        with_spread(served.exact_match, served.answers),
        in_flop(served.answer_flops),
        "" if ms is None else f"{ms:.3g}",
        in_bytes(served.held_bytes),
        in_flop(served.reading_flops),
        in_flop(served.sleep_flops) if served.sleep_flops else "",
        "" if questions is None else with_unit(questions),
    )


def serving_table(page: Sequence[Served], elsewhere: str = "") -> FittingTable:
    """The page as a table for the terminal; ``elsewhere`` says where the columns that do not fit are."""
    columns = [Column(name, RANKS.get(name, 0), label=name == "arm") for name in HEADER]
    return FittingTable(_title(page), columns, [_cells(served) for served in page], elsewhere=elsewhere)


def serving_markdown(page: Sequence[Served]) -> str:
    """The page as a Markdown table under its title."""
    return f"{_title(page)}\n\n{markdown_table(HEADER, map(_cells, page), numbers=True)}\n"


def _title(page: Sequence[Served]) -> str:
    most = max(page, key=lambda served: served.context)
    tokens = f"{most.question} token{'s' * (most.question != 1)}"
    return f"what an answer costs: a question of {tokens} behind {most.context}, to its first token"


def as_json(page: Sequence[Served]) -> list[dict[str, object]]:
    """Every figure."""
    return [asdict(served) for served in page]


def metrics(served: Served) -> dict[str, float]:
    """The figures of an arm that are logged, those that there are."""
    names = ("answer_flops", "answer_ms", "held_bytes", "reading_flops", "sleep_flops", "questions")
    return {name: float(value) for name in names if (value := getattr(served, name)) is not None}
