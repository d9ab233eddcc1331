"""Facts of the same grammar on which the answer does not depend."""

import random

from sleep_lightning.tasks.gsm_infinite.draw import pick, pick_several
from sleep_lightning.tasks.gsm_infinite.equations import FORMS, Equation, Level, Quantity
from sleep_lightning.tasks.gsm_infinite.problem import Problem

_TRIES = 60
_TOTALS = 0.08
"""How often an operand is the total of a place."""


class Distractors:
    """Draws facts about quantities that the problem leaves open, from its own quantities and from each other's.

    A fact counts only once it is accepted. No equation of the problem has a distractor among its operands, and a
    place whose total is used anywhere gets no further kinds, so no distractor feeds into the answer.
    """

    def __init__(self, rng: random.Random, problem: Problem) -> None:
        world = problem.world
        self.rng, self.world, self.values = rng, world, dict(problem.values)
        self.known = [q for q in self.values if q.level <= Level.AVERAGE]
        self.summed = {q.place for q in self.values if q.level > Level.AVERAGE}
        self.may_sum = len(world.places) // 4  # totals that distractors may use: each takes a place out of play
        self.kinds: dict[int, list[int]] = {}
        for q in self.known:
            self._count(q)
        self.levels = (Level.NUMBER, Level.AVERAGE)[: world.depth - 1]

    def draw(self) -> Equation | None:
        """A fact that could be stated next; None if hardly a quantity is left without one."""
        quantity = self._open()
        if quantity is None:
            return None
        for _ in range(3):
            form = pick(self.rng, FORMS)
            if form.operands > len(self.known):
                continue
            operands = pick_several(self.rng, self.known, form.operands)
            if operands and self.may_sum > 0 and self.rng.random() < _TOTALS:
                operands[0] = self._total(quantity.place) or operands[0]
            constant = form.draw_constant(self.rng, self.world.max_constant)
            equation = Equation(quantity, tuple(operands), constant, form.times, form.difference)
            equation = equation.larger_first(self.values)
            if equation.value(self.values) <= self.world.max_value:
                return equation
        return Equation(quantity, constant=self.rng.randint(1, self.world.max_constant))

    def accept(self, equation: Equation) -> None:
        """State it: from now on others may depend on it."""
        self.values[equation.quantity] = equation.value(self.values)
        self.known.append(equation.quantity)
        self._count(equation.quantity)
        for q in equation.operands:
            if q.level > Level.AVERAGE and q.place not in self.summed:
                self.summed.add(q.place)
                self.may_sum -= 1

    def _open(self) -> Quantity | None:
        for _ in range(_TRIES):
            place = pick(self.rng, self.world.places)
            if place not in self.summed:
                quantity = Quantity(pick(self.rng, self.levels), place, pick(self.rng, self.world.kinds))
                if quantity not in self.values:
                    return quantity
        return None

    def _count(self, quantity: Quantity) -> None:
        if quantity.level == Level.NUMBER:
            self.kinds.setdefault(quantity.place, []).append(quantity.kind)

    def _total(self, but: int) -> Quantity | None:
        """The total of a place (not of place ``but``) whose kinds, and members where they count, are all known."""
        place = pick(self.rng, list(self.kinds) or [but])
        if place == but:
            return None
        total = Quantity(Level.TOTAL, place, -1)
        numbers = [Quantity(Level.NUMBER, place, kind) for kind in self.kinds[place]]
        averages = [Quantity(Level.AVERAGE, place, kind) for kind in self.kinds[place]]
        value = sum(self.values[n] for n in numbers)
        if self.world.depth == 3 and all(a in self.values for a in averages) and self.rng.random() < 0.5:
            total = Quantity(Level.MEMBERS, place, -1)
            value = sum(self.values[n] * self.values[a] for n, a in zip(numbers, averages, strict=True))
        self.values[total] = value
        return total if value <= self.world.max_value else None
