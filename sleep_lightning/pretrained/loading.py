"""A directory's config as a ``ModelConfig``, and its weights in a ``HybridLM``."""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.pretrained.entries import EVERY, Entry
from sleep_lightning.pretrained.families import family_of
from sleep_lightning.pretrained.insertion import Insertion
from sleep_lightning.pretrained.lora import add_adapters, plain_parameters, reset_adapters
from sleep_lightning.pretrained.snapshot import CONFIG, Snapshot, read_config, shapes_in

SLEEP = "sleep.json"
"""What ``export`` adds: the inserted blocks and the sleep config."""
MEMORY = "sleep_memory.safetensors"
"""The weights of inserted blocks, by our names."""


def model_values(folder: str | Path, insert: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The keys of ``ModelConfig`` that a directory decides.

    Args:
        folder: with ``config.json``.
        insert: ``model.insert``; None or empty: as in an exported directory, else none.

    Raises:
        ValueError: an unknown family, something unsupported, or an insertion that does not fit.
    """
    folder = Path(folder)
    where = str(folder / CONFIG)
    family, raw, name = family_of(read_config(folder), where)
    values = family.values(raw, name)
    saved = read_sleep(folder).get("insert", {})
    if insert and saved and dict(insert) != saved:
        raise ValueError(f"model.insert={dict(insert)} differs from that of {folder / SLEEP}, {saved}; leave it out")
    chosen = dict(insert or saved)
    if (insertion := Insertion.of(chosen)) is not None:
        values |= insertion.sizes(values, where)
        values["pattern"] = insertion.pattern(values["pattern"])
    return values | {"pretrained": str(folder), "insert": chosen}


def read_sleep(folder: Path) -> dict[str, Any]:
    """What ``export`` wrote of sleep; empty for other directories. Raises ValueError for a damaged file."""
    if not (folder / SLEEP).exists():
        return {}
    try:
        content = json.loads((folder / SLEEP).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder / SLEEP} cannot be read as JSON ({error}); export the model again") from error
    if not isinstance(content, dict) or not isinstance(content.get("insert", {}), dict):
        raise ValueError(f"{folder / SLEEP} does not hold what export writes; export the model again")
    return content


def entries_of(config: ModelConfig, folder: Path, snapshot: Snapshot) -> list[Entry]:
    """All entries of a directory, checked: names and shapes are those in its files, none is missing or left over.

    Raises:
        ValueError: naming the first tensor that is missing, surplus or of another shape.
    """
    family, _, _ = family_of(read_config(folder), str(folder / CONFIG))
    prefix = family.prefix(snapshot.shapes)
    entries = list(family.entries(config, base_blocks(config), prefix))
    if config.tie_embeddings and "lm_head.weight" in snapshot.shapes:  # stored although it is tied
        entries.append(Entry("embedding.weight", {"lm_head.weight": entries[0].theirs[f"{prefix}embed_tokens.weight"]}))
    wanted = {name: shape for entry in entries for name, shape in entry.theirs.items()}
    for name, shape in wanted.items():
        if name not in snapshot.shapes:
            raise ValueError(f"{folder} lacks the tensor {name} {list(shape)} that its {CONFIG} promises")
        if snapshot.shapes[name] != shape:
            raise ValueError(
                f"{folder}: {name} has the shape {list(snapshot.shapes[name])}, but its {CONFIG} promises {list(shape)}"
            )
    surplus = [name for name in snapshot.shapes if name not in wanted and not family.keeps(name)]
    if surplus:
        raise ValueError(
            f"{folder} holds {len(surplus)} tensors that nothing here takes, {surplus[0]} for one; its {CONFIG} does "
            f"not describe them"
        )
    return entries


def base_blocks(config: ModelConfig) -> list[int]:
    """The blocks that are not inserted, first to last."""
    return [i for i, has_mlp in enumerate(config.has_mlp) if has_mlp]


def inserted_parameters(model: HybridLM) -> dict[str, nn.Parameter]:
    """Those of the inserted blocks."""
    blocks = {str(i) for i, has_mlp in enumerate(model.config.has_mlp) if not has_mlp}
    return {
        name: p for name, p in model.named_parameters() if name.startswith("layers.") and name.split(".")[1] in blocks
    }


Share = Callable[[nn.Parameter], tuple[Tensor, slice]]
"""What this process holds of a parameter: the memory, and which rows of the whole it is."""


def whole(parameter: nn.Parameter) -> tuple[Tensor, slice]:
    """All of it."""
    return parameter, EVERY


def check_snapshot(model: HybridLM, folder: Path) -> tuple[Snapshot, list[Entry]]:
    """Whether the files of a directory hold what a model of its config takes, by their headers alone.

    Args:
        model: may be on the meta device.
        folder: the directory.

    Raises:
        ValueError: tensors that do not fit, or a damaged file.
    """
    snapshot = Snapshot(folder)
    entries, inserted = entries_of(model.config, folder, snapshot), inserted_parameters(model)
    missing = plain_parameters(model).keys() - inserted.keys() - {entry.ours for entry in entries}
    if model.config.tie_embeddings:
        missing.discard("head.weight")
    if missing:
        raise ValueError(f"{folder} gives no weights for {', '.join(sorted(missing))}; the model has another config")
    if inserted and read_sleep(folder).get("insert"):
        saved = shapes_in(folder / MEMORY, "export the model again")
        if saved != {name: tuple(p.shape) for name, p in inserted.items()}:
            raise ValueError(
                f"{folder / MEMORY} does not hold the inserted blocks of {folder / SLEEP}; export it again"
            )
    return snapshot, entries


@torch.no_grad()
def load_weights(model: HybridLM, folder: str | Path, share: Share = whole) -> None:
    """Give a model the weights of a directory whose config it has; its dtype and device stay.

    Inserted blocks get theirs if the directory was exported with them; else new ones, by torch's initial seed alone,
    with output projections of zero, so that the model's function is that of the directory.

    Args:
        model: any values in it are replaced.
        folder: the directory.
        share: where ranks share parameters: no more is read than this one holds, or one matrix at a time.

    Raises:
        ValueError: tensors that do not fit (nothing is changed then), or a damaged file.
    """
    folder = Path(folder)
    snapshot, entries = check_snapshot(model, folder)
    parameters, inserted = plain_parameters(model), inserted_parameters(model)
    for entry in entries:
        held, rows = share(parameters[entry.ours])
        if held.numel():
            held.copy_(entry.read(snapshot.tensor, rows))
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(torch.initial_seed())  # the other devices' stay
        for name, x in _inserted_weights(model, inserted, folder):
            held, rows = share(inserted[name])
            held.copy_(x[rows])
        reset_adapters(model)


def _inserted_weights(
    model: HybridLM, inserted: Mapping[str, nn.Parameter], folder: Path
) -> Iterator[tuple[str, Tensor]]:
    if not inserted:
        return
    if not read_sleep(folder).get("insert"):
        for i in dict.fromkeys(int(name.split(".")[1]) for name in inserted):
            for name, x in model.new_block(i).named_parameters():
                yield f"layers.{i}.{name}", x.zero_() if name == "mixer.out_proj.weight" else x
        return
    yield from load_file(folder / MEMORY).items()


def load_pretrained(
    folder: str | Path, insert: Mapping[str, Any] | None = None, *, dtype: torch.dtype = torch.float32, **options: Any
) -> HybridLM:
    """A model from a directory of ``config.json`` and safetensors, on CPU.

    Args:
        folder: a snapshot of a pretrained model, or what ``export`` wrote.
        insert: blocks of fast weights to insert, as in ``model.insert``.
        dtype: of the weights.
        options: further keys of ``ModelConfig`` that the directory does not decide (``backend``, ``lora``).

    Raises:
        ValueError: one sentence: what does not fit, and what to do.
    """
    values = model_values(folder, insert)
    if (fixed := next((name for name in options if name in values), None)) is not None:
        raise ValueError(f"{fixed}={options[fixed]!r} is decided by {folder}; leave it out")
    config = ModelConfig(**values, **options)
    assert config.vocab_size is not None
    model = HybridLM(config, config.vocab_size).to(dtype)
    add_adapters(model)
    load_weights(model, folder)
    return model
