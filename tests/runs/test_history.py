"""Validations on disk: appended, read once, whole whatever kills the writer; those of earlier versions are read too."""

import errno
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.trainer.states import TrainerFn

from sleep_lightning.runs import space
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.files import append_text, end_of_lines
from sleep_lightning.runs.history import HistoryFile, append_to_history, write_history
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.training.callbacks.history import History
from tests.sweep.sweeps import small_sweep

Rows = list[dict[str, float]]


def rows(count: int) -> Rows:
    return [{"step": n, "cost/train_flops": 1e6 * n, "exact_match": 0.25, "more": n / 3} for n in range(1, count + 1)]


class Counted:
    """Bytes that are written and read, and lines that are parsed, by whatever function of ``os`` and ``json``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.written = self.parsed = 0
        write, loads = os.write, json.loads

        def counted_write(file: int, content: bytes) -> int:
            self.written += len(content)
            return write(file, content)

        def counted_loads(text: Any) -> Any:
            self.parsed += len(text)
            return loads(text)

        patch.setattr(os, "write", counted_write)
        patch.setattr(json, "loads", counted_loads)


def validate(history: History, module: Any, row: dict[str, float]) -> None:
    """What the callback does at the end of a validation."""
    module.history.append(row)
    history._write(SimpleNamespace(is_global_zero=True), module)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [50, 200])
def test_a_validation_is_written_once_and_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    run, module = FitProcess(small_sweep().base, RunDirectory(tmp_path)), SimpleNamespace(history=[])
    assert run.history == [] and run.flops_spent == 0
    callback, counted = History(run.directory.history), Counted(monkeypatch)
    for n, row in enumerate(rows(count), 1):
        validate(callback, module, row)
        for _ in range(3):
            assert len(run.history) == n and run.flops_spent == 1e6 * n
    assert run.history == rows(count) == HistoryFile(run.directory.history, "").read()
    size = run.directory.history.stat().st_size
    first = len(json.dumps(rows(1)[0])) + 1  # written by rename, with the file
    assert counted.written == size - first
    assert counted.parsed == 2 * (size - count)  # by the run and by the last reader


def test_a_resume_drops_what_came_after_its_checkpoint(tmp_path: Path) -> None:
    path, module = tmp_path / "history.jsonl", SimpleNamespace(history=rows(3))
    write_history(path, rows(5))
    reader, callback = HistoryFile(path, ""), History(path)
    assert reader.read() == rows(5)
    trainer: Any = SimpleNamespace(is_global_zero=True, state=SimpleNamespace(fn=TrainerFn.FITTING))
    callback.on_load_checkpoint(trainer, module, {"history": rows(3)})  # type: ignore[arg-type]
    assert reader.read() == rows(3)
    validate(callback, module, other := {**rows(4)[-1], "exact_match": 0.5})
    assert reader.read() == [*rows(3), other]
    callback.on_load_checkpoint(trainer, module, {"history": []})  # type: ignore[arg-type]
    assert reader.read() == [] and not path.exists()


def test_a_new_run_does_not_append_to_what_another_has_left(tmp_path: Path) -> None:
    path, module = tmp_path / "history.jsonl", SimpleNamespace(history=[])
    write_history(path, rows(5))
    validate(History(path), module, rows(1)[0])
    assert HistoryFile(path, "").read() == rows(1)


def test_a_killed_writer_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, rows(2))
    whole = path.read_bytes()
    line = json.dumps(rows(3)[-1]).encode() + b"\n"
    for cut in range(len(line)):
        reader = HistoryFile(path, "")
        path.write_bytes(whole + line[:cut])
        assert reader.read() == rows(2)
        path.write_bytes(whole + line)
        assert reader.read() == rows(3)


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "history.jsonl"
    write_history(path, rows(1))
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(space, "PATIENCE", 0.0)
        patch.setattr(os, "write", lambda file, content: write(file, content[:7]))
        with pytest.raises(OSError, match="No space left") as caught:
            append_to_history(path, rows(2)[-1])
    assert caught.value.errno == errno.ENOSPC
    append_to_history(path, rows(2)[-1])
    assert HistoryFile(path, "").read() == rows(2)
    with pytest.raises(FileNotFoundError):
        append_text(tmp_path / "no such file", "")


def test_a_file_written_anew_in_the_place_of_the_old_one_is_read_anew(tmp_path: Path) -> None:
    """A file system may give a new file the number of one that is gone."""
    path = tmp_path / "history.jsonl"
    write_history(path, rows(2))
    reader = HistoryFile(path, "")
    assert reader.read() == rows(2)
    others = [{**row, "exact_match": 0.75} for row in rows(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in others))
    assert reader.read() == others


def test_the_history_of_an_earlier_version(tmp_path: Path) -> None:
    run = FitProcess(small_sweep().base, RunDirectory(tmp_path))
    earlier = tmp_path / "history.json"
    earlier.write_text(json.dumps({"history": rows(2)}))
    assert run.history == rows(2) and run.flops_spent == 2e6
    write_history(run.directory.history, rows(3))  # it is resumed
    assert run.history == rows(3) and not earlier.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (b'{"step": 1', "it holds no whole line"),
        (b'{"step": 1, "exact_match": 0, "cost/train_flops": 1}\nx\n', "line 2: "),
        (b'{"step": 1}\n', "it lacks cost/train_flops"),
        (b"\xff\xfe\n", "line 1: "),
    ],
)
def test_damage_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "history.jsonl"
    path.write_bytes(content)
    reader = HistoryFile(path, "remove it")
    for _ in range(2):
        with pytest.raises(DamagedFile) as caught:
            reader.read()
        assert f"{path} is damaged ({reason}" in str(caught.value) and "; remove it" in str(caught.value)


def test_the_last_whole_line_is_found_from_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sleep_lightning.runs.files.BLOCK", 4)
    file = tmp_path / "lines"
    for content in (b"", b"\n", b"a", b"abcdefgh", b"ab\nabcdefgh", b"ab\nabcdefgh\n", b"abc\n", b"abcd\n", b"\nabc"):
        file.write_bytes(content)
        with file.open("rb") as opened:
            assert end_of_lines(opened) == content.rfind(b"\n") + 1, content
