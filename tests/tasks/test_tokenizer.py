"""Tokenizers: texts in pieces are as the text in one, and padding is no token of a text."""

import shutil
import socket
from pathlib import Path

import pytest

from sleep_lightning.tasks.suites.needle import NeedleConfig
from sleep_lightning.tasks.tokenizer import ByteTokenizer, load_tokenizer
from tests.tasks.text.tokenizers import KINDS, save

PIECES = ("the cat is in the garden.", "\nQuestion: who is in the box?", "\nAnswer:", " a dog", " 42, é ∑")


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_are_encoded_as_the_whole(kind: str, tmp_path: Path) -> None:
    t = load_tokenizer(save(kind, tmp_path))
    ids = t.encode(PIECES[0], first=True)
    for piece in PIECES[1:]:
        ids += t.encode(piece)
    assert ids == t.encode("".join(PIECES), first=True)
    assert t.decode(ids) == "".join(PIECES)
    assert max(ids) < len(t.vocab)
    assert t.pad not in ids and t.eos not in ids
    assert t.decode([t.pad, t.pad, *ids, t.eos]) == "".join(PIECES)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_told_from_the_end_where_there_is_another_special_token(kind: str, tmp_path: Path) -> None:
    t = load_tokenizer(save(kind, tmp_path))
    assert (t.pad == t.eos) == (kind == "bpe_one_special")
    assert (len(t.bos) == 1) == kind.endswith("_bos")
    assert t.pad not in t.bos and t.eos not in t.bos


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_names_of_special_tokens_are_text_unless_they_are_meant(kind: str, tmp_path: Path) -> None:
    t = load_tokenizer(save(kind, tmp_path))
    end = t.vocab[t.eos]
    assert t.eos not in t.encode(f" the {end}") and end in t.decode(t.encode(f" the {end}"))
    assert t.encode(f" the {end}", special=True)[-1] == t.eos


def test_bytes_are_utf8() -> None:
    t = ByteTokenizer()
    assert t.encode("é\n") == [0xC3, 0xA9, 0x0A] and len(t.vocab) == 258
    assert t.encode("\ud800") == [ord("?")]
    assert t.vocab[ord("a")] == "a" and t.vocab[0] == "<00>"


def test_a_relative_name_is_that_of_the_working_directory_and_of_files_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    suite = NeedleConfig(tokenizer="mine", question_tokens=96, window_tokens=192)
    for folder in ("with", "without", "bare"):
        (tmp_path / folder).mkdir()
    for folder, words in (("with", ["one two"]), ("without", ["three four five six seven"])):
        Path(save("bpe", tmp_path / folder, words, 300)).rename(tmp_path / folder / "mine")
    monkeypatch.chdir(tmp_path / "with")
    first = load_tokenizer("mine")
    assert load_tokenizer("mine") is first and suite.build().tokenizer is first
    monkeypatch.chdir(tmp_path / "without")
    assert load_tokenizer("mine").vocab != first.vocab and suite.build().tokenizer is not first
    monkeypatch.chdir(tmp_path / "bare")
    for load in (lambda: load_tokenizer("mine"), suite.build):
        with pytest.raises(ValueError, match=r"^task\.tokenizer=mine cannot be loaded"):
            load()
    monkeypatch.chdir(tmp_path / "with")
    shutil.rmtree("mine")
    shutil.copytree(tmp_path / "without" / "mine", "mine")  # saved again
    assert load_tokenizer("mine").vocab != first.vocab


def test_a_hub_without_an_address_is_not_asked_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers")
    asked = []

    def nowhere(host: str, *more: object) -> None:
        asked.append(host)
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(socket, "getaddrinfo", nowhere)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "localhost")
    with pytest.raises(ValueError, match=r"^task\.tokenizer=mine cannot be loaded \(it is no directory here, was not"):
        load_tokenizer("mine")
    assert asked == ["huggingface.co"]


def test_an_absent_tokenizer_is_one_sentence(tmp_path: Path) -> None:
    for name in ("./nowhere", str(tmp_path / "nowhere")):
        with pytest.raises(ValueError, match=r"cannot be loaded \(there is no such directory\); use bytes, or"):
            load_tokenizer(name)
    with pytest.raises(ValueError, match=r"^task\.tokenizer= cannot be loaded \(it is empty\)"):
        load_tokenizer("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"the directory is empty"),
        ("{}", r".+"),
        ('{"version": "1.0", "model":', r"its tokenizer\.json is broken: Expecting value: line 1 column 28"),
        ("[" * 100_000, r"its tokenizer\.json is broken: maximum recursion depth"),
    ],
)
def test_a_broken_tokenizer_is_one_sentence(tmp_path: Path, content: str | None, message: str) -> None:
    pytest.importorskip("transformers")
    if content is not None:
        (tmp_path / "tokenizer.json").write_text(content)
        with pytest.raises(ValueError, match=r"it is a file; name the directory"):
            load_tokenizer(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=rf"cannot be loaded \({message}.*\); use bytes, or the name") as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_halves_of_surrogate_pairs_are_replaced(kind: str, tmp_path: Path) -> None:
    t = load_tokenizer(save(kind, tmp_path))
    assert t.encode("a \ud83d cat") == t.encode("a ? cat")
