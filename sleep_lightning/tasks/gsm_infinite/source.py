"""Where problems come from: the generator, or a file."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple, Protocol, cast

from sleep_lightning.tasks.gsm_infinite.config import GSMInfiniteKeys
from sleep_lightning.tasks.gsm_infinite.distractors import Distractors
from sleep_lightning.tasks.gsm_infinite.draw import pick, shuffled
from sleep_lightning.tasks.gsm_infinite.equations import Equation, Mode
from sleep_lightning.tasks.gsm_infinite.language import Language
from sleep_lightning.tasks.gsm_infinite.problem import Problem, World, sample_problem
from sleep_lightning.tasks.gsm_infinite.published import Record, say_dropped
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.tokenizer import Tokenizer

_TRIES, _SPLIT_TRIES = 400, 20_000
_WORDS_PER_FACT = 20
_SHORTEST_FACT = 10


class Sample(NamedTuple):
    """A problem as tokens.

    Attributes:
        ids: question and context.
        answer: the integer, or the variables.
        op: number of operations.
        mode: forward or reverse.
    """

    ids: list[int]
    answer: str
    op: int
    mode: Mode


class Source(Protocol):
    def draw(self, rng: random.Random, split: Split) -> Sample:
        """A problem of the split with a length from ``min_tokens`` to ``max_tokens``."""


def framed(config: GSMInfiniteKeys, question: str) -> tuple[str, str]:
    """What stands before the first fact, and behind the last."""
    if config.question == "before":
        return f"Question: {question} Context:", ""
    return "Context:", f" Question: {question}"


class GeneratedSource:
    """Draws problems and fills them up with distractors."""

    def __init__(self, config: GSMInfiniteKeys, tokenizer: Tokenizer) -> None:
        self.config, self.tokenizer = config, tokenizer
        self._ids: dict[str, list[int]] = {}
        self.languages = {name: Language(name) for name in config.settings}
        # Names a problem uses: so few that distractors meet at the same places, enough to fill the context.
        quantities = 2 * config.max_tokens // _WORDS_PER_FACT // (config.depth - 1) + 2 * max(config.ops)
        self.n_kinds = min(max(round(quantities**0.5), 3), config.n_kinds)
        self.n_places = min(max(-(-quantities // self.n_kinds), 4), config.n_places)
        self._check_lengths()

    def _check_lengths(self) -> None:
        c = self.config
        most = c.n_places * 3 // 4 * c.n_kinds * (c.depth - 1) * _SHORTEST_FACT
        if c.min_tokens > most:
            raise ValueError(
                f"task.min_tokens={c.min_tokens} cannot be reached: {c.n_places} places and {c.n_kinds} kinds fill "
                f"about {most} tokens; use less, or raise task.n_places (to 72) and task.n_kinds (to 48)"
            )
        rng = random.Random(0)
        for op in c.ops:
            for mode in cast(list[Mode], c.modes):
                lengths = []
                for _ in range(_TRIES):
                    problem = sample_problem(rng, self._world(rng), op, mode)
                    lengths += [] if problem is None else [sum(map(len, self._encode(problem)))]
                    if lengths and lengths[-1] <= c.max_tokens:
                        break
                else:
                    raise ValueError(self._too_tight(op, mode, lengths))

    def _too_tight(self, op: int, mode: Mode, lengths: list[int]) -> str:
        if lengths:
            return (
                f"task.max_tokens={self.config.max_tokens} is too short for {mode} problems of {op} operations; "
                f"use at least {min(lengths)}, or fewer operations"
            )
        return (
            f"task.ops: no {mode} problem of {op} operations fits task.max_value={self.config.max_value} and "
            f"{self.config.n_places} places; use fewer operations or raise these"
        )

    def _world(self, rng: random.Random) -> World:
        c = self.config
        places, kinds = rng.sample(range(c.n_places), self.n_places), rng.sample(range(c.n_kinds), self.n_kinds)
        return World(pick(rng, c.settings), places, kinds, c.depth, c.max_constant, c.max_value)

    def _encode(self, problem: Problem) -> list[list[int]]:
        """What stands before the facts, and behind them; then the facts."""
        language = self.languages[problem.world.setting]
        before, behind = framed(self.config, language.question(problem.query))
        head, tail = self.tokenizer.encode(before, first=True), self.tokenizer.encode(behind) if behind else []
        return [[*self.tokenizer.bos, *head], tail, *(self._encode_fact(language, fact) for fact in problem.facts)]

    def _encode_fact(self, language: Language, fact: Equation) -> list[int]:
        ids: list[int] = []
        for part in language.parts(fact):
            if (known := self._ids.get(part)) is None:
                known = self._ids[part] = self.tokenizer.encode(part)
            ids += known
        return ids

    def draw(self, rng: random.Random, split: Split) -> Sample:
        """See ``Source``. Draws again, with the same operations and mode, until split and length fit.

        Raises:
            ValueError: if after very many tries none has fitted.
        """
        c = self.config
        op, mode = pick(rng, c.ops), cast(Mode, pick(rng, c.modes))
        for _ in range(_SPLIT_TRIES):
            problem = sample_problem(rng, self._world(rng), op, mode)
            if problem is not None and problem.split() == split and (ids := self._fill(rng, problem)) is not None:
                return Sample(ids, str(problem.answer), op, mode)
        raise ValueError(
            f"task.n_places={c.n_places} and task.n_kinds={c.n_kinds} leave no {split} problem of {op} operations with "
            f"{c.min_tokens} to {c.max_tokens} tokens; raise them, or widen task.min_tokens and task.max_tokens"
        )

    def _fill(self, rng: random.Random, problem: Problem) -> list[int] | None:
        """Tokens of question and shuffled facts, distractors among them; None if the length cannot be met."""
        c, language = self.config, self.languages[problem.world.setting]
        text, tail, *facts = self._encode(problem)
        length, target = len(text) + len(tail) + sum(map(len, facts)), rng.randint(c.min_tokens, c.max_tokens)
        distractors, misses = Distractors(rng, problem), 0
        while length < target and misses < 10:
            fact = distractors.draw()
            if fact is None:
                break
            ids = self._encode_fact(language, fact)
            if length + len(ids) > c.max_tokens:
                misses += 1
                continue
            distractors.accept(fact)
            facts.append(ids)
            length += len(ids)
        if not c.min_tokens <= length <= c.max_tokens:
            return None
        for ids in [*shuffled(rng, facts), tail]:
            text += ids
        return text


class FileSource:
    """Draws problems of a file for a split: first the number of operations, then one of its problems.

    Attributes:
        problems: in the order of the file.

    Raises:
        ValueError: if none has a length from ``min_tokens`` to ``max_tokens``, or there was none.
    """

    def __init__(
        self, config: GSMInfiniteKeys, tokenizer: Tokenizer, records: Sequence[Record], split: Split, key: str
    ) -> None:
        path, lengths, dropped = getattr(config, key), list[int](), Counter[str]()
        self.problems: list[Sample] = []
        for record in records:
            before, behind = framed(config, record.question)
            text = f"{before} {record.context}{behind}"
            ids = [*tokenizer.bos, *tokenizer.encode(text, first=True)]
            lengths.append(len(ids))
            if config.min_tokens <= len(ids) <= config.max_tokens:
                mode = record.mode or cast(Mode, config.modes[0])
                self.problems.append(Sample(ids, record.answer, record.op, mode))
            else:
                dropped["length"] += 1
        if not self.problems:
            found = f"{len(lengths)} match, of {min(lengths)} to {max(lengths)} tokens" if lengths else "none match"
            raise ValueError(
                f"task.{key}={path} has no {split} problem of task.ops={config.ops}, task.settings and "
                f"task.modes with {config.min_tokens} to {config.max_tokens} tokens ({found}); "
                f"change task.min_tokens and task.max_tokens, or give a larger file"
            )
        say_dropped(path, f"task.{key}, split {split},", dropped, len(records))
        self._by_op: dict[int, list[Sample]] = defaultdict(list)
        for sample in self.problems:
            self._by_op[sample.op].append(sample)

    def draw(self, rng: random.Random, split: Split) -> Sample:
        """See ``Source``."""
        return pick(rng, self._by_op[pick(rng, list(self._by_op))])
