"""The names a user imports: all there, documented, typed, and imported only when they are used."""

import ast
import inspect
import subprocess
import sys

import pytest

import sleep_lightning
from tests.cli.cli import ROOT, environment

NAMES = [name for name in sleep_lightning.__all__ if name != "__version__"]
HEAVY = ("torch", "lightning", "mlflow", "optuna", "omegaconf")


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_importable_and_documented(name: str) -> None:
    found = getattr(sleep_lightning, name)
    text = inspect.getdoc(found) or ""
    assert text
    assert not text.startswith(f"{name}("), "that is the signature dataclasses write, not a docstring"


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse((ROOT / "sleep_lightning" / "__init__.py").read_text())
    (guarded,) = [node for node in tree.body if isinstance(node, ast.If)]
    declared = {
        alias.name: (node.module or "").removeprefix("sleep_lightning.")
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert declared == sleep_lightning._ROOMS
    assert set(declared) == set(NAMES) <= set(dir(sleep_lightning))
    assert (ROOT / "sleep_lightning" / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'sleep_lightning' has no attribute 'SleepModel'"):
        _ = sleep_lightning.SleepModel


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import sleep_lightning", HEAVY),
        ("from sleep_lightning import HybridLM, Memory, ModelConfig, SleepConfig, gated_delta_rule", HEAVY[1:]),
        ("from sleep_lightning import Experiment, Task, TaskBatch, load_experiment", HEAVY[1:4]),
    ],
)
def test_names_import_no_more_than_their_rooms(code: str, absent: tuple[str, ...]) -> None:
    code += f"; import sys; print([m for m in {absent} if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
