import re
from typing import Any

import pytest

from sleep_lightning.tasks.suites.variable_tracking import NAMES, VariableTrackingConfig, VariableTrackingSource
from tests.tasks.suites.sources import SuiteTestCase


class TestVariableTracking(SuiteTestCase):
    source = VariableTrackingSource
    keys = VariableTrackingConfig(windows=[4], window_tokens=48)
    several = frozenset({"ask", "hops"})

    def read(self, context: str) -> dict[str, tuple[str, int]]:
        """Value of every name in order, and where it got it."""
        values: dict[str, tuple[str, int]] = {}
        for m in re.finditer(r"Let (\w+) be (\w+)\.", context):
            assert m[1] not in values
            values[m[1]] = values.get(m[2], (m[2], 0))[0], m.end()
        return values

    def solve(self, context: str, question: str) -> tuple[str, int]:
        values = self.read(context)
        if (asked := re.fullmatch(r"\nQuestion: What is (\w+)\?", question)) is not None:
            return values[asked[1]]
        asked = re.fullmatch(r"\nQuestion: Which names are (\d+), in their order\?", question)
        assert asked is not None, question
        names = [(name, end) for name, (value, end) in values.items() if value == asked[1]]
        return ", ".join(name for name, _ in names), max(end for _, end in names)

    def evidence(self, context: str, question: str) -> Any:
        values, asked = self.read(context), re.findall(r"\w+", question)
        value = next(value for word in asked for value in [word, values.get(word, ("", 0))[0]] if value.isdigit())
        return value, [name for name, (own, _) in values.items() if own == value]

    def test_hops_are_the_links_behind_the_first(self) -> None:
        for context, question in self.questions(100):
            value, names = self.evidence(context, question.text)
            assert len(names) == question.slices["hops"] + 1
            assert len({own for own, _ in self.read(context).values()}) == self.keys.n_chains
            assert question.answer == (f" {value}" if question.slices["ask"] else f" {', '.join(names)}")


def test_names_differ() -> None:
    assert len(set(NAMES)) == len(NAMES) == 512


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"hops": []}, r"task\.hops=\[\]"),
        ({"n_chains": 0}, r"task\.n_chains=0"),
        ({"n_names": 9}, r"task\.n_names=9 must be from 10"),
        ({"n_names": 513}, r"task\.n_names=513"),
        ({"asks": ["all"]}, r"task\.asks"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VariableTrackingConfig(**overrides)
