import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from sleep_lightning.tasks.suites.transcripts import TranscriptsConfig, TranscriptsSource
from sleep_lightning.tasks.suites.work import COMMITS
from tests.tasks.suites.sources import SuiteTestCase

pytestmark = pytest.mark.slow

Line = tuple[str, int]
"""What was said last, and the character behind it."""


@dataclass
class Reader:
    """What a transcript says, read entry by entry."""

    values: dict[tuple[str, str], list[Line]] = field(default_factory=lambda: defaultdict(list))
    commits: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    decisions: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    first_error: dict[str, str] = field(default_factory=dict)
    causes: dict[str, Line] = field(default_factory=dict)
    tried: dict[str, list[Line]] = field(default_factory=lambda: defaultdict(list))
    times: list[int] = field(default_factory=list)
    rules: str = ""

    def read(self, context: str) -> "Reader":
        heads = list(re.finditer(r"\n\[day (\d+) (\d\d):(\d\d)\] ", context))
        assert heads[0].start() == 0
        for head, end in zip(heads, [*(h.start() for h in heads[1:]), len(context)], strict=False):
            day, hour, minute = map(int, head.groups())
            assert hour < 24 and minute < 60
            self.times.append((day * 24 + hour) * 60 + minute)
            self.entry(context[head.end() : end], end)
        return self

    def entry(self, text: str, end: int) -> None:
        if m := re.fullmatch(r"user: rules for the whole job\. (.*)", text):
            assert not self.rules
            self.rules = m[1]
        elif m := re.fullmatch(r"commit (\w+) changes (\S+):\n- (\w+) = (\d+)\n\+ (\w+) = (\d+)", text):
            commit, file, key, old, same, new = m.groups()
            assert key == same and old != new
            self.commits[commit] = file, key, old
            self.values[file, key].append((new, end))
        elif m := re.fullmatch(r"\$ git revert (\w+)\nreverted\.", text):
            if m[1] in self.commits:
                file, key, old = self.commits[m[1]]
                self.values[file, key].append((old, end))
        elif m := re.fullmatch(r"decision: (\w+) for the (.*)\.", text):
            self.decisions[m[2]].append((m[1], end))
        elif m := re.fullmatch(r"decision reversed: (\w+), not (\w+), for the (.*)\.", text):
            self.decisions[m[3]].append((m[1], end))
        elif m := re.fullmatch(
            r"(?:try for \w+: (.*)\.\n)?\$ pytest (\w+)\n(\w+) (passed|failed)(?:: error (\d+))?\.", text
        ):
            remedy, test, same, outcome, error = m.groups()
            assert test == same
            self.runs[test].append((outcome, end))
            if error is not None:
                self.first_error[test] = error
            if remedy is not None:
                self.tried[test].append((remedy if outcome == "failed" else "", end))
        elif m := re.fullmatch(r"\$ trace (\d+)\nerror (\d+) comes from (.*)\.", text):
            assert m[1] == m[2]
            self.causes[m[1]] = m[3], end
        else:
            assert re.match(r"\$ (git status|df|ls|grep)|info: |[A-Z]\w+: ", text), text


class TranscriptsTestCase(SuiteTestCase):
    source = TranscriptsSource
    keys: TranscriptsConfig

    def solve(self, context: str, question: str) -> tuple[str, int]:
        seen, ask = Reader().read(context), question.removeprefix("\nQuestion: ")
        if m := re.fullmatch(r"What is (\w+) in (\S+) now\?", ask):
            return seen.values[m[2], m[1]][-1]
        if m := re.fullmatch(r"What was decided last for the (.*)\?", ask):
            return seen.decisions[m[1]][-1]
        if m := re.fullmatch(r"Did (\w+) pass in its last run\?", ask):
            outcome, end = seen.runs[m[1]][-1]
            return "yes" if outcome == "passed" else "no", end
        if m := re.fullmatch(r"Which file holds the first cause of the failure of (\w+)\?", ask):
            cause, last = f"error {seen.first_error[m[1]]}", 0
            while cause.startswith("error "):
                cause, end = seen.causes[cause.removeprefix("error ")]
                last = max(last, end)
            return seen.commits[cause.removeprefix("commit ")][0], last
        if m := re.fullmatch(r"What was tried for (\w+) and failed, in order\?", ask):
            attempts = seen.tried[m[1]]
            return ", ".join(remedy for remedy, _ in attempts if remedy), attempts[-1][1]
        end = context.index("\n", 1) if "\n" in context[1:] else len(context)
        told = {
            "What do commit messages begin with?": r"Commit messages begin with (\w+)\.",
            "Which folder does nobody edit?": r"Nobody edits the folder (\w+)\.",
            "Who is asked before a release?": r"Ask (\w+) before a release\.",
            "Which seed do tests run with?": r"Tests run with seed (\w+)\.",
            "What are branches named after?": r"Branches are named after (\w+)\.",
            "Which language are comments in?": r"Write comments in (\w+)\.",
        }
        (answer,) = re.findall(told[ask], seen.rules)
        return answer, end

    def evidence(self, context: str, question: str) -> Any:
        """The history that a question is about, without the names of commits and errors."""
        seen, ask = Reader().read(context), question.removeprefix("\nQuestion: ")
        if m := re.fullmatch(r"What is (\w+) in (\S+) now\?", ask):
            first = next(old for file, key, old in seen.commits.values() if (file, key) == (m[2], m[1]))
            return m[0], first, [value for value, _ in seen.values[m[2], m[1]]]
        if m := re.fullmatch(r"What was decided last for the (.*)\?", ask):
            return m[0], [chosen for chosen, _ in seen.decisions[m[1]]]
        if m := re.fullmatch(r"Did (\w+) pass in its last run\?", ask):
            return m[0], [outcome for outcome, _ in seen.runs[m[1]]]
        if m := re.fullmatch(r"What was tried for (\w+) and failed, in order\?", ask):
            return m[0], [remedy for remedy, _ in seen.tried[m[1]] if remedy]
        if "first cause" in ask:
            error, n = seen.first_error[ask.removesuffix("?").split()[-1]], 1
            while (cause := seen.causes[error][0]).startswith("error"):
                error, n = cause.split()[1], n + 1
            return ask, self.solve(context, question)[0], n
        return seen.rules


class TestTranscripts(TranscriptsTestCase):
    keys = TranscriptsConfig(windows=[3], window_tokens=192)
    several = frozenset({"kind", "steps"})

    def test_every_kind_is_asked(self) -> None:
        assert {question.slices["kind"] for _, question in self.questions(100)} == set(range(6))

    def test_steps_are_those_of_the_history(self) -> None:
        for context, question in self.questions(200):
            kind, steps, seen = question.slices["kind"], question.slices["steps"], Reader().read(context)
            said = self.evidence(context, question.text)
            if kind == 5:
                wishes = re.findall(r"new rule\? (.*)\nuser: no, the old one holds", context)
                assert len(wishes) == steps - 1 and not set(wishes) & set(re.findall(r"[^.]+\.", seen.rules))
            else:
                assert (said[2] if kind == 3 else len(said[-1])) == steps

    def test_some_settings_end_with_a_revert_that_does_not_say_the_value(self) -> None:
        settings = [(context, q.text) for context, q in self.questions(300) if q.slices["kind"] == 0]
        ends = [context[: self.solve(context, text)[1]].rpartition("\n")[2] for context, text in settings]
        assert 5 < ends.count("reverted.") < len(ends) / 2

    def test_time_goes_on_for_minutes_to_days(self) -> None:
        spans = []
        for row in self.rows(100):
            times = Reader().read(row.context).times
            assert times == sorted(times) and times[0] >= (24 + 9) * 60
            spans.append(times[-1] - times[0])
        assert min(spans) < 60 and 3 * 24 * 60 < max(spans) <= 5 * 24 * 60


class TestLongTranscripts(TranscriptsTestCase):
    keys = TranscriptsConfig(
        windows=[6], window_tokens=128, question_tokens=112, n_questions=4, steps=[1, 4], n_rules=6, days=90
    )
    several = frozenset({"kind", "steps"})

    def test_questions_of_a_row_are_about_different_things(self) -> None:
        for row in self.rows(100):
            asked = [q.text for q in row.questions if q.slices["kind"] < 5]
            assert len(row.questions) == 4 and len(asked) == len(set(asked))


class TestQuietTranscripts(TranscriptsTestCase):
    keys = TranscriptsConfig(windows=[4], window_tokens=96, kinds=["decision"], steps=[2], n_rules=0, haystack="noise")

    def test_nothing_else_is_decided(self) -> None:
        for row in self.rows(50):
            assert len(re.findall("decision", row.context)) == 2


def test_without_a_clock_entries_are_the_same_but_for_the_time() -> None:
    keys = TranscriptsConfig(windows=[2], window_tokens=64, kinds=["test"], haystack="noise", clock=False, n_rules=1)
    case = TestQuietTranscripts()
    for row in case.rows(30, keys=keys):
        assert "[" not in row.context
        (question,) = row.questions
        test = question.text.split()[2]
        outcomes = re.findall(rf"\n\$ pytest {test}\n{test} (passed|failed)\.", row.context)
        assert question.answer == (" yes" if outcomes[-1] == "passed" else " no")


def test_names_of_commits_differ() -> None:
    assert len(set(COMMITS)) == len(COMMITS) > 8 * 8 * 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"kinds": ["why"]}, r"task\.kinds"),
        ({"n_questions": 9}, r"task\.n_questions=9 must be from 1 to 8"),
        ({"steps": [9]}, r"task\.steps=\[9\]"),
        ({"steps": []}, r"task\.steps=\[\]"),
        ({"n_rules": 0}, r"task\.n_rules=0 must be from 0 \(1 if"),
        ({"n_rules": 7}, r"task\.n_rules=7"),
        ({"days": 0}, r"task\.days=0"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TranscriptsConfig(), **overrides)
