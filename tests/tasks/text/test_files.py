"""Files as people have them: what is read all the same, and the one sentence for what cannot be."""

import bz2
import gzip
import json
import lzma
from pathlib import Path
from typing import Any

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.tasks.text import TextConfig, index
from sleep_lightning.tasks.text.files import FileRows
from sleep_lightning.tasks.text.records import JSONArray, JSONLines, Parquet, open_records
from sleep_lightning.tasks.text.task import RowTask
from tests.tasks.text import large_file

RECORDS: list[dict[str, Any]] = [{"context": f"{i} é", "question": "Which?", "answer": f"{i % 7}"} for i in range(300)]
LINES = [json.dumps(record, ensure_ascii=False).encode() for record in RECORDS]


def task(path: Path, **keys: Any) -> RowTask:
    return TextConfig(train=str(path), window_tokens=40, context_windows=1, question_tokens=40, **keys).build()


def contexts(found: RowTask) -> list[str]:
    """Of all records, the splits one after the other."""
    source = found.source
    assert isinstance(source, FileRows)
    return [row.context for split, rows in source.indices.items() for row in source.ordered(split, 0, len(rows))]


def all_of_them(found: RowTask) -> bool:
    assert sorted(contexts(found)) == sorted(record["context"] for record in RECORDS)
    return True


@pytest.mark.parametrize(
    "content",
    [
        b"\n".join(LINES),
        b"\r\n".join(LINES) + b"\r\n",
        b"\xef\xbb\xbf" + b"\n".join(LINES) + b"\n",
        b"\n\n" + b"\n \n".join(LINES) + b"\n\n",
        b"[" + b",\n".join(LINES) + b"]",
        b"\xef\xbb\xbf \n[" + b", ".join(LINES) + b"]\r\n",
    ],
    ids=["no last line end", "windows", "bom", "empty lines", "array", "array with bom"],
)
def test_the_same_records_however_they_are_written(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    assert all_of_them(task(path))


@pytest.mark.long
def test_parquet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    parquet, arrow = pytest.importorskip("pyarrow.parquet"), pytest.importorskip("pyarrow")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    for name, records in (("a", RECORDS), ("chat", [{"messages": [{"role": "user", "content": "hi"}] * 2}] * 3)):
        parquet.write_table(arrow.Table.from_pylist(records), tmp_path / f"{name}.parquet")
    (tmp_path / "a.parquet").rename(tmp_path / "a")  # told by its content
    assert all_of_them(task(tmp_path / "a"))
    with pytest.raises(ValueError, match=r"chat\.parquet, row 1: 'messages' holds none of the assistant"):
        task(tmp_path / "chat.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(ValueError, match=r"^task\.train=.*broken\.parquet cannot be read as Parquet \(.*\); write it"):
        task(tmp_path / "broken.parquet")
    parquet.write_table(arrow.Table.from_pylist(RECORDS)[:0], tmp_path / "none.parquet")
    with pytest.raises(ValueError, match=r"none\.parquet holds no records"):
        task(tmp_path / "none.parquet")
    parquet.write_table(arrow.Table.from_pylist([{"prompt": "a", "completion": "b"}]), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet, row 1: 'question' is missing; a record has messages, text"):
        task(tmp_path / "other.parquet")


def test_formats_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for content, kind in ((b'{"text": "x"}\n', JSONLines), (b" [1]", JSONArray), (b"", JSONLines)):
        path.write_bytes(content)
        assert type(open_records(str(path), "task.train")) is kind
    assert Parquet.unit == "row"


GOOD = '{"context": "a", "question": "b", "answer": "c"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + '{"context": "a", \n', r"line 2: Expecting property name.*; fix or delete that line"),
        (GOOD + '{"context": "a", "question": "b"}\n', r"line 2: 'answer' is missing; a record has messages, text, or"),
        (GOOD + '{"contxt": "a"}\n', r"line 2: 'question' is missing"),
        (GOOD + '"text"\n', r"line 2: a JSON object was expected, not str"),
        (GOOD + '{"question": "b", "answer": ""}\n', r"line 2: an answer is empty; give it a text"),
        (GOOD + '{"question": ["b"], "answer": ["c", "d"]}\n', r"line 2: 1 questions have 2 answers; give each one"),
        (GOOD + '{"question": {}, "answer": "c"}\n', r"line 2: 'question' must be a text \(or a number\), or a list"),
        (GOOD + '{"question": "b", "answer": true}\n', r"line 2: 'answer' must be a text"),
        (GOOD + '{"question": "b", "answer": NaN}\n', r"line 2: 'answer' must be a text"),
        (GOOD + '{"question": "b", "answer": " "}\n', r"line 2: an answer is empty; give it a text"),
        (GOOD + '{"context": 0, "question": "b", "answer": "c"}\n', r"line 2: 'context' is int, not text"),
        (GOOD + '{"context": [], "question": "b", "answer": "c"}\n', r"line 2: 'context' is list, not text"),
        (GOOD + "[" * 100_000 + "\n", r"line 2: its brackets are nested too deeply; fix or delete that line"),
        ("[" * 100_000, r"is no JSON array \(its brackets are nested too deeply\)"),
        ("context,question,answer\na,b,c\n", r"line 1: Expecting value; fix it, or write one JSON object a line"),
        ('{\n"context": "a"}\n', r"line 1: Expecting property name.*; fix it, or write one JSON object a line"),
        (GOOD.replace("\n", "\r") * 2, r"line 1: Extra data; fix it, or write one JSON object a line"),
        (GOOD + '{"context": 7, "question": "b", "answer": "c"}\n', r"line 2: 'context' is int, not text"),
        (GOOD + '{"text": 7}\n', r"line 2: 'text' is int, not text"),
        (GOOD + '{"messages": [{"role": "user"}]}\n', r"line 2: 'messages' must be a list of objects with role and co"),
        (GOOD + '{"messages": []}\n', r"line 2: 'messages' holds none of the assistant"),
        (GOOD + '\n{"text": "\udcff"}\n', r"line 3: byte 11 \(0xff\) is not UTF-8; save the file as UTF-8"),
        (GOOD + '{"text": "caf\udce9"}\n', r"line 2: byte 14 \(0xe9\) is not UTF-8; save the file as UTF-8"),
        ("", r"holds no records; give a file with one JSON object a line"),
        ("\ufeff\r\n", r"holds no records"),
        ("[]", r"holds no records"),
        ("[{]", r"is no JSON array \(.*\); fix it, or write an object a line"),
        (GOOD, r"has 1 records, none of which the hash deals to (train|validation|test); give a larger file"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_and_exit_code_2(
    tmp_path: Path, content: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=rf"^task\.train={path}.*{message}"):
        task(path)
    yaml = tmp_path / "text.yaml"
    yaml.write_text(f"task: {{name: text, train: {path}}}\nsleep: {{window_size: 64}}\n")
    assert main(["cost", "--config", str(yaml)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(GOOD.encode(), mtime=0), r"compressed \(gzip\); decompress it"),
        (bz2.compress(GOOD.encode()), r"compressed \(bzip2\); decompress it"),
        (lzma.compress(GOOD.encode()), r"compressed \(xz\); decompress it"),
        (b"\x28\xb5\x2f\xfd...", r"compressed \(zstd\); decompress it"),
        (b"PK\x03\x04...", r"a zip archive; unpack it"),
        (GOOD.encode("utf-16"), r"UTF-16 or UTF-32; save it as UTF-8"),
        (b"\xfe\xff" + GOOD.encode("utf-16-be"), r"UTF-16; save it as UTF-8"),
    ],
)
def test_what_is_no_text_is_called_by_its_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    with pytest.raises(ValueError, match=rf"^task\.train=.*a\.jsonl is {message}$"):
        task(tmp_path / "a.jsonl")


def test_halves_of_surrogate_pairs_are_read(tmp_path: Path) -> None:
    """JSON may hold them, programs that cut texts in two write them."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES).replace("é".encode(), rb"\ud83d"))
    assert all("\ud83d" in context for context in contexts(task(path)))
    found = task(path)
    assert "?" in found.tokenizer.decode(found.batch(1, seed=0, position=0).tokens[0].tolist())


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"train": "no/such/file"}, r"^task\.train=no/such/file: No such file or directory; give a file of JSON lines"),
        ({"train": "."}, r"^task\.train=\.: Is a directory; give a file"),
        ({"train": None}, r"^task\.train is not set; name a file"),
        ({"tokenizer": "./nowhere"}, r"^task\.tokenizer=\./nowhere cannot be loaded"),
        ({"question_tokens": 2}, r"line \d+: an answer of 3 tokens, its end included, does not fit into the 2 of its"),
        ({"question_tokens": 1}, r"^task\.window_tokens=40 and task\.question_tokens=1 must be at least 2"),
        ({"context_windows": 0}, r"^task\.context_windows=0 must be at least 1"),
        ({"slices": ["depth"]}, r"line 1: 'depth' of task\.slices is missing"),
        ({"slices": ["context"]}, r"line 1: 'context' of task\.slices is not a whole number"),
        (
            {"cue": "x" * 200},
            r"line \d+: 5 windows of 40 tokens before the last question are more than the 1 there may be",
        ),
        ({"answer_template": "yes"}, r"^task\.answer_template='yes' must hold \{answer\}"),
    ],
)
def test_keys_that_do_not_fit(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    sizes: dict[str, Any] = {"window_tokens": 40, "context_windows": 1, "question_tokens": 40}
    with pytest.raises(ValueError, match=message):
        TextConfig(**({"train": str(path)} | sizes | keys)).build()


def test_a_text_of_one_token_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "x"}\n' * 3)
    with pytest.raises(ValueError, match=r"a\.jsonl, line \d: a text of 1 tokens has none to predict; leave it out"):
        TextConfig(train=str(path), validation=str(path), test=str(path)).build()


def test_a_long_answer_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"context": "a", "question": "b", "answer": "c" * 80}) + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl, line 1: an answer of 82 tokens, its end included, does not fit"):
        TextConfig(train=str(path), validation=str(path), test=str(path)).build()


@pytest.mark.long
def test_a_row_that_is_met_only_in_training_ends_it_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a large file not every row is laid out beforehand."""
    path, good = tmp_path / "a.jsonl", tmp_path / "good.jsonl"
    good.write_bytes(b"\n".join(LINES[:60]))
    path.write_bytes(good.read_bytes() + b'\n{"context": "a", "question": "b", "answer": "' + b"c" * 80 + b'"}\n')
    keys = {
        **{"name": "text", "train": path, "validation": good, "test": good},
        **{"window_tokens": 40, "context_windows": 1, "question_tokens": 40},
    }
    run = [f"task.{key}={value}" for key, value in keys.items()]
    run += ["sleep.window_size=40", "model.d_model=16", "training.batch_size=16", "training.max_steps=50"]
    run += ["training.val_batches=1", "training.val_batch_size=4", "training.accelerator=cpu"]
    assert main(["fit", *run, "tracking.enabled=false", f"training.run_dir={tmp_path / 'run'}"]) == 2
    said = capsys.readouterr().err
    assert f"error: task.train={path}, line 61: an answer of 82 tokens, its end included, does not fit" in said
    assert "Traceback" not in said


def test_a_file_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    found = task(path)
    path.write_bytes(b'{"other": 1}\n' * 2000)
    with pytest.raises(ValueError, match=r"a\.jsonl"):
        found.batch(8, seed=0, position=0)


def test_the_index_of_a_large_file_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(index, "KEPT_BYTES", 100)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join(LINES))
    first = contexts(task(path))
    [kept] = (tmp_path / "cache" / "sleep_lightning" / "text").iterdir()
    monkeypatch.setattr(JSONLines, "scan", None)
    assert contexts(task(path, question="before")) == first
    assert sum((kept / split).stat().st_size for split in ("train", "validation", "test")) == 300 * 16


@pytest.mark.slow
@pytest.mark.process
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """3 MB and 300 MB (whose index is kept): the same peak to 5 MB."""
    peaks = {}
    for nbytes in (3e6, 300e6):
        path = tmp_path / "large.jsonl"
        records = large_file.write(path, nbytes)
        found = large_file.measured(path, tmp_path)
        assert found["records"] == records
        peaks[nbytes] = found["bytes at the peak, more than before"]
    print(f"bytes at the peak by bytes of the file: {peaks}")
    assert peaks[300e6] < peaks[3e6] + 5e6
