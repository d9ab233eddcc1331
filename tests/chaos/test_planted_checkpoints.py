"""Checkpoints that carry code, of every kind that a pickle can: refused in one sentence, and nothing of them runs."""

import builtins
import codecs
import importlib
import operator
import os
import pickle
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.runs.checkpoint import load_checkpoint
from sleep_lightning.training.module import SleepModule
from tests.chaos.conftest import Figures


class Reduces:
    """Pickled as the call of a function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any, state: Any = None) -> None:
        self._call = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self) -> Any:
        return self._call


class Sets(dict[str, Any]):
    """With a state that code would set."""

    def __setstate__(self, state: Any) -> None:
        os.mkdir(state)


def planted(folder: str) -> dict[str, Any]:
    """What makes a folder as soon as it is loaded, by kind."""
    code = f"import os; os.mkdir({folder!r})"
    return {
        "os.mkdir": Reduces(os.mkdir, folder),
        "os.system": Reduces(os.system, f"mkdir {folder}"),
        "eval": Reduces(builtins.eval, f"__import__('os').mkdir({folder!r})"),
        "exec": Reduces(builtins.exec, code),
        "Popen": Reduces(subprocess.Popen, ["mkdir", folder]),
        "import": Reduces(importlib.import_module, "antigravity"),
        "methodcaller": Reduces(operator.methodcaller("mkdir"), Path(folder)),
        "map": Reduces(list, Reduces(map, os.mkdir, [folder])),
        "nested pickle": Reduces(pickle.loads, pickle.dumps(Reduces(os.mkdir, folder))),
        "codec": Reduces(codecs.decode, b"x", "rot13"),
        "setstate": Reduces(Sets, state=folder),
        "torch.load": Reduces(torch.load, folder),
        "torch.hub": Reduces(torch.hub.load, folder, "x"),
        "open": Reduces(builtins.open, f"{folder}.txt", "w"),
        "breakpoint": Reduces(builtins.breakpoint),
        "compile": Reduces(builtins.compile, code, "x", "exec"),
    }


def write(file: Path, bomb: Any, how: str) -> None:
    """A checkpoint with it: where a value is expected, or as the pickle of an archive or an old file."""
    if how == "bare":
        file.write_bytes(pickle.dumps(bomb))
    elif how == "legacy":
        torch.save({"experiment": {"x": bomb}, "state_dict": {}}, file, _use_new_zipfile_serialization=False)
    elif how == "archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x/data.pkl", pickle.dumps(bomb))
            archive.writestr("x/version", "3\n")
    else:
        content: dict[str, Any] = {"experiment": {}, "state_dict": {}}
        torch.save(content | {how: bomb}, file)


def test_no_code_of_a_checkpoint_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str], figures: Figures) -> None:
    refused = 0
    for name, bomb in planted(str(tmp_path / "ran")).items():
        for how in ("state_dict", "experiment", "optimizer_states", "archive", "bare", "legacy"):
            write(file := tmp_path / "planted.ckpt", bomb, how)
            with pytest.raises(ValueError, match=r"planted\.ckpt") as caught:
                load_checkpoint(file)
            assert "\n" not in str(caught.value) and "weights_only" not in str(caught.value), (name, how)
            with pytest.raises(Exception):  # noqa: B017  # Lightning's own way in
                SleepModule.load_from_checkpoint(file, weights_only=True)
            capsys.readouterr()
            assert main(["test", "--checkpoint", str(file)]) == 2
            assert capsys.readouterr().err.count("\n") == 1
            refused += 1
            assert [path.name for path in tmp_path.iterdir()] == ["planted.ckpt"], (name, how)
    figures(planted=refused, refused=refused, executed=0)
