"""A key that holds text takes what was typed; a number is one that can be computed with."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from sleep_lightning.__main__ import main
from sleep_lightning.config import Override, load_experiment
from sleep_lightning.config.references import HANDED_OVER
from sleep_lightning.runs.directory import RunDirectory
from sleep_lightning.runs.process import TRACKING, FitProcess

CONF = Path(__file__).parents[2] / "conf"
BASE = load_experiment(CONF / "rule110.yaml")
TYPED = (
    "20250102_030405", "007", "no", "1e3", "1:30", "~", "a #1", "a: b", "[x", "{a: b}", '"q"', "*a", "&a b", "!!int 3",
    "2020-01-01", " x ", "a\nb", "é", "%41", "-", "null ",
)  # fmt: skip
_NINE = (b"a%d: &a%d [%s]\n" % (i, i, b", ".join([b"*a%d" % (i - 1)] * 9)) for i in range(1, 9))
BOMB = b"a0: &a0 [x]\n" + b"".join(_NINE)
"""Aliases of aliases: 400 bytes, 9^8 values."""


def value_of(key: str, *overrides: Override) -> object:
    return load_experiment(CONF / "rule110.yaml", overrides).flat()[key]


@pytest.mark.parametrize("text", TYPED)
def test_text_is_what_was_typed(text: str) -> None:
    assert value_of("training.run_dir", f"training.run_dir={text}") == text
    assert value_of("tracking.experiment", f"tracking.experiment={text}") == text


def test_null_is_none_where_the_key_allows_it() -> None:
    assert value_of("training.run_dir", "training.run_dir=null") is None
    assert value_of("tracking.experiment", "tracking.experiment=null") == "null"
    assert value_of("tracking.run_name", 'tracking.run_name="null"') == '"null"'


def test_references_still_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHERE", "a #1 ${x}")
    assert load_experiment(BASE.to_dict(), ["training.run_dir=${oc.env:WHERE}"]).training.run_dir == "a #1 ${x}"


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("training.seed=010", 10),
        ("training.seed=0x10", 16),
        ("training.seed=1_000", 1000),
        ("training.time_limit=010", 10.0),
        ("training.muon_lr=1e-3", 1e-3),
        ("task.steps=[010, 2]", [10, 2]),
        ("training.search_path=[/a/007, /no]", ["/a/007", "/no"]),
        ("training.stages=[{steps: 010}]", [{"steps": 10, "train": "all", "eviction": None, "n_passes": None}]),
    ],
)
def test_numbers_are_decimal_and_words_in_lists_stay_words(argument: str, value: object) -> None:
    assert value_of(argument.partition("=")[0], argument) == value


def test_text_in_a_yaml_file_is_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(
        "training: {run_dir: 20250102_030405, seed: 010}\ntracking: {run_name: no, experiment: 1e3}\n"
        "sleep: {window_size: 24, grad_passes: null}\n"
    )
    e = load_experiment(file)
    assert (e.training.run_dir, e.training.seed) == ("20250102_030405", 10)
    assert (e.tracking.run_name, e.tracking.experiment, e.sleep.grad_passes) == ("no", "1e3", None)


@pytest.mark.parametrize(
    "text",
    [
        "tracking: {<<: {run_name: 007, experiment: yes}, experiment: no}\n",
        "tracking: {<<: [{run_name: 007}, {run_name: 8, experiment: no}]}\n",
        "tracking: &t {run_name: &n 007, parent_run_id: *n, experiment: no}\n",
    ],
)
def test_merged_and_repeated_text_is_what_was_written(tmp_path: Path, text: str) -> None:
    file = tmp_path / "e.yaml"
    file.write_text(text)
    e = load_experiment(file)
    assert (e.tracking.run_name, e.tracking.experiment) == ("007", "no")


@pytest.mark.parametrize("argument", ["tracking.run_name=???", "training.run_dir=???", "tracking.loggers=['???']"])
def test_the_mark_of_a_missing_value_is_refused_with_the_reason(argument: str) -> None:
    key = argument.partition("=")[0]
    with pytest.raises(ValueError, match=rf"^{key}=\?\?\? stands for a value that is still to be given; give it one"):
        load_experiment(BASE.to_dict(), [argument])


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(
        lambda text: "???" not in text and all(len(part.encode()) <= 255 for part in text.split("/"))
    )
)
@example("${x}")
@example("\\${x")
@example("a\\\\${oc.env:HOME}\\")
@example("a\x85\u2028\ufeff\r\n")
@pytest.mark.long
@pytest.mark.slow
def test_a_child_reads_the_experiment_it_was_given(tmp_path: Path, text: str) -> None:
    own = {"training.run_dir": text, "tracking.run_name": text, "tracking.experiment": text}
    experiment = load_experiment(BASE.to_dict(), list(own.items()))
    assert [experiment.training.run_dir, experiment.tracking.run_name, experiment.tracking.experiment] == [text] * 3
    run = FitProcess(experiment, RunDirectory(tmp_path / "run"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HANDED_OVER, experiment.tracking.uri)
        assert load_experiment(run.write_experiment(), [TRACKING]) == run.experiment == experiment.pinned()
    assert load_experiment(json.loads(json.dumps(experiment.to_dict()))) == experiment


FLOATS = [key for key, value in BASE.flat().items() if isinstance(value, float)] + ["training.time_limit"]


@pytest.mark.parametrize("key", FLOATS)
@pytest.mark.parametrize("text", [".nan", "nan", "-.inf", "1e999"])
def test_every_number_is_finite(key: str, text: str) -> None:
    with pytest.raises(ValueError, match=rf"^{key}=-?(nan|inf) must be a finite number$"):
        load_experiment(BASE.to_dict(), [f"{key}={text}"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("training.seed=4294967296", r"^training\.seed=4294967296 must be from 0 to 4294967295$"),
        ("training.seed=-1", r"^training\.seed=-1 must be from 0 to 4294967295$"),
        ("training.seed=no", r"^training\.seed=no must be a whole number, such as 0$"),
        ("training.seed=1:30", r"^training\.seed=1:30 must be a whole number"),
        ("training.max_steps=many", r"^training\.max_steps=many must be a whole number, such as 1000$"),
        ("training.max_steps=[", r"^training\.max_steps=\[ cannot be read: .*; quote the value$"),
        ("training.max_steps=10000000000000000000", r"^training\.max_steps=1\d+ must be at most 9007199254740992$"),
        ("task.steps=[99999999999999999999]", r"^task\.steps\[0\]=9+ must be at most \d+$"),
        ("training.stages=[{stepz: 1}]", r"must be a list, each item a mapping of steps, train, eviction, n_passes$"),
        ("training.run_dir=", r"^training\.run_dir is empty: name a directory, or use null"),
        ("training.run_dir=${x", r"^training\.run_dir=\$\{x holds a \$\{\.\.\.\} reference that cannot be read"),
        ("task.name=[rule110]", r"^task\.name='\[rule110\]' is unknown; did you mean rule110\?$"),
        ("training=", r"^training=null is no section: give it keys, for example training\.max_steps, or leave it out$"),
        ("training.compile=maybe", r"^training\.compile=maybe must be true or false$"),
    ],
)
def test_a_refused_value_is_named_with_what_is_accepted(argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_experiment(CONF / "rule110.yaml", [argument])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"training:\n", "training=null is no section: give it keys"),
        (b"task: {name: [rule110]}\n", "task.name=['rule110'] is not a registered name"),
        ("tracking: {run_name: \u00e9}\n".encode("latin-1"), "is not UTF-8 text (byte 21: invalid continuation byte)"),
        (b"", "must hold sections (task, model, sleep, training, tracking), not an empty file"),
        (b"[" * 10_000, "is not valid YAML"),
        (b"[" * 200_000, "is not valid YAML: more than 64 lists and mappings within each other"),
        (b"- " * 100_000, "is not valid YAML: more than 64 lists and mappings within each other"),
        (b"{a: " * 100_000, "is not valid YAML: more than 64 lists and mappings within each other"),
        (b"tracking: &a {run_name: *a}", "is not valid YAML: YAML recursive aliases are not supported"),
        (BOMB, "is not valid YAML: more than 1000000 values"),
        (b"training: &t [*t]\n", "is not valid YAML"),
        (b"\0", "is not valid YAML"),
    ],
)
def test_a_bad_file_is_one_sentence_before_anything_is_made(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    content: bytes,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "e.yaml").write_bytes(content)
    assert main(["fit", "--config", "e.yaml"]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["e.yaml"]
