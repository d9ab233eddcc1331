import random
import re
from typing import Any

import pytest

from sleep_lightning.tasks.suites.needle import NeedleConfig, NeedleSource
from tests.tasks.suites.sources import SuiteTestCase


def codes(context: str, thing: str) -> list[tuple[str, int]]:
    """Every code of a thing, and where it ends."""
    return [(m[1], m.end()) for m in re.finditer(rf"A code of the {thing} is (\d+)\.", context)]


class NeedleTestCase(SuiteTestCase):
    source = NeedleSource
    keys: NeedleConfig

    def asked(self, question: str) -> list[str]:
        several = re.fullmatch(
            r"\nQuestion: What (?:is|are) (?:the|all) codes? of (.*?)(?:, in their order)?\?", question
        )
        assert several is not None, question
        return [name.removeprefix("the ") for name in re.split(", | and ", several[1])]

    def solve(self, context: str, question: str) -> tuple[str, int]:
        found = [one for thing in self.asked(question) for one in codes(context, thing)]
        return ", ".join(code for code, _ in found), max(end for _, end in found)

    def evidence(self, context: str, question: str) -> Any:
        return sorted((thing, code) for thing in self.asked(question) for code, _ in codes(context, thing))


class TestNeedle(NeedleTestCase):
    keys = NeedleConfig(windows=[4], window_tokens=64)
    several = frozenset({"kind"})

    def test_every_kind_asks_for_what_it_says(self) -> None:
        told = {0: (1, 1), 1: (1, 1), 2: (1, 3), 3: (2, 2)}
        for context, question in self.questions(100):
            asked = self.asked(question.text)
            assert (len(asked), question.answer.count(",") + 1) == told[question.slices["kind"]]
            others = set(re.findall(r"A code of the (\w+ \w+) is", context)) - set(asked)
            assert len(others) == {0: 0, 1: 3, 2: 0, 3: 2}[question.slices["kind"]]


class TestNeedlesAmongNeedles(NeedleTestCase):
    keys = NeedleConfig(windows=[4], window_tokens=64, kinds=["multi_key"], haystack="needles", digits=3)

    def test_all_is_needles_and_the_asked_thing_is_told_of_once(self) -> None:
        for context, question in self.questions(50):
            assert re.fullmatch(r"( A code of the \w+ \w+ is \d{3}\.)+", context)
            assert len(codes(context, self.asked(question.text)[0])) == 1


class TestNeedlesInNoise(NeedleTestCase):
    keys = NeedleConfig(windows=[3], window_tokens=32, kinds=["single"], haystack="noise")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"kinds": ["double"]}, r"task\.kinds=\['double'\]"),
        ({"kinds": []}, r"task\.kinds=\[\]"),
        ({"n_queries": 5}, r"task\.n_queries=5 and task\.n_keys=4"),
        ({"n_keys": 576}, r"task\.n_keys=576"),
        ({"digits": 0}, r"task\.digits=0"),
        ({"digits": 1, "n_values": 10}, r"task\.n_values=10"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NeedleConfig(**overrides)


def test_filler_without_tokens_is_left_out() -> None:
    """A tokenizer may have one token for whatever it does not know."""
    row = NeedleSource(NeedleConfig(kinds=["single"]), lambda text: 1).draw(random.Random(0), "train")
    assert row.context.startswith(" A code of the ") and row.context.count(".") == 1
