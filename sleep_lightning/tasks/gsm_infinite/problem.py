"""Sample a question and the facts that its answer follows from, with an exact number of operations.

The dependency DAG is drawn from the query down: a quantity that still lacks its equation gets one, whose operands are
new quantities or others that still lack theirs, so that no cycle can close. The budget of edges is spent exactly.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.gsm_infinite.draw import pick
from sleep_lightning.tasks.gsm_infinite.equations import FORMS, Equation, Form, Level, Mode, Quantity
from sleep_lightning.tasks.task import Split

_CHEAPEST = {Level.NUMBER: 1, Level.AVERAGE: 1, Level.TOTAL: 2, Level.MEMBERS: 4}
"""Fewest edges that define a quantity and all below it."""
_LEVELS = (Level.NUMBER,) * 5 + (Level.AVERAGE,) * 3 + (Level.TOTAL,) * 2 + (Level.MEMBERS,) * 2
_TRIES = 30


@dataclass(frozen=True)
class World:
    """What problems are drawn from.

    Attributes:
        setting: name of the setting.
        places: indices of the places in use.
        kinds: indices of the kinds in use.
        depth: 2 counts kinds of places; 3 also members of kinds.
        max_constant: constants are 1 to this.
        max_value: no quantity is larger.
    """

    setting: str
    places: Sequence[int]
    kinds: Sequence[int]
    depth: int
    max_constant: int
    max_value: int


@dataclass(frozen=True)
class Problem:
    """A query, its answer and the facts it follows from.

    ``op`` is the number of incoming edges of the dependency DAG, summed over the quantities of the solution: one
    for every quantity and every constant on the right-hand side of an equation; a total has an edge from each of its
    summands (from each factor, for members), and an unknown one edge, as the constant it stands for. "The number is 3"
    alone is op = 1. In reverse mode the value that is given for the total is not an operation.

    Attributes:
        world: names and limits it was drawn from.
        mode: ``forward`` computes the query; ``reverse`` gives a total and asks for the one unknown below it.
        query: the quantity asked for.
        answer: its value.
        equations: the dependency DAG, every quantity before its operands.
        facts: what the text states: the equations that have sentences, the unknown and the total in reverse mode.
        values: of all quantities.
    """

    world: World
    mode: Mode
    query: Quantity
    answer: int
    equations: tuple[Equation, ...]
    facts: tuple[Equation, ...]
    values: dict[Quantity, int]

    @property
    def op(self) -> int:
        return sum(e.edges for e in self.equations)

    def split(self) -> Split:
        """1/16 of all problems each to validation and test, by a hash of all that the answer follows from.

        The order of sentences and summands, and the distractors, do not change it.
        """
        facts = sorted(e if e.difference else e._replace(operands=tuple(sorted(e.operands))) for e in self.facts)
        return split_of(repr((self.world.setting, self.query, facts)))


def sample_problem(rng: random.Random, world: World, op: int, mode: Mode) -> Problem | None:
    """One attempt at a problem of exactly ``op`` operations; None if a value is out of range or names ran out."""
    equations = _Expansion(rng, world).run(op, mode)
    if equations is None:
        return None
    values: dict[Quantity, int] = {}
    for i in range(len(equations) - 1, -1, -1):
        equations[i] = e = equations[i].larger_first(values)
        values[e.quantity] = value = e.value(values)
        if not 0 <= value <= world.max_value:
            return None
    root = equations[0].quantity
    facts = [e for e in equations if e.quantity.level <= Level.AVERAGE]
    if mode == "forward":
        return Problem(world, mode, root, values[root], tuple(equations), tuple(facts), values)
    unknown = _find_unknown(rng, equations, values)
    if unknown is None:
        return None
    blank = Equation(unknown)
    equations = [blank if e.quantity == unknown else e for e in equations]
    facts = [blank if e.quantity == unknown else e for e in facts]
    facts.append(Equation(root, constant=values[root]))
    return Problem(world, mode, unknown, values[unknown], tuple(equations), tuple(facts), values)


def _find_unknown(rng: random.Random, equations: list[Equation], values: dict[Quantity, int]) -> Quantity | None:
    """A constant on which the total depends linearly, so that the total determines it."""
    leaves = [e.quantity for e in equations if not e.operands]
    rng.shuffle(leaves)
    for leaf in leaves:
        slopes: dict[Quantity, int] = {}
        for e in reversed(equations):
            slope = 1 if e.quantity == leaf else e.slope(values, slopes)
            if slope is None:
                break
            slopes[e.quantity] = slope
        else:
            if slopes[equations[0].quantity]:
                return leaf
    return None


def _clash(a: Quantity, b: Quantity) -> bool:
    """Whether one is a total of the place the other is counted in."""
    return a.place == b.place and max(a.level, b.level) > Level.AVERAGE


class _Expansion:
    """One walk from the query down to constants."""

    def __init__(self, rng: random.Random, world: World) -> None:
        self.rng, self.world = rng, world
        self.used: set[Quantity] = set()
        self.touched: set[int] = set()
        self.summed: set[int] = set()  # places with a total: what they hold is settled by it alone
        self.pending: list[Quantity] = []

    def run(self, op: int, mode: Mode) -> list[Equation] | None:
        """Equations of exactly ``op`` edges, every quantity before its operands; None if names ran out."""
        root = self._fresh(op, Level.TOTAL if mode == "reverse" else Level.NUMBER)
        if root is None:
            return None
        self._add([root])
        equations: list[Equation] = []
        while self.pending:
            quantity = self.pending.pop(int(self.rng.random() * len(self.pending)))
            spare = op - sum(_CHEAPEST[q.level] for q in self.pending)
            equation = self._total(quantity, spare) if quantity.level > Level.AVERAGE else self._draw(quantity, spare)
            if equation is None:
                return None
            op -= equation.edges
            equations.append(equation)
        return equations

    def _total(self, quantity: Quantity, spare: int) -> Equation | None:
        """Decide which kinds a place holds: that many new quantities."""
        members = quantity.level == Level.MEMBERS
        most = min(spare // (4 if members else 2), len(self.world.kinds), 2 if members else 4)
        kinds = self.rng.sample(self.world.kinds, self.rng.randint(1, most))
        levels = (Level.NUMBER, Level.AVERAGE) if members else (Level.NUMBER,)
        operands = [Quantity(level, quantity.place, kind) for kind in kinds for level in levels]
        self._add(operands)
        return Equation(quantity, tuple(operands))

    def _add(self, new: list[Quantity]) -> None:
        self.used.update(new)
        self.touched.update(q.place for q in new)
        self.summed.update(q.place for q in new if q.level > Level.AVERAGE)
        self.pending += new

    def _draw(self, quantity: Quantity, spare: int) -> Equation | None:
        """A right-hand side that costs, with the new quantities it brings, at most ``spare`` edges in all.

        Where nothing would be left to define, it costs exactly that.
        """
        for _ in range(_TRIES):
            form = pick(self.rng, FORMS)
            left = spare - form.edges
            if left < 0 or (form.operands == 0 and left and not self.pending):
                continue
            operands, left = self._operands(form, left)
            if len(operands) < form.operands:
                continue
            new = [q for q in operands if q not in self.used]
            if not new and not self.pending and left:
                continue
            self._add(new)
            constant = form.draw_constant(self.rng, self.world.max_constant)
            return Equation(quantity, tuple(operands), constant, form.times, form.difference)
        return None

    def _operands(self, form: Form, left: int) -> tuple[list[Quantity], int]:
        """Different operands, new or pending, that ``left`` edges can pay for; and what is left then."""
        operands: list[Quantity] = []
        for _ in range(form.operands):
            if self.pending and self.rng.random() < 0.3:
                q: Quantity | None = pick(self.rng, self.pending)
            elif (q := self._fresh(left)) is not None:
                left -= _CHEAPEST[q.level]
            if q is None or q in operands or any(_clash(q, other) for other in operands if other not in self.used):
                break
            operands.append(q)
        return operands, left

    def _fresh(self, left: int, lowest: Level = Level.NUMBER) -> Quantity | None:
        """A quantity that is in no equation yet and costs at most ``left`` edges; totals have untouched places."""
        for _ in range(_TRIES):
            level = pick(self.rng, _LEVELS)
            if level < lowest or _CHEAPEST[level] > left or (self.world.depth == 2 and level % 2):
                continue
            place = pick(self.rng, self.world.places)
            if place in self.summed or (level > Level.AVERAGE and place in self.touched):
                continue
            quantity = Quantity(level, place, -1 if level > Level.AVERAGE else pick(self.rng, self.world.kinds))
            if quantity not in self.used:
                return quantity
        return None
