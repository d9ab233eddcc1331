"""Quantities of a hierarchy and the equations between them: the language-free half of a problem."""

import random
from collections.abc import Mapping
from enum import IntEnum
from typing import Literal, NamedTuple

Mode = Literal["forward", "reverse"]


class Level(IntEnum):
    """What a quantity counts. The first two have sentences of their own; the totals follow from the hierarchy."""

    NUMBER = 0
    """How many of a kind a place has."""
    AVERAGE = 1
    """How many members each of that kind has there (depth 3)."""
    TOTAL = 2
    """All kinds of a place: the sum of the numbers the text speaks of."""
    MEMBERS = 3
    """All members of a place (depth 3): the sum of number times average."""


class Quantity(NamedTuple):
    """A place and kind by their index among the names of the setting; ``kind`` is -1 for totals."""

    level: Level
    place: int
    kind: int


class Form(NamedTuple):
    """The right-hand side of an equation: ``[constant operator] (sum or difference of the operands)``."""

    operands: int
    constant: bool
    times: bool = False
    difference: bool = False

    @property
    def edges(self) -> int:
        return self.operands + self.constant

    def draw_constant(self, rng: random.Random, largest: int) -> int | None:
        """A constant up to ``largest`` if the form has one; nothing is 1 times something."""
        return rng.randint(1 + self.times, largest) if self.constant else None


_SHARES = {
    Form(0, True): 6,
    Form(1, False): 4,
    Form(1, True): 3,
    Form(1, True, times=True): 2,
    Form(2, False): 3,
    Form(2, False, difference=True): 2,
    Form(3, False): 1,
    Form(2, True): 1,
    Form(2, True, times=True): 1,
    Form(2, True, times=True, difference=True): 1,
}
FORMS = tuple(form for form, share in _SHARES.items() for _ in range(share))
"""Forms of a sentence, each as often as it is tried, in the solution and among the distractors alike."""


class Equation(NamedTuple):
    """``quantity = [constant plus/times] (operands combined)``; without either side it is an unknown.

    Operands of MEMBERS come in pairs (number, average), which are multiplied.
    """

    quantity: Quantity
    operands: tuple[Quantity, ...] = ()
    constant: int | None = None
    times: bool = False
    difference: bool = False

    @property
    def edges(self) -> int:
        """Incoming edges: operands and the constant. An unknown has one, as the constant it stands for."""
        return max(len(self.operands) + (self.constant is not None), 1)

    def value(self, values: Mapping[Quantity, int]) -> int:
        """The left-hand side, from the values of the operands."""
        terms = [values[q] for q in self.operands]
        if self.quantity.level == Level.MEMBERS and terms:
            return sum(n * a for n, a in zip(terms[::2], terms[1::2], strict=True))
        base = terms[0] - terms[1] if self.difference else sum(terms)
        if self.constant is None:
            return base
        return self.constant * base if self.times else self.constant + base

    def slope(self, values: Mapping[Quantity, int], slopes: Mapping[Quantity, int]) -> int | None:
        """Derivative by the unknown, from those of the operands; None where the equation is not linear in it."""
        terms = [slopes[q] for q in self.operands]
        if self.quantity.level == Level.MEMBERS:
            pairs = list(zip(self.operands[::2], self.operands[1::2], strict=True))
            if any(slopes[n] and slopes[a] for n, a in pairs):
                return None
            return sum(slopes[n] * values[a] + values[n] * slopes[a] for n, a in pairs)
        base = terms[0] - terms[1] if self.difference else sum(terms)
        return base * (self.constant or 0) if self.times else base

    def larger_first(self, values: Mapping[Quantity, int]) -> "Equation":
        """The same, a difference turned so that it is not negative."""
        if not self.difference or values[self.operands[0]] >= values[self.operands[1]]:
            return self
        return self._replace(operands=self.operands[::-1])
