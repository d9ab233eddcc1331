from dataclasses import replace
from pathlib import Path

import optuna
import pytest
import yaml

from sleep_lightning.config import load_experiment
from sleep_lightning.config.training import Stage
from sleep_lightning.cost.run_flops import predict_flops
from sleep_lightning.sweep.point import ARM, TRAIN_FLOPS, passes_of
from sleep_lightning.sweep.space import Parameter, Space
from sleep_lightning.sweep.space import written as as_text
from sleep_lightning.sweep.spec import Sweep, SweepSpec, load_sweep
from tests.cli.cli import ROOT

SWEEPS = sorted((ROOT / "sweeps").glob("*.yaml"))
PLAIN = f"name: s\nbase: {ROOT}/conf/depo.yaml\nspace:\n  sleep.n_passes: {{choices: [1, 2]}}\n"


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    return file


@pytest.mark.long
@pytest.mark.parametrize(
    "path",
    [pytest.param(p, marks=pytest.mark.slow) if p.stem.startswith("paper") else p for p in SWEEPS],
    ids=lambda p: p.stem,
)
def test_every_shipped_sweep_is_valid_and_its_points_build(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = path.parent / yaml.safe_load(path.read_text())["base"]
    if "pretrained:" in base.read_text():
        monkeypatch.chdir(request.getfixturevalue("configs"))
    sweep = load_sweep(path)
    assert sweep.spec.name == path.stem
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    built = 0
    for _ in range(8):
        values = sweep.space.suggest(study.ask())
        try:
            experiment = sweep.experiment(values)
        except ValueError:  # values that do not go together
            continue
        built += 1
        assert experiment.sleep.n_passes == passes_of(sweep.base, values)
        if path.stem.endswith("depth_cost"):
            from_here = (2, 3, 4, 5, 6)[path.stem[0] == "d" :]
            assert ("sleep.grad_passes" in values) == (values["sleep.n_passes"] in from_here)
    assert built >= 4


def test_an_arm_changes_the_point_it_is_part_of() -> None:
    space = Space(
        {"training.max_steps": Parameter([100, 200]), ARM: Parameter(["n1", "n2", "more-tokens", "re-embed"])}
    )
    spec = SweepSpec("arms", "-", space.parameters)
    sweep = Sweep(spec, space, load_experiment(ROOT / "conf" / "depo.yaml"))
    plain = sweep.experiment({"training.max_steps": 200, ARM: "n1"}, "training.seed=3")
    assert (plain.sleep.n_passes, plain.training.max_steps, plain.training.seed) == (1, 200, 3)
    longer = sweep.experiment({"training.max_steps": 200, ARM: "more-tokens"}, "training.seed=3")
    four = predict_flops(sweep.experiment({"training.max_steps": 200, ARM: "n4"}))
    assert predict_flops(longer) == pytest.approx(four, rel=0.005) and longer.training.max_steps > 300
    assert (longer.sleep.n_passes, longer.training.seed) == (1, 3)
    again = sweep.experiment({ARM: "re-embed"})
    assert (again.sleep.pass_input, again.sleep.n_passes) == ("embed", 4)
    assert [passes_of(sweep.base, {ARM: name}) for name in ("n1", "n2", "re-embed")] == [1, 2, 4]
    assert as_text({"training.max_steps": 200, ARM: "n1"}) == "max_steps=200, arm=n1"
    assert sweep.varying()["sleep.n_passes"] == [4]


def test_training_flops_become_the_steps_they_buy() -> None:
    base = load_experiment(ROOT / "conf" / "depo.yaml")
    four = predict_flops(base)
    space = Space(
        {TRAIN_FLOPS: Parameter([four, four / 8]), "sleep.n_passes": Parameter([1, 4]), ARM: Parameter(["n1"])}
    )
    sweep = Sweep(SweepSpec("budgets", "-", space.parameters), space, base)
    assert sweep.experiment({TRAIN_FLOPS: four}).training.max_steps == base.training.max_steps == 1200
    assert sweep.experiment({TRAIN_FLOPS: four / 8, "sleep.n_passes": 4}).training.max_steps == 150
    for n_passes in (1, 2, 3, 6):
        found = sweep.experiment({TRAIN_FLOPS: four, "sleep.n_passes": n_passes})
        step = predict_flops(found) / found.training.max_steps
        assert four - step < predict_flops(found) <= four
    assert sweep.experiment({TRAIN_FLOPS: four, ARM: "n1"}) == sweep.experiment(
        {TRAIN_FLOPS: four, "sleep.n_passes": 1}
    )
    staged = replace(base, training=replace(base.training, stages=[Stage(steps=100, n_passes=1)]))
    found = replace(sweep, base=staged).experiment({TRAIN_FLOPS: four})
    assert found.training.max_steps > 1200
    assert four - step < predict_flops(found) <= four
    with pytest.raises(ValueError, match=r"space.train_flops=1e\+06 buys no step; give at least \d"):
        sweep.experiment({TRAIN_FLOPS: 1e6})


@pytest.mark.parametrize("value", ["0", "-1e12", ".inf", ".nan", "true", "many", "null"])
def test_training_flops_of_a_space_are_numbers(value: str, tmp_path: Path) -> None:
    file = written(tmp_path, PLAIN + f"  train_flops: {{choices: [{value}]}}\n")
    with pytest.raises(ValueError, match=r"space\.train_flops"):
        load_sweep(file)


def test_what_varies_includes_the_value_a_condition_leaves(tmp_path: Path) -> None:
    space = "space: {sleep.n_passes: {low: 1, high: 4}, sleep.grad_passes: {choices: [1], when: {sleep.n_passes: [4]}}}"
    sweep = load_sweep(written(tmp_path, f"name: s\nbase: {ROOT}/conf/depo.yaml\n{space}\n"))
    assert sweep.varying() == {"sleep.n_passes": [1, 4], "sleep.grad_passes": [1, None]}


def test_choices_are_read_as_their_keys_read_them(tmp_path: Path) -> None:
    space = (
        "space: {tracking.experiment: {choices: [007, no, 'a #1']}, training.log_every: {low: 010, high: 12},"
        " sleep.n_passes: {choices: [010], when: {tracking.experiment: [no]}}}"
    )
    file = written(tmp_path, f"name: 007\nbase: {ROOT}/conf/depo.yaml\n{space}\nslurm: {{extra: [--account=007]}}\n")
    sweep = load_sweep(file, ["slurm.partition=007", "storage=sqlite:///a #1.db", "budget.trials=010"])
    parameters = sweep.space.parameters
    assert parameters["tracking.experiment"].choices == ["007", "no", "a #1"]
    assert (parameters["training.log_every"].low, parameters["sleep.n_passes"].choices) == (10, [10])
    assert parameters["sleep.n_passes"].when == {"tracking.experiment": ["no"]}
    assert sweep.experiment({"tracking.experiment": "no"}).tracking.experiment == "no"
    assert (sweep.spec.name, sweep.spec.slurm.partition, sweep.spec.budget.trials) == ("007", "007", 10)
    assert sweep.spec.storage == f"sqlite:///{Path.cwd()}/a %231.db"


def test_conditions_hold_in_any_order_of_keys() -> None:
    space = Space({"b": Parameter([1], when={"a": [2]}), "a": Parameter([1, 2])})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(30)]
    assert all(("b" in values) == (values["a"] == 2) for values in drawn)
    assert {len(values) for values in drawn} == {1, 2}


def test_ints_floats_logs_and_steps() -> None:
    space = Space({"i": Parameter(low=2, high=8, step=3), "f": Parameter(low=0.1, high=10.0, log=True)})
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = [space.suggest(study.ask()) for _ in range(200)]
    assert {values["i"] for values in drawn} == {2, 5, 8}
    assert all(0.1 <= values["f"] <= 10 for values in drawn)
    assert 70 < sum(values["f"] < 1 for values in drawn) < 130


def test_a_grid_lists_all_values() -> None:
    assert Space({"a": Parameter([1, "x"]), "b": Parameter(low=1, high=3)}).grid() == {"a": [1, "x"], "b": [1, 2, 3]}
    with pytest.raises(ValueError, match=r"space\.f: sampler=grid needs choices"):
        Space({"f": Parameter(low=0.1, high=1.0)}).grid()


def test_a_grid_has_each_point_once_where_keys_do_not_apply() -> None:
    rate = Parameter([0.01, 0.02], when={"n": [1]})  # listed before the key that it depends on
    space = Space({"rate": rate, "n": Parameter([1, 2]), "t": Parameter([3])})
    assert space.points() == [
        {"rate": 0.01, "n": 1, "t": 3},
        {"n": 2, "t": 3},
        {"rate": 0.02, "n": 1, "t": 3},
    ]


def test_bounds_on_what_is_known_before_step_0(tmp_path: Path) -> None:
    sweep = load_sweep(written(tmp_path, PLAIN + "constraints: {state_bytes: 20000, train_flops: 2e13}\n"))
    assert sweep.why_infeasible(sweep.experiment({"sleep.n_passes": 2}), 1e13) is None
    assert sweep.why_infeasible(sweep.experiment({}), 3e13) == "train_flops 30 TFLOP is above 20 TFLOP"
    wide = sweep.experiment({"model.expand_v": 2.0})
    assert sweep.why_infeasible(wide, 1e13) == "state_bytes 32.8 kB is above 20 kB"


def test_processes_may_vary_where_their_number_is_that_of_the_tasks(tmp_path: Path) -> None:
    text = "launcher: slurm\nslurm: {tasks: 4, nodes: 2}\noverrides: [training.num_nodes=2, training.batch_size=128]\n"
    text += f"name: s\nbase: {ROOT}/conf/depo.yaml\nspace: {{training.devices: {{choices: [1, 2]}}}}\n"
    sweep = load_sweep(written(tmp_path, text))
    assert sweep.experiment({"training.devices": 2}).training.processes == 4
    with pytest.raises(ValueError, match=r"do not start training\.devices=1 x training\.num_nodes=2 processes"):
        sweep.experiment({"training.devices": 1})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spices: {}\n", r"'spices': there is no such key; did you mean space\?$"),
        ("zzz: {}\n", r"'zzz': there is no such key; the keys are name, base"),
        ("objectives: {vloss: minimize}\n", r"objectives\.vloss is not a known metric; use one of exact_match"),
        ("objectives: {loss: down}\n", r"objectives\.loss='down' must be maximize or minimize"),
        ("constraints: {speed: 3}\n", r"constraints\.speed is not a known metric; use one of state_bytes"),
        ("sampler: best\n", r"sampler='best' must be one of tpe, nsga2, gp"),
        ("seeds: [0, 0]\n", r"seeds=\[0, 0\] must be different numbers"),
        ("budget: {trials: 0}\n", r"budget\.trials=0 must be at least 1"),
        ("budget: {hours: 0}\n", r"budget\.hours=0\.0 must be above 0"),
        ("workers: 0\n", r"workers=0 must be at least 1"),
        ("devices: [0, 0]\n", r"devices=\[0, 0\] must be different numbers from 0, or null"),
        ("devices: [-1]\n", r"devices=\[-1\] must be different numbers"),
        ("devices: []\n", r"devices=\[\] must be different numbers"),
        ("devices: [one]\n", r"devices\[0\]='one' must be a whole number$"),
        ("launcher: cloud\n", r"launcher='cloud' must be one of local, slurm, ray$"),
        ("launcher: slurm\ndevices: [0]\n", r"devices=\[0\] is for launcher: local"),
        ("slurm: {partitoin: gpu}\n", r"'slurm\.partitoin': there is no such key; did you mean slurm\.partition\?$"),
        ("slurm: {partition: 'a b'}\n", r"slurm\.partition='a b' is not a name of a partition"),
        ("slurm: {time_limit: 0}\n", r"slurm\.time_limit=0 must be at least 1"),
        ("slurm: {nodes: 2}\n", r"slurm\.tasks=1 leaves some of slurm\.nodes=2 idle"),
        ("slurm: {tasks: 3, nodes: 2}\n", r"slurm\.tasks=3 does not divide over slurm\.nodes=2; use a multiple of it"),
        (
            "launcher: slurm\nslurm: {tasks: 4, nodes: 2}\noverrides: [training.devices=4]\n",
            r"slurm\.nodes=2 with slurm\.tasks=4 do not start .*num_nodes=1 .*; set slurm\.nodes=1 and slurm\.tasks=4$",
        ),
        ("launcher: slurm\noverrides: [training.num_nodes=2]\n", r"slurm\.nodes=1 with slurm\.tasks=1 do not start"),
        ("slurm: {poll_seconds: 0}\n", r"slurm\.poll_seconds=0\.0 must be above 0"),
        ("slurm: {extra: [account=me]}\n", r"slurm\.extra: 'account=me' is not --key=value"),
        ('slurm: {extra: ["--account=me\\nrm"]}\n', r"slurm\.extra: .* is not --key=value"),
        ("slurm: {extra: [--time=3]}\n", r"slurm\.extra: '--time=3' is set by the sweep itself"),
        ('slurm: {setup: ["a\\nb"]}\n', r"slurm\.setup: 'a\\nb' is more than one line"),
        ("launcher: workers\n", r"launcher=workers was removed, with sweep work; set launcher: ray, slurm or local"),
        ("ray: {adress: auto}\n", r"'ray\.adress': there is no such key; did you mean ray\.address\?$"),
        ("ray: {address: 'ray://head:10001'}\n", r"ray\.address='ray://head:10001' is neither auto nor host:port"),
        ("ray: {num_cpus: -1}\n", r"ray\.num_cpus=-1\.0 must be at least 0"),
        ("ray: {num_gpus: 1.5}\n", r"ray\.num_gpus=1\.5 must be a whole number, or below 1"),
        ("ray: {resources: {GPU: 1}}\n", r"ray\.resources\.GPU=1\.0 is set by ray\.num_gpus; use that"),
        ("ray: {resources: {big: 0}}\n", r"ray\.resources\.big=0\.0 must be above 0"),
        ("launcher: ray\noverrides: [training.num_nodes=2]\n", r"launcher=ray trains a run on one node, not on"),
        ("launcher: ray\nray: {num_gpus: 1}\noverrides: [training.devices=2]\n", r"does not fit ray\.num_gpus=1; set"),
        ("overrides: [model.d_modle=3]\n", r"model\.d_modle=3: there is no key"),
        ("overrides: a=b\n", r"overrides='a=b' must be a list, each item text$"),
        ("objectives: [loss]\n", r"objectives=\['loss'\] must be a mapping$"),
        ("seeds: [4294967296]\n", r"seeds\[0\]=4294967296 must be from 0 to 4294967295$"),
        ("sampler_seed: 4294967296\n", r"sampler_seed=4294967296 must be from 0 to 2147483647$"),
        ("budget: {flops: .nan}\n", r"budget\.flops=nan must be a finite number$"),
        ("budget: {hours: .inf}\n", r"budget\.hours=inf must be a finite number$"),
        ("budget: 3\n", r"budget=3 must be a mapping of trials, flops, hours$"),
        ("constraints: {train_flops: .nan}\n", r"constraints\.train_flops=nan must be a finite number$"),
        ("ray: {num_cpus: .nan}\n", r"ray\.num_cpus=nan must be a finite number$"),
        ("slurm: {settle_seconds: .inf}\n", r"slurm\.settle_seconds=inf must be a finite number$"),
        ("workers: no\n", r"workers='no' must be a whole number$"),
    ],
)
def test_bad_specs_end_in_one_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_sweep(written(tmp_path, PLAIN + text))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ("{training.seed: {choices: [1, 2]}}", r"space\.training\.seed cannot vary: .*; list seeds in seeds$"),
        ("{training.run_dir: {choices: [a]}}", r"space\.training\.run_dir cannot vary: the sweep sets it itself"),
        ("{training.threads: {low: 1, high: 2}}", r"space\.training\.threads cannot vary: .*; set threads$"),
        ("{}", r"space is empty; let at least one key vary"),
        ("{sleep.n_pases: {choices: [1]}}", r"space\.sleep\.n_pases=1: there is no key .*did you mean sleep\.n_passes"),
        ("{model.d_model: {choices: [abc]}}", r"space\.model\.d_model=abc must be a whole number, such as"),
        ("{sleep.n_passes: {choices: []}}", r"space\.sleep\.n_passes: give choices \(at least one\)"),
        ("{sleep.n_passes: {low: 3, high: 1}}", r"space\.sleep\.n_passes: low=3 must be at most high=1"),
        ("{training.muon_lr: {low: .nan, high: 1}}", r"space\.training\.muon_lr\.low=nan must be a finite number"),
        ("{training.muon_lr: {low: 0, high: .inf}}", r"space\.training\.muon_lr\.high=inf must be a finite number"),
        ("{training.muon_lr: {low: 0.1, high: 1, step: 0}}", r"step=0\.0 must be above 0 and at most high - low"),
        ("{training.muon_lr: {choices: [.nan]}}", r"space\.training\.muon_lr\.choices\[0\]=nan must be a finite"),
        ("{training.muon_lr: {choices: 3}}", r"space\.training\.muon_lr\.choices=3 must be a list or null$"),
        (
            "{training.muon_lr: {lo: 3}}",
            r"'space\.training\.muon_lr\.lo': there is no such key; did you mean .*\.muon_lr\.low",
        ),
        (
            "{sleep.n_passes: {choices: [1, 2]}, sleep.grad_passes: {choices: [1], when: {sleep.n_passes: [3]}}}",
            r"space\.sleep\.grad_passes: when sleep\.n_passes=3 is never drawn: use some of \[1, 2\]$",
        ),
        (
            "{sleep.n_passes: {low: 1, high: 7, step: 2}, model.d_ff: {choices: [32], when: {sleep.n_passes: [4]}}}",
            r"when sleep\.n_passes=4 is never drawn: use values from 1 to 7$",
        ),
        (
            "{sleep.n_passes: {choices: [1, 2]}, sleep.grad_passes: {choices: [1], when: {sleep.n_passes: []}}}",
            r"when sleep\.n_passes=\[\] never holds: give it values, or drop it$",
        ),
        ("{sleep.n_passes: {low: 1}}", r"space\.sleep\.n_passes: low=1 and high=null must be numbers"),
        ("{sleep.n_passes: {choices: [0]}}", r"space\.sleep\.n_passes: no value can be used"),
        ("{arm: {choices: [n1, dream]}}", r"space\.arm 'dream' is unknown; use n1, n2"),
        ("{arm: {low: 1, high: 2}}", r"space\.arm must be choices of arms"),
        ("{arm: {choices: [n1, n1]}}", r"space\.arm n1 n1 names an arm twice"),
        ("{sleep.n_passes: {choices: [1], when: {a.b: [1]}}}", r"when names a\.b, which is not in the space"),
    ],
)
def test_bad_spaces_end_in_one_sentence(tmp_path: Path, space: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_sweep(written(tmp_path, f"name: s\nbase: {ROOT}/conf/depo.yaml\nspace: {space}\n"))


@pytest.mark.parametrize("name", ["''", ".", "..", "a/b", "/", '"a\\0b"', '"a\\nb"', "x" * 300, "\u00e9" * 150])
def test_a_sweep_has_the_name_of_a_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match=r": name='.*' cannot be the name of a folder; use 1 to 200 bytes") as caught:
        load_sweep(written(tmp_path, PLAIN.replace("name: s", f"name: {name}")))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_files_that_are_no_sweeps(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.yaml: No such file or directory; shipped sweeps are in sweeps/"):
        load_sweep(tmp_path / "none.yaml")
    with pytest.raises(ValueError, match=r"is not valid YAML"):
        load_sweep(written(tmp_path, "a: ["))
    with pytest.raises(ValueError, match=r"no keys in it"):
        load_sweep(written(tmp_path, "- 1\n"))
    with pytest.raises(ValueError, match=r"name is missing"):
        load_sweep(written(tmp_path, "base: x\n"))
    with pytest.raises(ValueError, match=r"sweep \S+: 'spaces': there is no such key; did you mean space\?$"):
        load_sweep(written(tmp_path, "name: x\nbase: x\nspaces: {}\n"))


@pytest.mark.parametrize("bounds", [{"low": -1.7e308, "high": 1.7e308}, {"low": 0.1, "high": 0.5, "step": 1e-320}])
def test_ranges_that_cannot_be_drawn_from_are_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"space\.k: low=.* is too wide; narrow it, or drop step"):
        Parameter(**bounds).distribution("k")


def test_keys_of_the_space_can_be_changed(tmp_path: Path) -> None:
    """They have dots."""
    text = (
        f"name: s\nbase: {ROOT}/conf/depo.yaml\n"
        "space: {sleep.n_passes: {choices: [1, 4]}, task.max_hops: {choices: [1], when: {sleep.n_passes: [4]}}}\n"
    )
    changes = [
        "space.sleep.n_passes.choices=[1, 2]",
        "space.task.max_hops.when.sleep.n_passes=[2]",
        "space.model.d_model.choices=[32]",
        "space.training.muon_lr={low: 0.01, high: 0.1}",
    ]
    found = load_sweep(written(tmp_path, text), changes).space.parameters
    assert list(found) == ["sleep.n_passes", "task.max_hops", "model.d_model", "training.muon_lr"]
    assert found["sleep.n_passes"].choices == [1, 2] and found["task.max_hops"].when == {"sleep.n_passes": [2]}
    assert found["model.d_model"].choices == [32] and found["training.muon_lr"].high == 0.1
    with pytest.raises(
        ValueError, match=r"'space\.sleep\.n_passes\.chioces': there is no such key; did you mean .*choices"
    ):
        load_sweep(written(tmp_path, text), ["space.sleep.n_passes.chioces=[1]"])


def test_a_saved_sweep_is_taken_as_it_stands(tmp_path: Path) -> None:
    """Its names and space may be refused today; changes of a resume are checked all the same."""
    space = (
        "{training.seed: {choices: [1, 2]}, task.max_hops: {choices: [1], when: {training.seed: [3]}},"
        " tracking.run_name: {choices: [7, 8]}, training.log_every: {low: 1, high: 1000000, step: 1}}"
    )
    text = f"name: {'x' * 300}\nbase: {ROOT}/conf/depo.yaml\nspace: {space}\n"
    with pytest.raises(ValueError, match=r"name='xxx.*cannot be the name of a folder"):
        load_sweep(written(tmp_path, text))
    sweep = load_sweep(written(tmp_path, text), saved=True)
    assert sweep.spec.name == "x" * 300
    assert sweep.space.parameters["tracking.run_name"].choices == [7, 8], "what its study was begun with"
    with pytest.raises(ValueError, match=r"workers=0 must be at least 1"):
        load_sweep(written(tmp_path, text), ["workers=0"], saved=True)
