"""What a YAML names by class_path: found, checked, changed key by key, and refused in one sentence."""

import re
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.config.plugin_task import PluginTask
from sleep_lightning.config.plugins import load_plugin, resolve
from sleep_lightning.config.search_path import import_from
from sleep_lightning.model import HybridLM
from sleep_lightning.tasks import Rule110Config
from tests.config.user import project as project


def test_all_kinds_are_resolved_beside_the_yaml_and_survive_a_round_trip(project: Path) -> None:
    e = load_experiment(project / "reverse.yaml")
    assert isinstance(e.task, PluginTask) and e.task.name == "reverse" and e.sleep.window_size == 6
    assert e.training.search_path == [str(project)]
    again = load_experiment(e.to_dict())
    assert again == e and load_experiment(None, ["task.ring_size=24"]).training.search_path == []
    model = e.build_model()
    assert isinstance(model, HybridLM) and [type(m).__name__ for m in model.memory_layers] == ["Cautious"]
    assert [rule.name for rule in e.memory_rules] == ["gated_delta_rule"]
    task = e.task.build()
    assert task is e.task.build() and task.batch(4, seed=0, position=0).tokens.shape == (4, 12)


def test_keys_of_plugins_are_changed_one_by_one_and_seen_by_interpolation(project: Path) -> None:
    overrides = ["task.init_args.length=8", "training.optimizer.init_args.lr=0.1"]
    e = load_experiment(project / "reverse.yaml", [*overrides, "model.memory_rules.X.init_args.bound=0.25"])
    assert e.task.build().context_length == e.sleep.window_size == 8
    assert e.training.optimizer == {"class_path": "lab.training.SignSGD", "init_args": {"lr": 0.1}}
    assert e.model.memory_rules["X"]["init_args"] == {"bound": 0.25}  # type: ignore[union-attr]
    assert e.flat()["task.init_args.length"] == 8 and e.flat()["training.optimizer.init_args.lr"] == 0.1
    other = load_experiment(e.to_dict(), ["training.optimizer.class_path=torch.optim.SGD"])
    assert other.training.optimizer == {"class_path": "torch.optim.SGD", "init_args": {}}, "those are of another class"
    shipped = load_experiment(e.to_dict(), ["training.optimizer=muon_adamw", "training.callbacks=[]"])
    assert shipped.training.optimizer == "muon_adamw"
    changed = load_experiment(
        None, ["training.callbacks=[{class_path: lab.training.WriteSteps, init_args: {file: x}}]"]
    )
    assert changed.training.callbacks[0]["init_args"] == {"file": "x"}


def test_a_config_dataclass_is_checked_like_the_packages_own(project: Path) -> None:
    e = load_experiment(project / "linear.yaml", ["task.init_args.symbols=4"])
    assert e.to_dict()["task"] == {
        "class_path": "lab.tasks.ReverseConfig",
        "init_args": {"name": "reverse", "length": 6, "symbols": 4},
    }
    assert load_experiment(e.to_dict()) == e
    assert type(e.build_model()).__name__ == "LinearLM" and list(e.stack.writers()) == [0, 1]
    shipped = load_experiment(e.to_dict(), ["task.name=rule110", "sleep.window_size=24"])
    assert isinstance(shipped.task, Rule110Config)


def test_a_task_made_in_a_script_is_written_by_its_class_path(project: Path) -> None:
    import_from("lab.tasks", [project], "test")
    import lab.tasks  # type: ignore[import-not-found]

    e = load_experiment(project / "linear.yaml")
    direct = type(e)(lab.tasks.ReverseConfig(length=6), e.model, e.sleep)
    assert direct.to_dict()["task"]["class_path"] == "lab.tasks.ReverseConfig"
    assert load_experiment(direct.to_dict()).task.name == "reverse"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task.class_path=lob.Reverse"],
         r"^task\.class_path='lob\.Reverse': there is no module 'lob' on sys\.path or in "
         r"\S+elsewhere, \S+project; .*training\.search_path$"),
        (["task.class_path=lab.task.Reverse"], r"'lab\.task\.Reverse': there is no module 'lab\.task' in \S+project"),
        (["task.class_path=lab.tasks.Revers"], r"lab/tasks\.py has no 'Revers'; did you mean Reverse\?$"),
        (["task.class_path=lab.models.LinearLM"],
         r"^task\.class_path='lab\.models\.LinearLM' has no method 'sample'; "),
        (["task.class_path=lab.training.halving"], r"is a function; name a class$"),
        (["task.init_args.lenght=3"],
         r"^task\.init_args\.lenght=3: there is no key .* did you mean task\.init_args\.length"),
        (["task.init_args.words=3"],
         r"there is no key 'task\.init_args\.words'; lab\.tasks\.Reverse takes length, symbols$"),
        (["task.init_args.length=a"], r"^task\.init_args\.length=a must be a whole number"),
        (["task.init_args.length=1", "sleep.window_size=2"],
         r"^task\.class_path='lab\.tasks\.Reverse': length=1 must be"),
        (["training.optimizer.class_path=lab.training.WriteSteps"], r"does not inherit from torch\.optim\.Optimizer"),
        (["training.optimizer.init_args.rate=1"], r"^training\.optimizer\.init_args\.rate=1: .*takes lr, momentum$"),
        (["training.optimizer=muon_adam"],
         r"^training\.optimizer='muon_adam' is unknown; did you mean muon_adamw\?$"),
        (["training.optimizer=[1]"], r"^training\.optimizer=\[1\] is not a registered name, or \{class_path: "),
        (["training.optimizer={class_path: torch.optim.SGD, init_args: {1: 2}}"],
         r"^training\.optimizer\.init_args must be a mapping of names to values: training\.optimizer is a registered "),
        (["training.optimizer={class_path: torch.optim.SGD, init_arg: {lr: 0.1}}"],
         r"^training\.optimizer\.init_arg: there is no such key; did you mean training\.optimizer\.init_args\?$"),
        (["training.optimizer.init_arg={lr: 0.1}"],
         r"^training\.optimizer\.init_arg: there is no such key; did you mean training\.optimizer\.init_args\?$"),
        (["training.callbacks=[{clas_path: x, init_args: {a: 1}}]"],
         r"^training\.callbacks\[0\]\.clas_path='x': .*; did you mean training\.callbacks\[0\]\.class_path\?$"),
        (["training.callbacks=[{init_args: {a: 1}}]"], r"^training\.callbacks\[0\] has no class_path: it must be"),
        (["task.init_arg={length: 3}"],
         r"^task\.init_arg: there is no such key; did you mean task\.init_args\?$"),
        (["task.init_args.lenght={a: 1}"],
         r"^task\.init_args\.lenght: there is no such key; did you mean task\.init_args\.length\?$"),
        (["training.optimizer.init_args.lrr={a: 1}"],
         r"^training\.optimizer\.init_args\.lrr: there is no such key; did you mean training\.optimizer\.init_args\."),
        (["task.class_path=rule110"],
         r"^task\.class_path='rule110' is the registered name of a task, .*; write task\.name=rule110$"),
        (["training.optimizer.lr=1"],
         r"there is no key 'training\.optimizer\.lr'; use training\.optimizer\.class_path or"),
        (["training.schedule.init_args={}"],
         r"^training\.schedule\.class_path='lab\.training\.halving' needs .*every"),
        (["training.schedule=torch.optim.lr_scheduler.ReduceLROnPlateau"], r"steps by a metric"),
        (["training.callbacks=[early_stopping]"],
         r"^training\.callbacks\[0\]='early_stopping' needs .*monitor; give"),
        (["training.callbacks=[lab.training.SignSGD]"], r"does not inherit from lightning\.pytorch\.callbacks"),
        (["tracking.loggers=[mlfow]"], r"^tracking\.loggers\[0\]='mlfow' is unknown; did you mean mlflow\?$"),
        (["tracking.loggers=[lab.training.WriteSteps]"], r"does not inherit from lightning\.pytorch\.loggers"),
        (["model.pattern=AY"],
         r"^model\.pattern='AY' must be one or more of the letters A, G, H, D, J, X; try AGAG$"),
        (["model.memory_rules={A: lab.rules.Cautious}"],
         r"^model\.memory_rules\.A: a rule needs one letter of its own"),
        (["model.memory_rules={X: lab.tasks.Reverse}"],
         r"^model\.memory_rules\.X='lab\.tasks\.Reverse' does not inherit"),
        (["model.class_path=lab.tasks.Reverse"], r"^model\.class_path='lab\.tasks\.Reverse' has no method 'embed'; "),
        (["model.class_path=lab.models.LinearLM", "model.pattern=AG"], r"there is no key 'model\.pattern'"),
        (["model.class_path=lab.models.LinearLM", "training.stages=[{steps: 1, train: memory}]"],
         r"^training\.train=memory .*LinearLM hold memory"),
        (["model.class_path=lab.models.LinearLM", "training.compile=true"], r"^training\.compile=true needs a model"),
        (["model.class_path=lab.models.LinearLM", "training.checkpointing=mlp"],
         r"^training\.checkpointing=mlp needs"),
        (["model.class_path=lab.models.LinearLM", "model.init_args.depth=[]"],
         r"^model\.init_args\.depth=\[\] must be a whole number"),
        (["training.callbacks=[{class_path: early_stopping, init_args: {monitor: [1]}}]"],
         r"^training\.callbacks\[0\]\.init_args\.monitor=\[1\] must be text$"),
        (["training.callbacks=[{class_path: model_checkpoint, init_args: {dirpath: [1]}}]"],
         r"^training\.callbacks\[0\]\.init_args\.dirpath=\[1\] must be text or a path or null$"),
        (["training.optimizer={class_path: torch.optim.AdamW, init_args: {betas: 3}}"],
         r"^training\.optimizer\.init_args\.betas=3 must be a list, each item a number or Tensor$"),
        (["tracking.loggers=[{class_path: csv, init_args: {flush_logs_every_n_steps: x}}]"],
         r"^tracking\.loggers\[0\]\.init_args\.flush_logs_every_n_steps='?x'? must be a whole number$"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_exit_code_2(
    project: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["config", "--config", str(project / "reverse.yaml"), *arguments]) == 2
    out, error = capsys.readouterr()
    assert not out and error.startswith("error: ") and error.count("\n") == 1
    assert re.search(message, error.removeprefix("error: ").strip()), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("1 / 0",
         r"importing mine failed: ZeroDivisionError: division by zero \(mine\.py, line 1\); fix that module"),
        ("import no_such_thing", r"importing mine failed: ModuleNotFoundError: No module named 'no_such_thing'"),
        ("def f(:", r"importing mine failed: SyntaxError: .*line 1"),
        ("Broken = 3", r"is a int; name a class"),
        ("class Broken:\n def __init__(self): 1 / 0\n def sample(self): 1\n def batch(self): 1",
         r"^task\.class_path='mine\.Broken' cannot be built: ZeroDivisionError: division by zero \(mine\.py, line 2\)"),
        ("class Broken:\n def sample(self): 1\n def batch(self): 1",
         r"does not set vocab; every task sets it in __init__"),
        ("from sleep_lightning.tasks import Task\nclass Broken(Task): pass", r"has no method 'sample'; inherit from"),
        ("from dataclasses import dataclass\n@dataclass\nclass Broken:\n x: set = None\n def build(self): 1",
         r"^task\.class_path='mine\.Broken': field x: .*; use plain types"),
        ("from dataclasses import dataclass\n@dataclass\nclass Broken:\n x: int\n name: str = 'b'\n def build(self): 1",
         r"needs task\.init_args\.x; give it a value"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_users_module_is_told_with_its_line(project: Path, content: str, message: str) -> None:
    (project / "mine.py").write_text(content + "\n")
    with pytest.raises(ValueError, match=message) as caught:
        load_experiment(project / "reverse.yaml", ["task.class_path=mine.Broken", "sleep.window_size=8"])
    assert "\n" not in str(caught.value)


def test_entry_points_are_loaded_only_for_the_name_that_is_asked(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = {
        "sleep_lightning.tasks": {
            "reverse": "lab.tasks:ReverseConfig",
            "plain": "lab.tasks:Reverse",
            "bad": "gone:X",
        },
        "sleep_lightning.optimizers": {"sign": "lab.training:SignSGD"},
    }
    points = EntryPoints(EntryPoint(n, v, g) for g, names in groups.items() for n, v in names.items())
    monkeypatch.setattr("sleep_lightning.config.plugins.entry_points", lambda **by: points.select(**by))
    import_from("lab", [project], "test")
    common = ["sleep.window_size=8", "training.optimizer=sign", "training.optimizer.init_args.lr=1"]
    e = load_experiment(None, ["task.name=reverse", "task.length=8", *common])
    assert e.to_dict()["task"] == {"name": "reverse", "length": 8, "symbols": 6}
    assert load_experiment(e.to_dict()) == e
    plain = load_experiment(None, ["task.name=plain", *common])
    assert plain.to_dict()["task"] == {"class_path": "plain", "init_args": {"length": 8, "symbols": 6}}
    assert load_experiment(plain.to_dict()) == plain
    with pytest.raises(ValueError, match=r"^task\.name='revers' is unknown; did you mean reverse\?"):
        load_experiment(None, ["task.name=revers"])
    with pytest.raises(ValueError, match=r"^task\.name='bad': there is no module 'gone'"):
        load_experiment(None, ["task.name=bad"])


def test_what_is_offered_is_given_where_it_is_taken() -> None:
    key = "tracking.loggers[0]"
    logger = resolve("logger", "csv", key=key, save_dir="here", name="run", uri="not taken")
    assert (logger._save_dir if hasattr(logger, "_save_dir") else logger.save_dir).endswith("here")
    own = {"class_path": "csv", "init_args": {"save_dir": "there"}}
    assert resolve("logger", own, key=key, save_dir="here").save_dir == "there"
    assert load_plugin("logger", "csv", key).needs() == []
