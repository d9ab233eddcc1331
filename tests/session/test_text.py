"""Text through real tokenizers: byte-level and SentencePiece-like, as pretrained models have them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sleep_lightning.session import BEGIN, AnswerText, Codec, SleepSession, WritePolicy
from sleep_lightning.tasks.tokenizer import ByteTokenizer
from sleep_lightning.tasks.words import Words
from tests.session.conftest import bits, same, tiny_session
from tests.tasks.text.tokenizers import save

KINDS = ("bpe_bos", "sentencepiece_bos")
TEXTS = ("naïve 猫 🐈\u200d⬛ Ω\n a  b\t\n\n the cat.", "  the", "\n", "the cat the dog  ", "é")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One of ``transformers``."""
    folder = save(request.param, tmp_path_factory.mktemp("tokenizers"))
    return pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)


def speaking(tokenizer: Any, **options: Any) -> SleepSession:
    """A session with a window of 64 tokens, whose model has the tokens of a tokenizer."""
    return tiny_session({"vocab_size": len(tokenizer)}, {"window_size": 64}, tokenizer=tokenizer, **options)


def script(session: SleepSession, ids: list[int]) -> SleepSession:
    """It says these tokens, whatever it has read."""
    left, V = iter(ids), session.model.vocab_size

    def logits() -> Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(left)), V).float()

    session._next_logits = logits  # type: ignore[method-assign]
    return session


def read(session: SleepSession) -> list[int]:
    return session._state.window.tokens_BL[0, : session.window_fill].tolist()


def test_it_begins_once_and_goes_on_as_one_text(tokenizer: Any) -> None:
    session = speaking(tokenizer)
    for text in ("the cat", " and", "", " the dog"):
        session.append(text)
    assert read(session) == tokenizer("the cat and the dog")["input_ids"]
    assert read(session).count(tokenizer.bos_token_id) == 1
    session.reset()
    assert list(session.generate(0, prompt="the cat")) == []
    assert read(session) == tokenizer("the cat")["input_ids"], "a prompt begins a session, too"
    by_ids = speaking(tokenizer)
    by_ids.append([5])
    by_ids.append("the")
    assert tokenizer.bos_token_id not in read(by_ids), "ids are taken as they are"


def test_names_of_special_tokens_are_text(tokenizer: Any) -> None:
    codec = Codec.of(tokenizer)
    text = f"{tokenizer.bos_token} {tokenizer.eos_token}"
    assert not {tokenizer.bos_token_id, tokenizer.eos_token_id} & set(codec.encode(text, first=True))
    assert codec.decode(codec.encode(text, first=True)) == text
    assert codec.decode([codec.bos[0], *codec.encode("the", first=True), tokenizer.eos_token_id]) == "the"
    assert codec.encode("\ud800") == codec.encode("?")
    raw = Codec.of(tokenizer.backend_tokenizer)
    assert raw.encode(text) == codec.encode(text) and raw.bos == codec.bos and Codec.of(raw) is raw
    assert tokenizer("the")["input_ids"][0] == codec.bos[0], "the caller's own is as it was"


@pytest.mark.parametrize("text", TEXTS)
def test_a_stream_has_whole_characters_and_is_the_text(tokenizer: Any, text: str) -> None:
    for codec in (Codec.of(tokenizer), Codec.of(ByteTokenizer())):
        answer = AnswerText(codec)
        pieces = [answer.push(token) for token in codec.encode(text, first=True)]
        assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
        assert "".join((*pieces, answer.finish())) == answer.text == text
        assert sum(map(bool, pieces)) >= len(text.split()), "it does not wait for the end"


def test_bytes_that_are_no_character_come_out(tokenizer: Any) -> None:
    codec, bad = Codec.of(ByteTokenizer()), "\N{REPLACEMENT CHARACTER}"
    answer = AnswerText(codec)
    assert [answer.push(i) for i in (0xFF, ord("a"), 0xE7, 0x8C)] == ["", f"{bad}a", "", ""]
    assert answer.finish() == bad and answer.text == f"{bad}a{bad}"
    codec = Codec.of(tokenizer)
    cut = codec.encode("猫 the 猫", first=True)[:-1]
    answer = AnswerText(codec)
    assert "".join(answer.push(token) for token in cut) == "猫 the ", "a cut character spoils none before it"
    assert answer.finish().strip(bad) == ""


@pytest.mark.parametrize(
    ("stop", "shown"), [("cat.", "the "), ("猫\n", "the cat. "), ("\n\n", "the cat. 猫"), ("xyz", "the cat. 猫\n\nred")]
)
def test_a_stop_across_the_borders_of_tokens(tokenizer: Any, stop: str, shown: str) -> None:
    codec = Codec.of(tokenizer)
    ids = codec.encode("the cat. 猫\n\nred", first=True)
    session = script(speaking(tokenizer), ids * 2)
    made, text, pieces = [], session.answer_text(stop), []
    for token in session.generate(len(ids), prompt="a", stop=stop):
        made.append(token)
        pieces.append(text.push(token))
    assert "".join(pieces) + text.finish() == shown and text.ended == (stop != "xyz")
    assert made == ids[: len(made)] and codec.decode(made).startswith(shown)
    assert session.tokens_seen == len(tokenizer("a")["input_ids"]) + len(made) - text.ended, "its end is not read"
    again = script(speaking(tokenizer), ids)
    assert again.ask("a", len(ids), stop=["\N{SNOWMAN}", stop]) == shown


def test_the_end_of_a_text_ends_an_answer(tokenizer: Any) -> None:
    ids = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    session = script(speaking(tokenizer), [*ids, tokenizer.eos_token_id, *ids])
    assert list(session.generate(20, prompt="a")) == ids and session.tokens_seen == 2 + len(ids)
    assert tokenizer.eos_token_id not in read(session)


def test_the_beginning_goes_with_the_others(tokenizer: Any) -> None:
    """Of a write policy, and of what is forgotten: never having read a source is having begun all the same."""
    session, clean = (speaking(tokenizer, keep_texts=True, writes={"user": 2}) for _ in range(2))
    session.append("the cat", "web")
    if Codec.of(tokenizer).encode(" a") != Codec.of(tokenizer).encode(" a", first=True):
        pytest.skip("what begins a text has a mark, which another text would have without it")
    session.append(" a dog", "user")
    clean.append(" a dog", "user")
    assert session.forget("web") == 2 and same(bits(session), bits(clean))
    session.sleep()
    assert session.provenance()[0].sources == {BEGIN: 1, "user": 2}
    alone = speaking(tokenizer, writes={"user": 2})
    alone.append("the cat", "web")
    assert alone.sleep() == 0 and alone.provenance()[0].left_out == {BEGIN: 1, "web": 2}
    assert WritePolicy({BEGIN: 3}).kept([BEGIN, "web"]) == [True, False]


def test_a_text_that_is_refused_does_not_begin(tokenizer: Any) -> None:
    session = speaking(tokenizer, policy="manual")
    with pytest.raises(ValueError, match="tokens do not fit"):
        session.append("the" * 64)
    with pytest.raises(ValueError, match="65 tokens do not fit"):  # the one before begins the session
        session.generate(65 - len(tokenizer("the the")["input_ids"]), prompt="the the")
    assert session.tokens_seen == 0
    small = tiny_session(tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"token \d+ is not one of the model's, 0 to 10"):
        small.append("the cat")
    assert small.tokens_seen == 0


@pytest.fixture
def slow_tokenizer() -> Any:
    class Slow:
        """As those of ``transformers`` in Python."""

        is_fast, eos_token_id = False, 2

        def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
            return [chr(i) for i in ids]

        def __call__(self, text: str, add_special_tokens: bool = True, **_: bool) -> dict[str, list[int]]:
            return {"input_ids": [1] * add_special_tokens + [ord(c) for c in text] + [2] * add_special_tokens}

        def encode(self, text: str) -> list[int]:
            return self(text)["input_ids"]

        def decode(self, ids: list[int], skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
            return "".join(chr(i) for i in ids if i > 2 or not skip_special_tokens)

    return Slow()


def test_tokenizers_of_other_forms(slow_tokenizer: Any) -> None:
    codec = Codec.of(slow_tokenizer)
    assert (codec.bos, codec.eos, codec.encode("ab"), codec.decode([1, 97, 2])) == ((1,), 2, [97, 98], "a")
    words = Codec.of(Words(("a", "bb")))
    answer = AnswerText(words, ["a a"])
    assert (words.bos, words.eos, words.encode("bb a")) == ((), None, [1, 0])
    assert [answer.push(i) for i in (1, 0, 1)] == ["bb", " ", "a bb"] and answer.finish() == ""
    assert AnswerText(None).push(3) == ""


def test_each_token_is_decoded_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    codec, decoded = Codec.of(ByteTokenizer()), 0
    decode = codec.decode

    def counted(ids: Any) -> str:
        nonlocal decoded
        decoded += len(ids)
        return decode(ids)

    monkeypatch.setattr(codec, "decode", counted)
    answer = AnswerText(codec)
    for token in codec.encode("abc" * 1000):
        answer.push(token)
    assert decoded < 4 * 3000
