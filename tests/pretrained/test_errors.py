"""Snapshots that cannot be read: one sentence each, before anything is computed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sleep_lightning.__main__ import main
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.pretrained import export, load_pretrained
from tests.pretrained.snapshots import write


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write("llama", folder)
    return folder


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        content = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v != "absent"}))

    return edit


def edit_tensors(edit: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors")

    return run


def write_file(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


Q = "model.layers.1.self_attn.q_proj.weight"
INDEX = "model.safetensors.index.json"
FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config": (lambda folder: (folder / "config.json").unlink(), r"config\.json does not exist; name a directory"),
    "no JSON": (write_file("config.json", "{"), r"config\.json cannot be read as JSON"),
    "a list": (write_file("config.json", "[]"), r"config\.json holds a list instead of a mapping"),
    "no model_type": (edit_config(model_type="absent"), r"names no model_type"),
    "unknown family": (edit_config(model_type="mamba2"), r"model_type='mamba2' is not known; known are llama, mistral"),
    "no sizes": (edit_config(hidden_size="absent"), r"lacks hidden_size; fetch the snapshot again"),
    "a size of words": (edit_config(hidden_size="many"), r"hidden_size='many' must be a int"),
    "another activation": (edit_config(hidden_act="gelu"), r"hidden_act='gelu' is not supported, only 'silu'"),
    "biases": (edit_config(attention_bias=True), r"attention_bias=True is not supported, only False"),
    "an unknown rope": (
        edit_config(rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "factor": 2.0}),
        r"rope_type='longrope' is not known; use one of linear, llama3, yarn",
    ),
    "more layers than tensors": (
        edit_config(num_hidden_layers=5),
        r"lacks the tensor model\.layers\.4\.self_attn\.q_proj\.weight \[32, 32\] that its config\.json promises",
    ),
    "fewer layers": (edit_config(num_hidden_layers=3), r"holds 9 tensors that nothing here takes, model\.layers\.3\."),
    "another width": (
        edit_config(intermediate_size=64),
        r"model\.layers\.0\.mlp\.gate_proj\.weight has the shape \[48, 32\], but its config\.json promises \[64, 32\]",
    ),
    "a tensor is missing": (edit_tensors(lambda tensors: tensors.pop(Q)), rf"lacks the tensor {Q} \[32, 32\]"),
    "a surplus tensor": (
        edit_tensors(lambda tensors: tensors.update(extra=torch.zeros(2))),
        r"holds 1 tensors that nothing here takes, extra for one",
    ),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"has no model\.safetensors and no model"),
    "pickled weights": (pickle_only, r"holds pickled weights \(pytorch_model\.bin\), which could run code"),
    "a cut file": (cut, r"model\.safetensors is damaged or no safetensors file"),
    "no safetensors": (write_file("model.safetensors", "hello"), r"model\.safetensors is damaged or no safetensors"),
    "an index of another file": (
        write_file(INDEX, json.dumps({"weight_map": {Q: "model-00001.safetensors"}})),
        r"names 'model-00001\.safetensors', which is no file",
    ),
    "an index that leads out": (
        write_file(INDEX, json.dumps({"weight_map": {Q: "../model.safetensors"}})),
        r"names '\.\./model\.safetensors', which is no file",
    ),
    "an index that does not hold": (
        write_file(INDEX, json.dumps({"weight_map": {Q: "model.safetensors"}})),
        r"index\.json does not say where lm_head\.weight is",
    ),
    "another sleep.json": (write_file("sleep.json", "[1]"), r"sleep\.json does not hold what export writes"),
    "an export without memory": (
        write_file("sleep.json", json.dumps({"insert": {"every": 2}})),
        r"sleep_memory\.safetensors is damaged or no safetensors file .*; export the model again",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_snapshot_is_one_sentence(fault: str, snapshot: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(snapshot, folder)
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(ValueError, match=message) as caught:
        load_pretrained(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("fault", FAULTS)
def test_fit_says_so_before_anything_is_made(
    fault: str, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(snapshot, "copy")
    spoil, message = FAULTS[fault]
    spoil(Path("copy"))
    assert main(["fit", "model.pretrained=copy", "sleep.n_passes=1", "tracking.enabled=false"]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("error: ") and printed.err.count("\n") == 1
    assert re.search(message, printed.err)
    assert [path.name for path in tmp_path.iterdir()] == ["copy"]


def test_a_damaged_shard_is_named(
    snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    model = write("llama", Path("copy"))
    model.save_pretrained("copy", max_shard_size="20KB")  # type: ignore[operator]
    (tmp_path / "copy" / "model.safetensors").unlink()
    shards = sorted(tmp_path.glob("copy/model-*.safetensors"))
    assert len(shards) > 3
    shards[2].write_bytes(shards[2].read_bytes()[:-8])
    for verb in (["fit", "tracking.enabled=false"], ["plan", "--passes", "1"]):
        code = main([verb[0], "model.pretrained=copy", "sleep.n_passes=1", *verb[1:]])
        printed = capsys.readouterr()
        if verb[0] == "plan":  # is made without weights
            assert code == 0
        else:
            assert code == 2 and f"{shards[2].name} is damaged or no safetensors file" in printed.err
    shards[2].unlink()
    assert main(["fit", "model.pretrained=copy", "sleep.n_passes=1"]) == 2
    assert f"names {shards[2].name!r}, which is no file of copy" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("insert", "message"),
    [
        ({"rule": "G"}, r"model\.insert lacks every"),
        ({"every": 0}, r"model\.insert\.every=0 must be a whole number"),
        ({"every": 9}, r"model\.insert\.every=9 inserts nothing: .* has 4 blocks"),
        ({"every": 2, "first": 3}, r"model\.insert\.every=2 with model\.insert\.first=3 inserts nothing"),
        ({"every": 2, "first": -1}, r"model\.insert\.first=-1 must be a whole number of at least 0"),
        ({"every": 2, "rule": "A"}, r"model\.insert\.rule='A' must be one of G, H, D, J"),
        ({"every": 2, "headz": 3}, r"model\.insert\.headz is no key of it"),
        ({"every": 2, "heads": 1.5}, r"model\.insert\.heads=1\.5 must be a whole number"),
    ],
)
def test_a_wrong_insertion_is_one_sentence(insert: dict[str, Any], message: str, snapshot: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_pretrained(snapshot, insert)


def test_what_the_directory_decides_cannot_be_an_option(snapshot: Path) -> None:
    with pytest.raises(ValueError, match=r"d_model=64 is decided by .*; leave it out"):
        load_pretrained(snapshot, d_model=64)


def test_an_export_needs_a_source_and_an_empty_place(snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="export needs source=DIR"):
        export(HybridLM(ModelConfig(d_model=16), 5), tmp_path / "new")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="exists already and is not empty"):
        export(load_pretrained(snapshot), tmp_path)
