import re
from typing import Any

import pytest

from sleep_lightning.tasks.suites.stories import PERSONS, PLACES, THINGS, StoriesConfig, StoriesSource
from tests.tasks.suites.sources import SuiteTestCase

pytestmark = pytest.mark.slow

Told = list[tuple[str, str, str, int]]


class TestStories(SuiteTestCase):
    source = StoriesSource
    keys = StoriesConfig(windows=[4], window_tokens=48, haystack="noise")
    several = frozenset({"kind"})

    def read(self, context: str) -> Told:
        """What is said of people: who, verb, of what or where (to whom), and where it ends."""
        forms = (
            r"(?P<who>\w+) (?P<verb>went) to the (?P<what>\w+)\.",
            r"(?P<who>\w+) (?P<verb>took) the (?P<what>\w+) there\.",
            r"(?P<who>\w+) (?P<verb>put) down the (?P<what>\w+)\.",
            r"(?P<who>\w+) (?P<verb>gave) the (?P<what>\w+ to \w+)\.",
        )
        found = [m for form in forms for m in re.finditer(form, context)]
        told = sorted(found, key=lambda m: m.start())
        return [(m["who"], m["verb"], m["what"], m.end()) for m in told]

    def solve(self, context: str, question: str) -> tuple[str, int]:
        told = self.read(context)
        ask = question.removeprefix("\nQuestion: ")
        if m := re.fullmatch(r"Where is (\w+)\?", ask):
            return self.place(told, m[1])
        if m := re.fullmatch(r"Is (\w+) in the (\w+)\?", ask):
            place, end = self.place(told, m[1])
            return "yes" if place == m[2] else "no", end
        if m := re.fullmatch(r"How many things does (\w+) hold\?", ask):
            held = [thing for thing in THINGS if self.holder(told, thing)[0] == m[1]]
            ends = [
                end for who, verb, what, end in told if verb != "went" and (m[1] == who or what.endswith(f" {m[1]}"))
            ]
            return str(len(held)), max(ends)
        if m := re.fullmatch(r"Who has the (\w+)\?", ask):
            return self.holder(told, m[1])
        m = re.fullmatch(r"Where is the (\w+)\?", ask)
        assert m is not None, ask
        holder, end = self.holder(told, m[1])
        if holder != "nobody":
            place, since = self.place(told, holder)
            return place, max(end, since)
        who = next(who for who, verb, what, at in told if at == end)
        return self.place([one for one in told if one[3] <= end], who)[0], end

    def place(self, told: Told, person: str) -> tuple[str, int]:
        return [(what, end) for who, verb, what, end in told if (who, verb) == (person, "went")][-1]

    def holder(self, told: Told, thing: str) -> tuple[str, int]:
        handed = [one for one in told if one[1] != "went" and one[2].split()[0] == thing]
        who, verb, what, end = handed[-1] if handed else ("", "put", thing, 0)
        return {"took": who, "put": "nobody", "gave": what.split()[-1]}[verb], end

    def evidence(self, context: str, question: str) -> Any:
        return [one[:3] for one in self.read(context)]

    def test_nobody_does_what_they_cannot(self) -> None:
        for context, _ in self.questions(200):
            place: dict[str, str] = {}
            for who, verb, what, _ in self.read(context):
                thing, last = what.split()[0], what.split()[-1]
                if verb == "went":
                    assert place.get(who) != what
                    place[who] = what
                elif verb == "took":
                    assert place.get(thing, place[who]) == place[who]
                    place[thing] = f"with {who}"
                else:
                    assert place[thing] == f"with {who}"
                    place[thing] = place[who] if verb == "put" else f"with {last}"
                    assert verb == "put" or place[last] == place[who]

    def test_answers_vary_within_kinds(self) -> None:
        answers: dict[int, set[str]] = {}
        for _, question in self.questions(400):
            answers.setdefault(question.slices["kind"], set()).add(question.answer.strip())
        assert answers[0] == set(PLACES[:6]) == answers[1]
        assert answers[2] >= {"0", "1", "2"}
        assert answers[3] == {*PERSONS[:4], "nobody"}
        assert answers[4] == {"yes", "no"}


class TestStoriesInProse(TestStories):
    keys = StoriesConfig(windows=[4], window_tokens=96)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"kinds": ["why"]}, r"task\.kinds"),
        ({"n_events": 1}, r"task\.n_events=1"),
        ({"n_persons": 17}, r"task\.n_persons=17 must be from 2 to 16"),
        ({"n_places": 1}, r"task\.n_places=1"),
        ({"n_things": 0}, r"task\.n_things=0"),
    ],
)
def test_impossible_tasks_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StoriesConfig(**overrides)
