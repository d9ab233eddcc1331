"""What the tests of all text suites share: rows drawn without a tokenizer, and a solver that reads only their text."""

import random
import re
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any

import pytest

from sleep_lightning.tasks.suites.source import SuiteKeys, SuiteSource
from sleep_lightning.tasks.suites.stretch import Measure
from sleep_lightning.tasks.task import SPLITS, Split
from sleep_lightning.tasks.text.row import Question, TextRow

WORD = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")


def in_words(text: str) -> int:
    return len(WORD.findall(text))


def in_bytes(text: str) -> int:
    return len(text.encode())


def in_pieces(text: str) -> int:
    """As SentencePiece: a token before every text, long words in pieces."""
    return 1 + sum(1 + len(word) // 5 for word in WORD.findall(text))


class SuiteTestCase(ABC):
    """Set ``source`` and ``keys``; write a solver."""

    source: type[SuiteSource[Any]]
    keys: SuiteKeys
    several: frozenset[str] = frozenset()
    """Slices of a question that take more than one value."""

    @abstractmethod
    def solve(self, context: str, question: str) -> tuple[str, int]:
        """The answer, and the character behind the last evidence, from the text alone."""

    @abstractmethod
    def evidence(self, context: str, question: str) -> Any:
        """What the answer follows from."""

    def rows(self, n: int, split: Split = "train", keys: SuiteKeys | None = None, seed: int = 0) -> list[TextRow]:
        source, rng = self.source(keys or self.keys, in_words), random.Random(seed)
        return [source.draw(rng, split) for _ in range(n)]

    def questions(self, n: int, split: Split = "train", seed: int = 0) -> list[tuple[str, Question]]:
        return [(row.context, q) for row in self.rows(n, split, seed=seed) for q in row.questions]

    @pytest.mark.parametrize("split", SPLITS)
    def test_a_solver_that_reads_the_text_is_always_right(self, split: Split) -> None:
        for context, question in self.questions(300, split):
            answer, _ = self.solve(context, question.text)
            assert f" {answer}" == question.answer, f"{context}{question.text}"

    def test_depth_is_the_quarter_in_which_the_evidence_ends(self) -> None:
        found = set()
        for context, question in self.questions(200):
            _, end = self.solve(context, question.text)
            assert question.slices["depth"] == min(3, end * 4 // len(context)), f"{context}{question.text}"
            found.add(question.slices["depth"])
        assert len(found) > 2

    def test_no_one_answer_is_most_of_them(self) -> None:
        answers = [question.answer for _, question in self.questions(300)]
        assert max(answers.count(answer) for answer in answers) < 150

    def test_slices_are_those_of_all_questions(self) -> None:
        questions = [question for _, question in self.questions(300)]
        (names,) = {tuple(question.slices) for question in questions}
        assert self.several == {name for name in names if len({q.slices[name] for q in questions}) > 1} - {"depth"}

    def test_rows_are_drawn_from_the_generator_alone(self) -> None:
        assert self.rows(5, seed=3) == self.rows(5, seed=3)
        assert self.rows(5, seed=3) != self.rows(5, seed=4)

    def test_splits_share_no_evidence(self) -> None:
        seen: list[set[Any]] = []
        for split in SPLITS:
            rows = self.rows(150, split)
            seen.append({tuple(sorted(repr(self.evidence(r.context, q.text)) for q in r.questions)) for r in rows})
        assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]

    @pytest.mark.parametrize(("measure", "per_word"), [(in_words, 1), (in_bytes, 8), (in_pieces, 3)])
    def test_contexts_have_their_length_in_the_tokens_of_any_tokenizer(self, measure: Measure, per_word: int) -> None:
        windows = [self.keys.windows[0], self.keys.windows[0] + 3]
        tokens = {key: getattr(self.keys, key) * per_word for key in ("window_tokens", "question_tokens")}
        keys = replace(self.keys, windows=windows, **tokens)
        source, rng, found = self.source(keys, measure), random.Random(0), set()
        for _ in range(30):
            row = source.draw(rng, "train")
            tokens = row.slices["windows"] * keys.window_tokens
            assert tokens - 20 * per_word < measure(row.context) <= tokens
            found.add(row.slices["windows"])
        assert found == set(windows)

    def test_hundreds_of_windows(self) -> None:
        keys = replace(self.keys, windows=[300])
        row = self.source(keys, in_words).draw(random.Random(1), "test")
        for question in row.questions:
            assert f" {self.solve(row.context, question.text)[0]}" == question.answer
        assert in_words(row.context) > 300 * keys.window_tokens - 20

    def test_a_closed_vocabulary_holds_every_word(self) -> None:
        words = {word for text in self.source.words(self.keys) for word in WORD.findall(text)}
        known = words | {str(n) for n in range(self.source.max_number(self.keys) + 1)}
        for row in self.rows(200):
            texts = [row.context, *(text for q in row.questions for text in (q.text, q.cue, q.answer))]
            assert {word for text in texts for word in WORD.findall(text)} <= known
        assert len(words) < 900

    def test_pieces_begin_with_their_own_space_or_line(self) -> None:
        for context, question in self.questions(20):
            assert all(text[0] in " \n" for text in (context, question.text, question.cue, question.answer))

    def test_contexts_that_are_too_short_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"contexts of 4 tokens, and those of task\.name=.* take up to"):
            self.source(replace(self.keys, windows=[2], window_tokens=2), in_words)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [({"windows": []}, r"task\.windows=\[\]"), ({"windows": [0]}, r"task\.windows"), ({"window_tokens": 1}, "=1 must")],
)
def test_impossible_lengths_are_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuiteKeys(**overrides)
