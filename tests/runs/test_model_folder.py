"""A trained model to hand on: written from a run, loaded to the bit, refused when damaged; nothing is pickled."""

import json
import resource
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.pretrained import tensor_file
from sleep_lightning.runs.backoff import Backoff
from sleep_lightning.runs.model_folder import write_model_folder
from sleep_lightning.training.evaluation import load_trained
from sleep_lightning.training.model_card import model_card
from tests.cli.cli import ROOT, SMALL


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What a run leaves, untrained; its embeddings are tied."""
    changes = [*SMALL, "model.tie_embeddings=true", "training.val_batch_size=4", "training.run_dir=runs/secret-place"]
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", changes)
    weights = {f"model.{name}": x for name, x in experiment.build_model().state_dict().items()}  # type: ignore[attr-defined]
    content = {"experiment": experiment.to_dict(), "state_dict": weights, "global_step": 7, "train_tokens": 1200}
    torch.save(content, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    assert main(["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "tiny")]) == 0
    return tmp_path / "tiny"


def test_three_plain_files_are_the_model_to_the_bit(folder: Path, checkpoint: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.yaml", "model.safetensors"]
    (before, trained), (after, again) = load_trained(str(checkpoint), []), load_trained(str(folder), [])
    assert after.task == before.task and after.sleep == before.sleep and after.model == before.pinned().model
    ours, theirs = trained.state_dict(), again.state_dict()  # type: ignore[attr-defined]
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    by_file = load_trained(str(folder / "model.safetensors"), ["sleep.n_passes=3"])
    assert by_file[0].sleep.n_passes == 3 and torch.equal(by_file[1].embedding.weight, again.embedding.weight)  # type: ignore[attr-defined]
    assert "secret-place" not in "".join((folder / name).read_text() for name in ("README.md", "config.yaml"))


def test_the_card_says_data_recipe_seed_scores_and_limits(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for wanted in (
        "## Data",
        "## Recipe",
        "Seed 0, one run: 7 steps, 1.2k tokens",
        "## Scores",
        "| all |",
        "Generated; a vocabulary of",
        "## Limits",
    ):
        assert wanted in card


def test_the_card_claims_nothing_of_data_that_is_not_ours(tmp_path: Path) -> None:
    (file := tmp_path / "notes.jsonl").write_text(
        '{"question": "Where is Ann?", "answer": "here", "context": "Ann."}\n'
    )
    files = [f"task.{split}={file}" for split in ("train", "validation", "test")]
    experiment = load_experiment(None, ["task.name=text", *files, "sleep.window_size=64"])
    card = model_card("tiny", experiment, experiment.build_model(), {}, {})
    assert "\nA vocabulary of 2" in card
    assert not any(claim in card for claim in ("Generated", "license", "No evidence"))


def test_it_is_scored_like_a_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "scores.json"
    assert main(["test", "--checkpoint", str(folder), "--output", str(out)]) == 0
    said = json.loads(out.read_text())["slices"]["all"]
    assert f"| all | {said['answers']} | {said['exact_match']:.4f}" in (folder / "README.md").read_text()


def test_an_export_of_an_export_is_the_same(folder: Path, tmp_path: Path) -> None:
    assert main(["export", "--checkpoint", str(folder), "--output", str(tmp_path / "b")]) == 0
    for name in ("model.safetensors", "config.yaml"):
        assert (folder / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_weights_that_cannot_be_written_are_one_sentence(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**13, before[1]))
    try:
        assert main(["export", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "tiny")]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    file = tmp_path / "tiny" / "model.safetensors"
    assert capsys.readouterr().err == f"error: {file}: File too large; raise the limit of files (ulimit -f)\n"
    assert not list(file.parent.iterdir()), "the command can be repeated"


def test_a_full_disk_is_waited_for(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment, model = load_trained(str(checkpoint), [])
    save, full = save_file, [SafetensorError("I/O error: No space left on device (os error 28)")]
    monkeypatch.setattr(tensor_file, "save_file", lambda *a, **b: fail(full.pop()) if full else save(*a, **b))
    monkeypatch.setattr(Backoff, "next", lambda _: 0.0)
    write_model_folder(tmp_path / "tiny", experiment, model, "# tiny\n")  # type: ignore[arg-type]
    assert not full and load_trained(str(tmp_path / "tiny"), [])


def fail(error: Exception) -> None:
    raise error


def test_what_does_not_fit_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    file = folder / "model.safetensors"
    whole = file.read_bytes()
    with pytest.raises(ValueError, match=r"model\.d_ff=32 does not fit --checkpoint .* drop it"):
        load_trained(str(folder), ["model.d_ff=32"])
    weights = load(whole)
    for content in (whole[:-9], b"", whole[:4]):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged .*fetch it again"):
            load_trained(str(folder), [])
    save_file({name: x for name, x in weights.items() if "norm" not in name}, file)
    with pytest.raises(ValueError, match=r"is damaged \(missing .*fetch it again"):
        load_trained(str(folder), [])
    save_file(weights, tmp_path / "alone.safetensors")
    with pytest.raises(ValueError, match=r"has no config\.yaml beside it"):
        load_trained(str(tmp_path / "alone.safetensors"), [])
