"""Rows of text as windows of tokens."""

from dataclasses import replace

import pytest

from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks.text.layout import Laid, Layout, Room
from sleep_lightning.tasks.text.row import Question, TextRow
from sleep_lightning.tasks.tokenizer import ByteTokenizer, load_tokenizer

BYTES = ByteTokenizer()
Q = Question("?where", " b", cue=":")


def shown(ids: list[int]) -> str:
    """A character a token: ``.`` for pads, ``$`` for the end, a space where there is no label."""
    return "".join({BYTES.pad: ".", BYTES.eos: "$", IGNORE: " "}.get(i, chr(i % 256)) for i in ids)


def laid(*parts: str | Question, room: Room | None = None, overlong: str = "refuse") -> Laid:
    room = room or Room(12, 1, 12)
    found = Layout(BYTES, room, overlong)(TextRow(parts))  # type: ignore[arg-type]
    before = Laid.of([BYTES.pad] * (room.context_tokens + room.question_tokens - len(found)))
    assert len(before) % room.window_tokens == 0  # whole windows
    return before + found


def test_a_question_behind_its_context() -> None:
    row = laid("evidence", Q)
    assert shown(row.tokens) == "....evidence" + "?where: b..."
    assert row.labels[12 + 6 : 12 + 9] == [ord(" "), ord("b"), BYTES.eos]
    assert sum(label != IGNORE for label in row.labels) == 3


def test_a_question_before_its_context_leaves_its_cue_behind() -> None:
    row = TextRow(("evidence", Q)).asked_first()
    assert row.parts == ("?where\n", "evidence", replace(Q, text=""))
    tokens = laid(*row.parts, room=Room(6, 3, 6)).tokens
    assert shown(tokens) == "...?where\nevidence" + ": b..."


def test_questions_between_contexts_begin_windows() -> None:
    row = laid("one", Q, "two", replace(Q, answer=" c"), "never asked", room=Room(10, 3, 10))
    assert shown(row.tokens) == ".......one" + "?where: b." + ".......two" + "?where: c."
    assert row.answers[10:20] == [0] * 10 and row.answers[30:39] == [1] * 9


def test_the_beginning_of_a_long_question_behind_another_one_sleeps_too() -> None:
    row = laid("ctx", Q, replace(Q, text="a very long question"), room=Room(9, 4, 9))
    assert shown(row.tokens) == "......ctx" + "?where: b" + "....a very long qu"[-18:] + "estion: b"
    assert [i // 9 for i, label in enumerate(row.labels) if label != IGNORE] == [1] * 3 + [4] * 3


def test_questions_share_a_window_if_they_fit() -> None:
    three = [replace(Q, answer=f" {x}") for x in "abc"]
    row = laid("context", *three, room=Room(20, 1, 40))
    assert shown(row.tokens) == "." * 13 + "context" + "?where: a$?where: b." + "?where: c" + "." * 11
    assert [row.answers[i] for i in (20, 29, 30, 38, 40, 48)] == [0, 0, 1, 1, 2, 2]
    apart = laid("context", *three, room=Room(12, 1, 36))
    assert shown(apart.tokens) == ".....context" + "?where: a..." + "?where: b..." + "?where: c..."


def test_a_question_longer_than_its_window_begins_in_the_context() -> None:
    row = laid("ctx", replace(Q, text="a very long question"), room=Room(6, 4, 6))
    assert shown(row.tokens) == "." * 4 + "ctxa very long quest" + "ion: b"


def test_plain_text_predicts_its_last_tokens() -> None:
    row = laid("abcdefghijklmnop", room=Room(6, 2, 4))
    assert shown(row.tokens) == ".abcdefghijk" + "lmno"
    assert shown(row.labels) == " " * 12 + "mnop"
    long = laid("abcdefghijklmnopqrstuvwxyz", room=Room(6, 2, 4))
    assert shown(long.tokens) == "abcdefghijklmnop" and shown(long.labels)[12:] == "nopq"
    short = laid("ab", room=Room(6, 2, 4))
    assert shown(short.tokens) == "." * 12 + "a..." and shown(short.labels)[12:] == "b   "


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (("x" * 13, Q), r"3 windows of 6 tokens before the last question are more than the 2 there may be; raise task"),
        (("x", replace(Q, answer=" very long")), r"an answer of 11 tokens, its end included, does not fit into the 6"),
        (("x", replace(Q, answer="")), r"an answer is empty"),
        (("x", Question("", " b", cue="")), r"a question is empty"),
        (("x", Q, Q), r"3 windows of 6 tokens before the last question"),
        (("x",), r"a text of 1 tokens has none to predict; leave it out"),
        (("",), r"a text of 0 tokens"),
    ],
)
def test_rows_that_do_not_fit_are_refused(parts: tuple[str | Question, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        laid(*parts, room=Room(6, 2, 6))
    with pytest.raises(ValueError, match=r"^notes, line 3: "):
        Layout(BYTES, Room(6, 2, 6))(TextRow(parts, origin="notes, line 3"))


def test_the_end_of_a_context_that_is_cut_stays() -> None:
    row = laid("0123456789evidence", Q, overlong="cut")
    assert shown(row.tokens[:12]) == "6789evidence"


def test_any_tokenizer(any_tokenizer: str) -> None:
    """Text comes back, BOS stands first, labels are the answer and its end."""
    t = load_tokenizer(any_tokenizer)
    row = TextRow(("the cat is in the box.", Question("\nQuestion: who is in the box?", " a cat")))
    found = Layout(t, Room(32, 4, 64))(row)
    real = [i for i in found.tokens if i != t.pad]
    assert t.decode(real[len(t.bos) :]) == "the cat is in the box.\nQuestion: who is in the box?\nAnswer: a cat"
    assert tuple(real[: len(t.bos)]) == t.bos and real.count(t.eos) == 0
    said = [label for label in found.labels if label != IGNORE]
    assert said == [*t.encode(" a cat"), t.eos]
    assert len({len(x) for x in (found.tokens, found.labels, found.answers)}) == 1 and len(found) % 32 == 0
