import random
import re
import sys
from collections import Counter
from math import log

import pytest

from sleep_lightning.tasks.suites.needle import NeedleConfig, NeedleSource
from sleep_lightning.tasks.suites.transcripts import TranscriptsConfig, TranscriptsSource
from sleep_lightning.tasks.text.kept import KeptRows, bm25, cut, summary
from sleep_lightning.tasks.text.row import Question, TextRow

L = 32


def size(text: str) -> int:
    return len(re.findall(r"\w+|[^\w\s]", text))


def needles() -> NeedleSource:
    return NeedleSource(NeedleConfig(windows=[8], window_tokens=L, kinds=["single"]), size)


def bm25_by_hand(texts: list[str], asked: str) -> list[float]:
    """The formula: idf(w) tf / (tf + k1 (1 - b + b length / mean length)), over the words of the question."""
    docs = [re.findall(r"\w+", text.lower()) for text in texts]
    mean, scores = sum(map(len, docs)) / len(docs), []
    for doc in docs:
        score = 0.0
        for word in re.findall(r"\w+", asked.lower()):
            n = sum(word in other for other in docs)
            tf = Counter(doc)[word]
            score += log(1 + (len(docs) - n + 0.5) / (n + 0.5)) * tf / (tf + 1.5 * (1 - 0.75 + 0.75 * len(doc) / mean))
        scores.append(score)
    return scores


def test_windows_are_whole_sentences_and_all_of_them() -> None:
    for row in (needles().draw(random.Random(i), "train") for i in range(20)):
        windows = cut(row.context, L, size)
        assert "".join(unit for window in windows for unit in window) == row.context
        assert all(size("".join(window)) <= L for window in windows)
        assert all(unit.endswith(".") for window in windows for unit in window)


def test_entries_with_a_stamp_stay_whole() -> None:
    source = TranscriptsSource(TranscriptsConfig(windows=[4], window_tokens=128, n_rules=1), size)
    windows = cut(source.draw(random.Random(0), "train").context, 128, size)
    assert len(windows) > 3
    assert all(unit.startswith("\n[day") and unit.count("[") == 1 for window in windows for unit in window)


def test_bm25_is_the_formula() -> None:
    pytest.importorskip("bm25s")
    rng = random.Random(0)
    for _ in range(20):
        row = needles().draw(rng, "train")
        texts = ["".join(window) for window in cut(row.context, L, size)]
        asked = f"{row.questions[0].text} and a word that is nowhere"
        assert bm25(texts, asked) == pytest.approx(bm25_by_hand(texts, asked), abs=1e-5)
    assert bm25(["some words", "others"], "unheard of") == [0.0, 0.0]


def test_units_without_words_or_tokens() -> None:
    windows = cut("\n\nfoo bar", 3, lambda text: len(text.split()))
    assert windows == [["\n", "\nfoo bar"]]
    assert bm25(["...", "\n"], "what") == [0.0, 0.0] and bm25([], "what") == []


def test_bm25_brings_back_the_window_with_the_needle() -> None:
    pytest.importorskip("bm25s")
    rows, rng = KeptRows(needles(), "bm25", 1, L, size), random.Random(0)
    for _ in range(30):
        row = rows.draw(rng, "train")
        (question,) = row.questions
        assert size(row.context) <= L and f" is{question.answer}." in row.context


def test_without_the_library_one_sentence_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ValueError, match=r"task\.kept=bm25 needs bm25s: pip install"):
        KeptRows(needles(), "bm25", 1, L, size)


def test_a_summary_keeps_the_rarest_sentences_in_their_order() -> None:
    windows = [[" A b c.", " A b c.", " New x y."], [" A b c.", " Old z w.", " A b c."]]
    assert summary(windows, 8, size) == [" New x y.", " Old z w."]
    assert summary(windows, 7, size) == [" Old z w."]  # as rare, and later


def test_a_summary_is_carried_from_window_to_window() -> None:
    """What a window has lost before a later one comes cannot return."""
    windows = [[" A b.", " C d."], [" A b.", " A b.", " A b."], [" E f."]]
    assert summary(windows[:1], 3, size) == [" C d."]
    assert summary(windows, 6, size) == [" C d.", " E f."]
    assert summary([[" A b.", " C d."], [" C d.", " C d."]], 3, size) != [" A b."]


def test_summaries_of_rows_fit_and_do_not_depend_on_the_question() -> None:
    whole, rows = needles(), KeptRows(needles(), "summary", 2, L, size)
    for i in range(20):
        row, kept = whole.draw(random.Random(i), "train"), rows.draw(random.Random(i), "train")
        assert size(kept.context) <= 2 * L
        assert row.questions == kept.questions
        assert "".join(summary(cut(row.context, L, size), 2 * L, size)) == kept.context


def test_context_between_questions_is_kept_for_all_of_them() -> None:
    class Two:
        def draw(self, *_: object) -> TextRow:
            return TextRow((" A b. C d. E f.", Question(" ?", " x"), " G h. I j.", Question(" ?", " y")))

    row = KeptRows(Two(), "summary", 1, 3, size).draw(random.Random(0), "train")
    assert [type(part) for part in row.parts] == [str, Question, str, Question]
    assert [size(part) for part in row.parts if isinstance(part, str)] == [3, 3]
