"""``init_args`` that a class annotates as text or a path are what was typed, for every kind of plug-in."""

from pathlib import Path

import pytest

from sleep_lightning.compare.arms import build_arms
from sleep_lightning.config import Override, load_experiment
from sleep_lightning.sweep.spec import load_sweep
from tests.config.user import project as project

MINE = """
from __future__ import annotations
import torch
import lightning.pytorch as pl
from lightning.pytorch.loggers import CSVLogger
from pathlib import Path
from lab.rules import Cautious
from lab.tasks import Reverse
TYPE_CHECKING = False
if TYPE_CHECKING:
    from elsewhere import Unknown

class Named(torch.optim.SGD):
    def __init__(self, params, name: str = "", *, note: str | None = None, file: str | Path = ".", plain="",
                 count: int = 0, many: list[str] = (), by: dict[str, str] = {}, odd: Unknown | None = None):
        super().__init__(params, 0.1)

def scheduled(optimizer, name: str): ...

class Told(pl.Callback):
    def __init__(self, name: str | None, count: int = 0): ...

class Rule(Cautious):
    def __init__(self, *args, name: str = "", **kwargs): ...

class Task(Reverse):
    def __init__(self, length: int, file: str | Path | None = None, by: dict[str, str] = {}):
        super().__init__(length)
"""
OPTIMIZER = "training.optimizer.init_args"


@pytest.fixture
def mine(project: Path) -> Path:
    (project / "mine.py").write_text(MINE)
    text = (project / "reverse.yaml").read_text()
    text = text.replace("{class_path: lab.training.SignSGD, init_args: {lr: 1.0e-3}}", "mine.Named")
    file = project / "mine.yaml"
    file.write_text(text)
    return file


def optimizer_args(file: Path, *overrides: Override) -> dict[str, object]:
    return dict(load_experiment(file, overrides).training.optimizer["init_args"])


def test_dotted_changes_keep_what_was_typed(mine: Path) -> None:
    names = ("name=007", "note=no", "file=20250102_030405", "plain=007", "count=010", "by.x=1e3", "many=[007, no]")
    args = optimizer_args(mine, *(f"{OPTIMIZER}.{one}" for one in names))
    assert args == {"name": "007", "note": "no", "file": "20250102_030405", "plain": 7, "count": 10, "by": {"x": "1e3"},
                    "many": ["007", "no"]}  # fmt: skip
    assert optimizer_args(mine, f"{OPTIMIZER}.note=null", f"{OPTIMIZER}.name=null") == {"note": None, "name": "null"}
    assert optimizer_args(mine, f"{OPTIMIZER}.name=a: b", f"{OPTIMIZER}.by.x=[") == {"name": "a: b", "by": {"x": "["}}
    whole = optimizer_args(mine, f"{OPTIMIZER}={{name: 007, by: {{x: 1, y: 2}}}}", f"{OPTIMIZER}.by.y=03")
    assert whole == {"name": "007", "by": {"x": "1", "y": "03"}}
    with pytest.raises(ValueError, match=r"^training\.optimizer\.init_args\.count=\[ cannot be read: .*quote"):
        optimizer_args(mine, f"{OPTIMIZER}.count=[")


def test_all_kinds_keep_it_in_a_yaml_and_as_an_argument(mine: Path) -> None:
    text = mine.read_text().replace("mine.Named", "{class_path: mine.Named, init_args: {name: 007, by: {x: no}}}")
    text = text.replace("lab.training.halving, init_args: {every: 2}", "mine.scheduled, init_args: {name: 1e3}")
    text = text.replace("lab.training.WriteSteps, init_args: {file: steps.txt}", "mine.Told, init_args: {name: yes}")
    text = text.replace("lab.rules.Cautious, init_args: {bound: 0.9}", "mine.Rule, init_args: {name: 0x10}")
    text = text.replace("lab.tasks.Reverse\n  init_args: {length: 6}", "mine.Task\n  init_args: {length: 6, file: 08}")
    mine.write_text(text + "  loggers: [{class_path: csv, init_args: {save_dir: 20250102, name: 010}}]\n")
    e = load_experiment(mine, ["training.optimizer.init_args.note=~", "task.init_args.by.x=007"])
    for one in (e, load_experiment(e.to_dict()), load_experiment(e.to_dict(), ["training.max_steps=5"])):
        assert one.training.optimizer["init_args"] == {"name": "007", "by": {"x": "no"}, "note": "~"}
        assert one.training.schedule["init_args"] == {"name": "1e3"}
        assert one.training.callbacks[0]["init_args"] == {"name": "yes"}
        assert one.tracking.loggers[0]["init_args"] == {"save_dir": "20250102", "name": "010"}
        assert one.model.memory_rules["X"]["init_args"] == {"name": "0x10"}  # type: ignore[union-attr]
        assert one.to_dict()["task"]["init_args"] == {"length": 6, "file": "08", "by": {"x": "007"}}
    mine.write_text(e.to_yaml())
    assert load_experiment(mine) == e, "what a child is given"
    listed = load_experiment(e.to_dict(), ["training.callbacks=[{class_path: mine.Told, init_args: {name: 007}}]"])
    assert listed.training.callbacks[0]["init_args"] == {"name": "007"}
    other = load_experiment(e.to_dict(), ["model.memory_rules.X.init_args.name=no"])
    assert other.model.memory_rules["X"]["init_args"] == {"name": "no"}  # type: ignore[union-attr]


def test_arms_and_sweeps_keep_it(mine: Path) -> None:
    base = load_experiment(mine)
    (arm,) = build_arms(base, [f"a:{OPTIMIZER}.name=007;training.muon_lr=0.1"])
    assert arm.apply(base).training.optimizer["init_args"] == {"name": "007"}
    (mine.parent / "sweep.yaml").write_text(
        f"name: typed\nbase: mine.yaml\nsampler: random\noverrides: ['{OPTIMIZER}.note=no']\n"
        f"space: {{{OPTIMIZER}.name: {{choices: [007, 010]}}}}\n"
    )
    sweep = load_sweep(mine.parent / "sweep.yaml")
    assert sweep.space.parameters[f"{OPTIMIZER}.name"].choices == ["007", "010"]
    point = sweep.experiment({f"{OPTIMIZER}.name": "010"})
    assert point.training.optimizer["init_args"] == {"note": "no", "name": "010"}
