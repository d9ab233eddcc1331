"""Stories of people, places and things (after bAbI, arXiv:1502.05698), stretched by filler as in BABILong
(arXiv:2406.10149).

People go to places, take things, put them down and give them to whoever is there. Asked are where a person is
(``where_person``, one fact), where a thing is (``where_thing``, a chain: who has it, where did they go), how many
things somebody holds (``count``), who has a thing (``who_has``) and whether somebody is somewhere (``yes_no``).
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from sleep_lightning.tasks.suites.filler import Haystack, all_filler, draw_filler, named
from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource
from sleep_lightning.tasks.suites.stretch import Asked, Plot
from sleep_lightning.tasks.suites.task import build_suite
from sleep_lightning.tasks.text.row import Question
from sleep_lightning.tasks.text.task import RowTask

KINDS = ("where_person", "where_thing", "count", "who_has", "yes_no")
"""The slice ``kind`` counts from 0 in this order."""
PERSONS = named("Ann, Bob, Cleo, Dan, Eve, Finn, Gwen, Hugo, Iris, Jack, Kim, Leo, Mia, Ned, Olga, Paul")
PLACES = named(
    "garden, kitchen, cellar, attic, garage, library, office, bathroom, hallway, balcony, studio, pantry, stable, "
    "workshop, nursery, terrace"
)
THINGS = named(
    "apple, ball, cup, book, hat, key, map, pen, ring, shoe, torch, umbrella, violin, watch, letter, blanket"
)


@dataclass
class StoriesConfig(SuiteKeys):
    name: str = "stories"
    """Name of the task."""
    kinds: list[str] = field(default_factory=lambda: list(KINDS))
    """Kinds of question, of where_person, where_thing, count, who_has and yes_no; each row draws one."""
    n_events: int = field(default=8, metadata={"high": 2**10})
    """Sentences of the story."""
    n_persons: int = field(default=4, metadata={"high": 2**12})
    """Persons in use."""
    n_places: int = field(default=6, metadata={"high": 2**12})
    """Places in use."""
    n_things: int = field(default=4, metadata={"high": 2**12})
    """Things in use."""
    haystack: Haystack = "prose"
    """Filler: five short sentences over and over, or sentences that hardly return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.kinds or set(self.kinds) - set(KINDS):
            raise ValueError(f"task.kinds={self.kinds} must list one or more of {', '.join(KINDS)}")
        if self.n_events < 2:
            raise ValueError(f"task.n_events={self.n_events} must be at least 2: somebody comes and takes something")
        for key, all_names in (("n_persons", PERSONS), ("n_places", PLACES), ("n_things", THINGS)):
            if not 2 <= getattr(self, key) <= len(all_names):
                raise ValueError(f"task.{key}={getattr(self, key)} must be from 2 to {len(all_names)}")

    def build(self) -> RowTask:
        return build_suite(self, StoriesSource)


class _World:
    """What is so after each sentence, and which sentence made it so (its index)."""

    def __init__(self, rng: random.Random, keys: StoriesConfig) -> None:
        self.rng = rng
        self.persons, self.places = PERSONS[: keys.n_persons], PLACES[: keys.n_places]
        self.things = THINGS[: keys.n_things]
        self.place: dict[str, str] = {}  # of persons, and of things that lie about
        self.holder: dict[str, str] = {}  # of things
        self.since: dict[str, int] = {}  # last sentence about a person's place, or a thing
        self.handled: dict[str, int] = {}  # last sentence in which a person got or lost a thing
        self.events: list[str] = []

    def go_on(self) -> None:
        """One sentence more."""
        actions = (self._move,) * 5 + (self._take,) * 3 + (self._put,) * 2 + (self._give,) * 2
        while (sentence := self.rng.choice(actions)()) is None:
            pass
        self.events.append(f" {sentence}.")

    def _move(self) -> str:
        person = self.rng.choice(self.persons)
        place = self.rng.choice([p for p in self.places if p != self.place.get(person)])
        self.place[person], self.since[person] = place, len(self.events)
        return f"{person} went to the {place}"

    def _take(self) -> str | None:
        """Of things whose place nobody knows, and of those that lie where the person is."""
        person = self.rng.choice(self.persons)
        if (here := self.place.get(person)) is None:
            return None
        near = [t for t in self.things if t not in self.holder and self.place.get(t, here) == here]
        return self._hand(self.rng.choice(near), person, f"{person} took the %s there") if near else None

    def _put(self) -> str | None:
        if not self.holder:
            return None
        thing = self.rng.choice(list(self.holder))
        person = self.holder[thing]
        return self._hand(thing, None, f"{person} put down the %s")

    def _give(self) -> str | None:
        if not self.holder:
            return None
        thing = self.rng.choice(list(self.holder))
        person = self.holder[thing]
        others = [p for p in self.persons if p != person and self.place.get(p) == self.place[person]]
        if not others:
            return None
        other = self.rng.choice(others)
        return self._hand(thing, other, f"{person} gave the %s to {other}")

    def _hand(self, thing: str, to: str | None, sentence: str) -> str:
        now, before = len(self.events), self.holder.pop(thing, None)
        self.place.pop(thing, None)
        if to is not None:
            self.holder[thing] = to
        elif before is not None:
            self.place[thing] = self.place[before]
        self.since[thing] = now
        self.handled |= {person: now for person in (before, to) if person is not None}
        return sentence % thing

    def ask(self, kind: str) -> tuple[str, str, int] | None:
        """Question, answer and the sentence that it follows from last; None if there is nothing to ask."""
        ask: dict[str, Callable[[], tuple[str, str, int] | None]] = {
            "where_person": self._ask_person,
            "where_thing": self._ask_thing,
            "count": self._ask_count,
            "who_has": self._ask_holder,
            "yes_no": self._ask_whether,
        }
        return ask[kind]()

    def _ask_person(self) -> tuple[str, str, int] | None:
        if (person := self._known(self.persons)) is None:
            return None
        return f"Where is {person}?", self.place[person], self.since[person]

    def _ask_thing(self) -> tuple[str, str, int] | None:
        if (thing := self._known(self.things)) is None:
            return None
        at = self.holder.get(thing, thing)
        return f"Where is the {thing}?", self.place[at], max(self.since[thing], self.since[at])

    def _ask_count(self) -> tuple[str, str, int] | None:
        if not self.handled:
            return None
        person = self.rng.choice(sorted(self.handled))
        n = sum(holder == person for holder in self.holder.values())
        return f"How many things does {person} hold?", str(n), self.handled[person]

    def _ask_holder(self) -> tuple[str, str, int] | None:
        if (thing := self._known(self.things)) is None:
            return None
        return f"Who has the {thing}?", self.holder.get(thing, "nobody"), self.since[thing]

    def _ask_whether(self) -> tuple[str, str, int] | None:
        if (person := self._known(self.persons)) is None:
            return None
        here = self.place[person]
        yes = self.rng.random() < 0.5
        place = here if yes else self.rng.choice([p for p in self.places if p != here])
        return f"Is {person} in the {place}?", "yes" if yes else "no", self.since[person]

    def _known(self, names: Sequence[str]) -> str | None:
        told = [name for name in names if name in self.since]
        return self.rng.choice(told) if told else None


class StoriesSource(SuiteSource[StoriesConfig]):
    """Splits share no story."""

    config = StoriesConfig

    def plot(self, rng: random.Random) -> Plot:
        """See ``SuiteSource``."""
        kind, asked = rng.choice(self.keys.kinds), None
        while asked is None:  # nobody may have taken anything
            world = _World(rng, self.keys)
            while len(world.events) < self.keys.n_events:
                world.go_on()
            asked = world.ask(kind)
        text, answer, last = asked
        question = Question(f"\nQuestion: {text}", f" {answer}", {"kind": KINDS.index(kind)})
        filler = lambda: draw_filler(rng, self.keys.haystack)  # noqa: E731
        return Plot("".join(world.events), world.events, [Asked(question, last)], filler)

    @staticmethod
    def words(keys: StoriesConfig) -> Iterator[str]:
        """See ``SuiteSource``."""
        yield from all_filler(keys.haystack)
        yield from (*PERSONS[: keys.n_persons], *PLACES[: keys.n_places], *THINGS[: keys.n_things])
        yield "went to the. took the there. put down the. gave the to. Question: Answer: nobody yes no"
        yield "Where is the? How many things does hold? Who has the? Is in the?"
