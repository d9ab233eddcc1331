"""What agents read: transcripts of work, with questions on the last state, the first cause, attempts, and rules.

Entries with time stamps, minutes to days in all: commits as diffs and their reverts, test runs, traces of errors,
decisions and their reversals, attempts at a repair, tool output, and rules that stand at the start. Asked are a
setting's value now (``setting``), what was decided last (``decision``), whether a test passed in its last run
(``test``), the file in which a failure began, over a chain of errors (``cause``), what was tried and failed, in order
(``tried``), and a rule of the start that others wished to change (``rule``).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource
from sleep_lightning.tasks.suites.stretch import Asked, Plot
from sleep_lightning.tasks.suites.task import build_suite
from sleep_lightning.tasks.suites.work import KINDS, RULES, STAMP, Work, all_words
from sleep_lightning.tasks.text.row import Question
from sleep_lightning.tasks.text.task import RowTask

_MOST_QUESTIONS, _MOST_STEPS = 8, 8
_MINUTES_OF_A_DAY, _NINE = 24 * 60, 9 * 60
_SHORTEST = 30
"""Minutes that a transcript takes at least."""


@dataclass
class TranscriptsConfig(SuiteKeys):
    name: str = "transcripts"
    """Name of the task."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Kinds of question, of setting, decision, test, cause, tried and rule; each question draws one."""
    n_questions: int = field(default=1, metadata={"high": 2**8})
    """Questions of a row, each on another thing (two may ask for the same rule)."""
    steps: list[int] = field(default_factory=lambda: [1, 2, 3], metadata={"high": 2**8})
    """Edits, decisions, runs, errors of a chain or attempts that a question is about; each draws one of these."""
    n_rules: int = field(default=3, metadata={"high": 2**8})
    """Rules given at the start."""
    days: int = field(default=5, metadata={"high": 99})
    """The longest transcript takes this many days, the shortest half an hour (log-uniform)."""
    clock: bool = True
    """Whether entries begin with day and time."""
    haystack: Literal["noise", "work"] = "work"
    """Filler: tool output and talk, or these and as much work on other things in the same words."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"task.kinds={self.kinds} must list one or more of {', '.join(KINDS)}")
        if not 1 <= self.n_questions <= _MOST_QUESTIONS:
            raise ValueError(f"task.n_questions={self.n_questions} must be from 1 to {_MOST_QUESTIONS}")
        if not self.steps or not 1 <= min(self.steps) <= max(self.steps) <= _MOST_STEPS:
            raise ValueError(f"task.steps={self.steps} must list numbers from 1 to {_MOST_STEPS}, for example [1, 2]")
        if not ("rule" in self.kinds) <= self.n_rules <= len(RULES):
            raise ValueError(
                f"task.n_rules={self.n_rules} must be from 0 (1 if task.kinds asks for a rule) to {len(RULES)}"
            )
        if not 1 <= self.days <= 99:
            raise ValueError(f"task.days={self.days} must be from 1 to 99")

    def build(self) -> RowTask:
        return build_suite(self, TranscriptsSource)


class TranscriptsSource(SuiteSource[TranscriptsConfig]):
    """Splits share no set of histories that is asked for, whatever commits and errors are called."""

    config = TranscriptsConfig

    def plot(self, rng: random.Random) -> Plot:
        """See ``SuiteSource``."""
        c, work = self.keys, Work(rng, self.keys.n_rules)
        asked = [(rng.choice(c.kinds), rng.choice(c.steps)) for _ in range(c.n_questions)]
        threads = [work.thread(kind, steps) for kind, steps in asked]
        work.reserving = False
        order = [i for i, thread in enumerate(threads) for _ in thread.entries]
        rng.shuffle(order)
        entries = [iter(thread.entries) for thread in threads]
        events = [next(entries[i]) for i in order]
        questions = []
        for i, (thread, (kind, steps)) in enumerate(zip(threads, asked, strict=True)):
            slices = {"kind": KINDS.index(kind), "steps": steps}
            last = -1 if kind == "rule" else max(place for place, owner in enumerate(order) if owner == i)
            questions.append(Asked(Question(f"\nQuestion: {thread.ask}", f" {thread.answer}", slices), last))
        key = repr(sorted(thread.key for thread in threads))
        return Plot(key, events, questions, lambda: work.filler(c.haystack == "work"), work.head(), self._stamp(rng))

    def _stamp(self, rng: random.Random) -> "_Stamp":
        span = _SHORTEST * (self.keys.days * _MINUTES_OF_A_DAY / _SHORTEST) ** rng.random()
        return _Stamp(rng.getrandbits(62), span, self.keys.clock)

    @staticmethod
    def words(keys: TranscriptsConfig) -> Iterator[str]:
        """See ``SuiteSource``."""
        yield from all_words()
        yield from (f"{n:02d}" for n in range(60))
        yield "[day :] Question: Answer: ,"


@dataclass(frozen=True)
class _Stamp:
    """Puts rising times into entries: the first at nine in the morning, the last ``span`` minutes later at most."""

    seed: int
    span: float
    clock: bool

    def __call__(self, entries: list[str]) -> list[str]:
        rng = random.Random(self.seed)
        times = [_NINE + int(at) for at in sorted(rng.random() * self.span for _ in entries)]
        return [
            self._at(time) + entry.removeprefix(STAMP) if entry else ""
            for time, entry in zip(times, entries, strict=True)
        ]

    def _at(self, time: int) -> str:
        day, minute = divmod(time, _MINUTES_OF_A_DAY)
        return f"\n[day {day + 1} {minute // 60:02d}:{minute % 60:02d}] " if self.clock else "\n"
