"""A number of any size is read at once, or refused in one sentence: nothing is computed from it before."""

import dataclasses
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.help import task_config
from sleep_lightning.config import SECTIONS, WrongValue, load_experiment
from sleep_lightning.config.stages import sleep_of
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.sweep.launchers import RayOptions, SlurmOptions
from sleep_lightning.sweep.spec import Budget, SweepSpec, load_sweep
from sleep_lightning.tasks import TASKS
from tests.cli.cli import ROOT

NUMBERS = ("1000000000", str(2**63 - 2), str(10**30), "-1", "1e308", "-1e308", ".inf", ".nan")
MOST_SECONDS = 3.0


@contextmanager
def at_once() -> Iterator[None]:
    """By CPU time: other processes may take the cores."""

    def late(*_: object) -> None:
        raise TimeoutError(f"more than {MOST_SECONDS} s")

    before = signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, MOST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def numbers_of(config: Any) -> Iterator[tuple[str, bool, int | float | None]]:
    """Keys of a dataclass that hold numbers: name, whether a list of them, and the bound on whole ones."""
    for field in dataclasses.fields(config):
        kinds = set(_kinds(get_type_hints(config)[field.name]))
        if kinds & {int, float}:
            high = field.metadata.get("high")
            assert high is not None or int not in kinds, f"{config.__name__}.{field.name} has no bound"
            yield field.name, any(get_origin(kind) in (list, tuple) for kind in kinds), high


def _kinds(kind: Any) -> Iterator[Any]:
    yield kind
    for inner in get_args(kind):
        yield from _kinds(inner)


FILES = {name: ROOT / "conf" / f"{name}.yaml" for name in TASKS}
EXPERIMENT = [
    (FILES["rule110"], section, *number) for section, config in SECTIONS.items() for number in numbers_of(config)
] + [(FILES[name], "task", *number) for name in TASKS for number in numbers_of(task_config(name))]
SWEEP = [
    (section, *number)
    for section, config in (("", SweepSpec), ("budget.", Budget), ("slurm.", SlurmOptions), ("ray.", RayOptions))
    for number in numbers_of(config)
]
COMPARE = ["compare", str(FILES["rule110"]), "--arms"]
experiment_of = lru_cache(lambda file: load_experiment(file).to_dict())


@pytest.mark.long
@pytest.mark.parametrize(("file", "section", "key", "listed", "high"), EXPERIMENT, ids=str)
def test_a_number_of_any_size_is_read_at_once_or_refused(
    file: Path, section: str, key: str, listed: bool, high: int | None
) -> None:
    numbers = [*NUMBERS, *([] if high is None else [str(high)])]
    for text in [f"[1, {number}]" for number in numbers] if listed else numbers:
        _read_or_refused(load_experiment, experiment_of(file), [f"{section}.{key}={text}"])


@pytest.mark.long
@pytest.mark.parametrize(("section", "key", "listed", "high"), SWEEP, ids=str)
def test_so_are_those_of_a_sweep(tmp_path: Path, section: str, key: str, listed: bool, high: int | None) -> None:
    file = tmp_path / "s.yaml"
    file.write_text(f"name: s\nbase: {FILES['depo']}\nspace: {{sleep.n_passes: {{choices: [1, 2]}}}}\n")
    for number in [*NUMBERS, *([] if high is None else [str(high)])]:
        _read_or_refused(load_sweep, file, [f"{section}{key}={f'[{number}]' if listed else number}"])


def _read_or_refused(read: Callable[..., object], *arguments: object) -> None:
    said = "read: ="
    try:
        with at_once():
            read(*arguments)
    except ValueError as error:
        said = str(error)
    assert "=" in said and "\n" not in said and len(said) < 1000, said


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("training.threads=1000000000", "training.threads=1000000000 must be at most 4096"),
        ("model.d_model=9223372036854775806", "model.d_model=9223372036854775806 must be at most 131072"),
        ("sleep.n_passes=1000000000000", "sleep.n_passes=1000000000000 must be at most 4096"),
        ("training.stages=[{steps: 9223372036854775806}]", "training.stages[0].steps=9223372036854775806 must be at"),
    ],
)
def test_what_is_too_much_for_any_machine_ends_in_one_sentence(
    capsys: pytest.CaptureFixture[str], argument: str, message: str
) -> None:
    assert main(["fit", "--config", str(FILES["rule110"]), argument]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_the_bounds_of_a_task_hold_where_it_is_named_by_its_class() -> None:
    task = {"class_path": "sleep_lightning.tasks.depo.DepoConfig", "init_args": {"name_lengths": [1, 10**15]}}
    with at_once(), pytest.raises(WrongValue, match=r"^task\.init_args\.name_lengths\[1\]=1\d+ must be at most 64$"):
        load_experiment({"task": task})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["compare", str(FILES["rule110"]), "--arms", "n1", "--jobs", "1000000000"],
            "--jobs 1000000000 must be from 1",
        ),
        (["compare", str(FILES["rule110"]), "--arms", "n1", "--test-passes", "1000000000"], "from 1 to 4096"),
        (["compare", str(FILES["rule110"]), "--arms", "n1000000000"], "sleep.n_passes=1000000000 must be at most 4096"),
        (["predict", "--checkpoint", "none", "--rows", "1000000000000"], "--rows 1000000000000 must be from 1 to"),
        (["bench", "--seconds", "1e308"], "--seconds 1e+308 must be a number above 0, at most 1000000"),
        (["reproduce", "--seconds", "nan"], "--seconds nan must be a number above 0, at most 1000000"),
    ],
)
def test_options_have_bounds_too(capsys: pytest.CaptureFixture[str], words: list[str], message: str) -> None:
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1


def test_a_grid_is_not_listed_before_it_was_counted(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    space = "{training.log_every: {low: 1, high: 1000000000000}}"
    file.write_text(f"name: s\nbase: {FILES['depo']}\nsampler: grid\nspace: {space}\n")
    with at_once(), pytest.raises(ValueError, match=r"log_every: sampler=grid would list 1000000000000 points, and"):
        load_sweep(file)


def test_the_flops_of_a_run_are_counted_by_its_stages() -> None:
    e = load_experiment(FILES["depo"], ["training.stages=[{steps: 3, eviction: sliding}, {steps: 2}]"])
    short = replace(e, training=replace(e.training, max_steps=8))
    flops = StepFlops(short, short.build_model())
    assert flops.run() == sum(flops(sleep_of(short, step)) for step in range(8))
    endless = replace(e, training=replace(e.training, max_steps=2**53))
    with at_once():
        assert StepFlops(endless, short.build_model()).run() > 2**53


@pytest.mark.parametrize("stages", ["[]", "[{steps: 3, eviction: sliding}, {steps: 2, n_passes: 1}]"])
def test_the_flops_of_an_endless_run_with_sampled_passes(monkeypatch: pytest.MonkeyPatch, stages: str) -> None:
    changes = ["training.sampled_passes=[1, 2, 4, 4]", "sleep.grad_passes=2", f"training.stages={stages}"]
    e = load_experiment(FILES["depo"], [*changes, "training.max_steps=40"])
    flops = StepFlops(e, e.build_model())
    walked = sum(flops(sleep_of(e, step)) for step in range(40))
    assert flops.run() == walked
    endless = replace(e, training=replace(e.training, max_steps=2**53))
    each = [flops(replace(e.sleep, n_passes=N, grad_passes=min(2, N))) for N in (1, 2, 4, 4)]
    with at_once():
        assert StepFlops(endless, e.build_model()).run() == pytest.approx(2**53 * sum(each) / 4, rel=1e-9)
    monkeypatch.setattr("sleep_lightning.cost.run_flops.DRAWN", 30)
    shortened = StepFlops(e, e.build_model()).run()
    assert shortened != walked and shortened == pytest.approx(walked, rel=0.2)
