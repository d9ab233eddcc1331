from pathlib import Path

import pytest

from sleep_lightning.config import load_experiment
from sleep_lightning.redaction import redact_uri

CONF = Path(__file__).parents[2] / "conf"
FAMILIES = ("smollm2", "qwen3_5", "ouro", "jet")
TEXT_RECIPES = [CONF / f"{task}_{family}.yaml" for task in ("needle", "gsm_infinite") for family in FAMILIES]


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, marks=pytest.mark.long) if "pretrained:" in path.read_text() else path
        for path in sorted(CONF.glob("*.yaml"))
    ],
    ids=lambda p: p.stem,
)
def test_every_shipped_experiment_parses_and_survives_a_round_trip(
    path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "pretrained:" in path.read_text():
        monkeypatch.chdir(request.getfixturevalue("configs"))
    experiment = load_experiment(path)
    assert load_experiment(experiment.to_dict()) == experiment


@pytest.mark.long
@pytest.mark.parametrize("eviction", ["hard", "sliding"])
@pytest.mark.parametrize("question", ["before", "behind"])
@pytest.mark.parametrize("path", TEXT_RECIPES, ids=lambda p: p.stem)
def test_recipes_for_text_take_either_eviction_and_place_of_the_question(
    path: Path, question: str, eviction: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(request.getfixturevalue("configs"))
    changes = [f"task.question={question}", f"sleep.eviction={eviction}", "training.prelude_cache=null"]
    experiment = load_experiment(path, changes)
    assert experiment.sleep.eviction == eviction
    assert experiment.task.question == question  # type: ignore[attr-defined]


def test_arguments_win_over_yaml_over_defaults_and_interpolation_follows(tmp_path: Path) -> None:
    file = tmp_path / "e.yaml"
    file.write_text("task: {ring_size: 10}\nsleep: {window_size: '${task.ring_size}'}\ntraining: {seed: 3}\n")
    experiment = load_experiment(file, ["task.ring_size=12", "training.max_steps=7"])
    assert (experiment.sleep.window_size, experiment.training.seed, experiment.training.max_steps) == (12, 3, 7)
    assert experiment.training.batch_size == 64


def test_the_paper_experiment_is_the_papers() -> None:
    e = load_experiment(CONF / "rule110_paper.yaml")
    assert (e.model.d_model, e.model.pattern, e.sleep.window_size, e.sleep.n_passes) == (256, "AGAG", 24, 4)
    assert (e.task.ring_size, e.task.n_strings, e.task.steps) == (24, 4, [32])  # type: ignore[attr-defined]
    assert (e.training.batch_size, e.training.muon_lr, e.training.adamw_lr) == (512, 2e-3, 5e-5)
    assert e.training.tbptt_windows is None
    assert e.training.max_steps * 512 * 100 == pytest.approx(5e9, rel=0.01)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("SmolLM2-135M-Instruct", "python -m sleep_lightning.pretrained.smollm2"),
        ("Ouro-1.4B", "hf download ByteDance/Ouro-1.4B --local-dir"),
    ],
)
def test_absent_weights_are_named_with_what_fetches_them(name: str, fix: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    with pytest.raises(ValueError, match=rf"^model\.pretrained={folder} is no directory; {fix} {folder} fetches it$"):
        load_experiment(CONF / "gsm_infinite_ouro.yaml", [f"model.pretrained={folder}"])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("model.d_modle=3", r"^model\.d_modle=3: there is no key .*did you mean model\.d_model\?"),
        ("n_passes=3", r"^n_passes=3: .*did you mean sleep\.n_passes\?"),
        ("model.d_model=abc", r"^model\.d_model=abc must be a whole number, such as 64$"),
        ("training.max_steps=1e3", r"^training\.max_steps=1e3 must be a whole number, such as 1000$"),
        ("sleep.pass_input=foo", r"^sleep\.pass_input=foo must be one of hidden, embed, inject"),
        ("task.steps=[a]", r"^task\.steps=\[a\] must be a list, each item a whole number"),
        ("sleep.window_size=${task.foo}", r"^sleep\.window_size: Interpolation key 'task\.foo' not found"),
        ("task.name=foo", r"^task\.name='foo' is unknown; use one of rule110"),
        ("foo", r"^argument 'foo' is not key=value"),
        ("model.n_heads=3", r"^model\.n_heads=3 does not divide model\.d_model=64"),
        ("sleep.n_passes=0", r"^sleep\.n_passes=0 must be at least 1"),
        ("sleep.window_size=7", r"^sleep\.window_size=7 .*use one of \[2, 3, 4, 6, 8, 12"),
        ("model.pattern=AA", r"^sleep\.n_passes=2 with model\.pattern='AA' has no effect"),
        ("training.tbptt_windows=1", r"^training\.tbptt_windows=1 cuts the loss off from every sleep.*one of \[3\]"),
        ("training.tbptt_windows=2", r"^training\.tbptt_windows=2 cuts the loss off"),
        ("training.accumulate=3", r"^training\.accumulate=3 does not divide"),
        ("training.warmup=0.9", r"^training\.warmup=0\.9 and training\.cooldown"),
        ("training.momentum=1", r"^training\.momentum=1\.0 must be in \[0, 1\)"),
        ("training.batch_size=0", r"^training\.batch_size=0 must be at least 1"),
        ("tracking.uri=mlruns", r"^tracking\.uri='mlruns' is not a database or server.*use sqlite"),
        ("tracking.flush_seconds=0", r"^tracking\.flush_seconds=0"),
    ],
)
def test_a_mistake_is_one_sentence_with_key_value_and_fix(argument: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        load_experiment(CONF / "rule110.yaml", [argument])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("k", [3, 5, 100])
def test_truncation_that_keeps_a_sleep_is_accepted(k: int) -> None:
    load_experiment(CONF / "rule110.yaml", [f"training.tbptt_windows={k}"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file"),
        ("task: [", "is not valid YAML"),
        ("- 1", "must hold sections"),
        ("nope: 1", "no key 'nope'"),
    ],
)
def test_unreadable_yaml_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "e.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ValueError, match=message):
        load_experiment(file)


def test_passwords_stay_out_of_what_is_written() -> None:
    experiment = load_experiment(None, ["sleep.window_size=24", "tracking.uri=postgresql://me:s3cret@db:5432/x"])
    assert experiment.tracking.uri.count("s3cret") == 1
    assert "s3cret" not in experiment.to_yaml()
    assert redact_uri("sqlite:///mlflow.db") == "sqlite:///mlflow.db"
