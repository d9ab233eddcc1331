"""Variable tracking (the recipe of RULER, arXiv:2404.06654): chains of names, each given the value of the one before.

``Let BADO be 47. ... Let KITU be BADO. ...``, several chains at once, all links in order. Asked are all names with a
value, in the order in which they got it (``names``, RULER's question), or the value of a chain's last name (``value``).
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product

from sleep_lightning.tasks.suites.filler import Haystack, all_filler, draw_filler
from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource
from sleep_lightning.tasks.suites.stretch import Asked, Plot
from sleep_lightning.tasks.suites.task import build_suite
from sleep_lightning.tasks.text.row import Question
from sleep_lightning.tasks.text.task import RowTask

ASKS = ("names", "value")
"""The slice ``ask`` counts from 0 in this order."""
_SYLLABLES = [a + b for a, b in product("BDFGKLMNPRSTVZ", "AEIOU")]
_ALL = [a + b for a, b in product(_SYLLABLES, _SYLLABLES)]
NAMES = tuple(_ALL[i * 1913 % len(_ALL)] for i in range(512))
"""In an order whose every prefix is mixed."""


@dataclass
class VariableTrackingConfig(SuiteKeys):
    name: str = "variable_tracking"
    """Name of the task."""
    hops: list[int] = field(default_factory=lambda: [1, 2, 4], metadata={"high": 2**12})
    """Links of a chain behind the first name; each row draws one of these numbers."""
    n_chains: int = field(default=2, metadata={"high": 2**12})
    """Chains of a row, one of which is asked for."""
    n_names: int = field(default=64, metadata={"high": 2**12})
    """Names in use."""
    asks: list[str] = field(default_factory=lambda: list(ASKS))
    """Kinds of question, of names and value; each row draws one."""
    haystack: Haystack = "noise"
    """Filler: five short sentences over and over, or sentences that hardly return."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.hops or min(self.hops) < 0 or len(set(self.hops)) < len(self.hops):
            raise ValueError(f"task.hops={self.hops} must list different numbers >= 0, for example [1, 2, 4]")
        if not 1 <= self.n_chains <= 90:
            raise ValueError(f"task.n_chains={self.n_chains} must be from 1 to 90, a value each")
        if not self.n_chains * (max(self.hops) + 1) <= self.n_names <= len(NAMES):
            raise ValueError(
                f"task.n_names={self.n_names} must be from {self.n_chains * (max(self.hops) + 1)}, a name for every "
                f"link of task.n_chains={self.n_chains} chains, to {len(NAMES)}"
            )
        if not self.asks or set(self.asks) - set(ASKS):
            raise ValueError(f"task.asks={self.asks} must list one or both of {', '.join(ASKS)}")

    def build(self) -> RowTask:
        return build_suite(self, VariableTrackingSource)


class VariableTrackingSource(SuiteSource[VariableTrackingConfig]):
    """Splits share no chain that is asked for: the same names, in order, with the same value."""

    config = VariableTrackingConfig

    def plot(self, rng: random.Random) -> Plot:
        """See ``SuiteSource``."""
        c, ask, hops = self.keys, rng.choice(self.keys.asks), rng.choice(self.keys.hops)
        values = [str(value) for value in rng.sample(range(10, 100), c.n_chains)]
        names = iter(rng.sample(NAMES[: c.n_names], c.n_chains * (hops + 1)))
        chains = [[next(names) for _ in range(hops + 1)] for _ in values]
        order = [chain for chain in range(c.n_chains) for _ in range(hops + 1)]
        rng.shuffle(order)
        events, told = [], [0] * c.n_chains
        for chain in order:
            link = told[chain]
            told[chain] += 1
            events.append(_link(chains[chain][link], values[chain] if link == 0 else chains[chain][link - 1]))
        text = f"Which names are {values[0]}, in their order?" if ask == "names" else f"What is {chains[0][-1]}?"
        answer = ", ".join(chains[0]) if ask == "names" else values[0]
        question = Question(f"\nQuestion: {text}", f" {answer}", {"ask": ASKS.index(ask), "hops": hops})
        last = max(i for i, chain in enumerate(order) if chain == 0)
        key = repr((values[0], chains[0]))
        return Plot(key, events, [Asked(question, last)], lambda: draw_filler(rng, c.haystack))

    @staticmethod
    def words(keys: VariableTrackingConfig) -> Iterator[str]:
        """See ``SuiteSource``."""
        yield from all_filler(keys.haystack)
        yield from NAMES[: keys.n_names]
        yield f"{_link('', '')} Which names are, in their order? What is? Question: Answer:"


def _link(name: str, value: str) -> str:
    return f" Let {name} be {value}."
