"""Solves GSM-Infinite problems from their text alone: the generator's referee. Shares no code with it.

It knows English arithmetic, what is counted as one of what (a school is not a teacher), and that a total sums over the
kinds of a place that the text gives a number for.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from fractions import Fraction

MEMBERS = {"young", "teachers", "prizes"}
TEXT = re.compile(r"Question: (?P<question>[^?]+\?) Context: (?P<context>.*\.)")
PHRASE = re.compile(r"(?P<what>average|total|) ?number of (?P<of>.+?) (?:at|in) (?P<where>.+)")

Name = tuple[str, str, str]
Polynomial = list[int]
"""A value in terms of the unknown: coefficients of its powers 0, 1, ..."""


@dataclass
class Solution:
    """What the referee found.

    Attributes:
        answer: the only value of the query that agrees with every sentence.
        op: operands and constants of all equations that the answer follows from.
        evidence: question and sentences that the answer follows from, in no order.
        constants: numbers that stand alone as the value of something.
        values: of all quantities that the text has a sentence for.
        distractors: sentences that the answer does not follow from.
    """

    answer: int
    op: int
    evidence: frozenset[str]
    constants: list[int]
    values: list[Fraction]
    distractors: int


@dataclass
class _Sentence:
    text: str
    operands: list[Name]
    constant: int | None = None
    times: bool = False
    difference: bool = False
    unknown: bool = False


@dataclass
class _Reader:
    sentences: dict[Name, _Sentence] = field(default_factory=dict)
    given: dict[Name, tuple[str, int]] = field(default_factory=dict)
    kinds: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    polynomials: dict[Name, Polynomial] = field(default_factory=dict)
    open: set[Name] = field(default_factory=set)

    def read(self, text: str) -> None:
        subject, _, predicate = text.removesuffix(".").removeprefix("The ").partition(" is ")
        name = phrase(subject)
        if name[0].endswith("total"):
            assert name not in self.given
            self.given[name] = text, int(predicate)
            return
        assert name not in self.sentences, f"two sentences about {name}"
        self.sentences[name] = parse(predicate, text)
        if name[0] == "number":
            self.kinds[name[2]].append(name[1])

    def summands(self, name: Name) -> list[tuple[Name, ...]]:
        kinds = self.kinds[name[2]]
        assert kinds, f"nothing is known of {name}"
        numbers: list[Name] = [("number", kind, name[2]) for kind in kinds]
        if name[0] == "total":
            return [(n,) for n in numbers]
        return [(n, ("average", n[1], n[2])) for n in numbers]

    def operands(self, name: Name) -> list[Name]:
        if name[0].endswith("total"):
            return [factor for factors in self.summands(name) for factor in factors]
        return self.sentences[name].operands

    def polynomial(self, name: Name) -> Polynomial:
        if name not in self.polynomials:
            assert name not in self.open, f"{name} depends on itself"
            self.open.add(name)
            self.polynomials[name] = self._polynomial(name)
        return self.polynomials[name]

    def _polynomial(self, name: Name) -> Polynomial:
        if name[0].endswith("total"):
            summands = [[self.polynomial(factor) for factor in factors] for factors in self.summands(name)]
            return add([f[0] if len(f) == 1 else multiply(f[0], f[1]) for f in summands])
        s = self.sentences[name]
        if s.unknown:
            return [0, 1]
        terms = [self.polynomial(operand) for operand in s.operands]
        if s.difference:
            terms[1] = multiply([-1], terms[1])
        base = add(terms)
        if s.constant is None:
            return base
        return multiply([s.constant], base) if s.times else add([[s.constant], base])


def add(terms: list[Polynomial]) -> Polynomial:
    total = [0] * max(map(len, terms), default=1)
    for term in terms:
        for power, c in enumerate(term):
            total[power] += c
    while len(total) > 1 and not total[-1]:
        total.pop()
    return total


def multiply(a: Polynomial, b: Polynomial) -> Polynomial:
    return add([[0] * power + [c * d for d in b] for power, c in enumerate(a)])


def evaluate(polynomial: Polynomial, x: Fraction) -> Fraction:
    return sum((c * x**power for power, c in enumerate(polynomial)), Fraction())


def phrase(text: str) -> Name:
    found = PHRASE.fullmatch(text.removeprefix("the "))
    assert found, f"not a quantity: {text!r}"
    what, of, where = found["what"] or "number", found["of"], found["where"]
    if what == "average":
        members, _, kind = of.partition(" per ")
        assert members in MEMBERS
        return "average", kind, where
    if what == "total":
        return ("members total" if of in MEMBERS else "total"), "", where
    return "number", of.removesuffix("s"), where


def parse(predicate: str, text: str) -> _Sentence:
    if predicate == "unknown but above 0":
        return _Sentence(text, [], unknown=True)
    if predicate.isdigit():
        return _Sentence(text, [], int(predicate))
    led = re.match(r"(\d+) (times|more than) ", predicate)
    constant, times = (int(led[1]), led[2] == "times") if led else (None, False)
    base = predicate[led.end() :] if led else predicate
    if base.startswith("the difference between "):
        operands = base.removeprefix("the difference between ").split(" and ")
        assert len(operands) == 2
    else:
        operands = re.split(", | and ", base.removeprefix("the sum of ")) if "the sum of " in base else [base]
        operands = [operand.removeprefix("the same as ") for operand in operands]
    return _Sentence(text, [phrase(o) for o in operands], constant, times, base.startswith("the difference"))


def solve(text: str) -> Solution:
    """Read, solve and prove unique.

    Raises:
        AssertionError: if a sentence cannot be read, something is said twice, nothing or more than one value fits.
    """
    found = TEXT.match(text)
    assert found, f"not a problem: {text!r}"
    reader, question = _Reader(), found["question"]
    for sentence in re.findall(r"[^.]+\.", found["context"]):
        reader.read(sentence.strip())
    how_many = re.fullmatch(r"How many (.+)s are there (?:at|in) (.+)\?", question)
    query = ("number", how_many[1], how_many[2]) if how_many else phrase(question[:-1].removeprefix("What is the "))

    polynomials = {name: reader.polynomial(name) for name in reader.sentences}
    unknowns = [name for name, s in reader.sentences.items() if s.unknown]
    assert len(unknowns) == len(reader.given) <= 1
    root, x = query, Fraction()
    if unknowns:
        [(root, (_, total))] = reader.given.items()
        polynomial = reader.polynomial(root)
        assert len(polynomial) == 2, "the total does not determine the unknown"
        x = Fraction(total - polynomial[0], polynomial[1])
        assert x > 0
        assert query == unknowns[0]
    answer = evaluate(reader.polynomial(query), x)
    assert answer.denominator == 1

    needed, stack = set(), [root]
    while stack:
        if (name := stack.pop()) not in needed:
            needed.add(name)
            stack += reader.operands(name)
    op = 0
    for name in needed:
        stated = reader.sentences.get(name)
        op += len(reader.operands(name)) + (stated is not None and (stated.constant is not None or stated.unknown))
    evidence = {reader.sentences[name].text for name in needed if name in reader.sentences}
    evidence |= {sentence for sentence, _ in reader.given.values()}
    return Solution(
        answer=int(answer),
        op=op,
        evidence=frozenset(evidence | {question}),
        constants=[s.constant for s in reader.sentences.values() if s.constant is not None],
        values=[evaluate(polynomial, x) for polynomial in polynomials.values()],
        distractors=len(reader.sentences) + len(reader.given) - len(evidence),
    )
