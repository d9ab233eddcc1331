"""Writing a model back in the format it came in, so that other tools load it."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.pretrained.loading import MEMORY, SLEEP, entries_of, inserted_parameters
from sleep_lightning.pretrained.lora import merged, plain_parameters
from sleep_lightning.pretrained.snapshot import CONFIG, Snapshot
from sleep_lightning.pretrained.tensor_file import save_tensors
from sleep_lightning.sleep import SleepConfig

CARD = "README.md"
SLEEPING = "sleep"
TOKENIZER = ("tokenizer", "special_tokens", "vocab", "merges", "chat_template", "generation_config")
"""Beginnings of the names of files that a tokenizer consists of."""


@torch.no_grad()
def export(
    model: HybridLM, folder: str | Path, sleep: SleepConfig | None = None, *, source: str | Path | None = None
) -> None:
    """Write ``model`` as a directory of the family and the files (shards, dtypes) of the one it came from, adapters
    (``model.lora``) merged into its weights.

    Everything else that lies there (config, tokenizer) is copied. Inserted blocks go into a file of their own, which
    other tools do not read; ``load_pretrained`` does.

    Args:
        model: from ``load_pretrained``, or trained with ``model.pretrained``.
        folder: new or empty.
        sleep: how it sleeps; written to ``sleep.json``, and to ``sleep/`` for transformers' Auto classes
            (``pretrained.auto``).
        source: the directory that it came from; None: ``model.config.pretrained``.

    Raises:
        OSError: a file cannot be written.
        ValueError: no source, a folder that is not empty, or a source of another model.
    """
    folder, given = Path(folder), source or model.config.pretrained
    if given is None:
        raise ValueError("export needs source=DIR, the directory whose format is to be written: this model names none")
    source = Path(given)
    check_place(folder)
    snapshot = Snapshot(source)
    entries = entries_of(model.config, source, snapshot)
    origin = {name: entry for entry in entries for name in entry.theirs}
    parameters = plain_parameters(model)

    def tensor(name: str) -> Tensor:
        if (entry := origin.get(name)) is None:
            return snapshot.tensor(name)  # what the text model does not have
        ours = merged(model, entry.ours, parameters[entry.ours].detach()).cpu()
        parts = entry.layout.split(ours, list(entry.theirs.values()))
        return parts[list(entry.theirs).index(name)].to(snapshot.dtype(name)).contiguous()

    folder.mkdir(parents=True, exist_ok=True)
    for file in snapshot.files:
        save_tensors({name: tensor(name) for name, of in snapshot.file_of.items() if of == file}, folder / file)
    skipped = {*snapshot.files, CARD, SLEEP, MEMORY}
    for path in source.iterdir():
        if path.is_file() and path.name not in skipped and path.suffix not in (".safetensors", ".bin", ".pt", ".pth"):
            shutil.copyfile(path, folder / path.name)
    inserted = {name: p.detach().cpu().contiguous() for name, p in inserted_parameters(model).items()}
    if inserted:
        save_tensors(inserted, folder / MEMORY)
    if inserted or sleep is not None:
        content = {"insert": dict(model.config.insert)} | ({} if sleep is None else {"sleep": asdict(sleep)})
        (folder / SLEEP).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if sleep is not None:
        _write_sleeping(model, folder, sleep)
    (folder / CARD).write_text(_card(model, source.name, sleep, bool(inserted)), encoding="utf-8")


def check_place(folder: Path) -> None:
    """Raises ValueError for a folder that is there and not empty, or a file."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists already and is not empty; export into a new directory")


def _write_sleeping(model: HybridLM, folder: Path, sleep: SleepConfig) -> None:
    """The directory that ``pretrained.auto`` has transformers load: a config, and the tokenizer again."""
    (folder / SLEEPING).mkdir()
    config = {
        "model_type": "sleep_lightning",
        "architectures": ["SleepingForCausalLM"],
        "sleep": asdict(sleep),
        "vocab_size": model.vocab_size,
        "hidden_size": model.config.d_model,
        "num_hidden_layers": model.n_blocks,
    }
    (folder / SLEEPING / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file() and path.name.startswith(TOKENIZER):
            shutil.copyfile(path, folder / SLEEPING / path.name)


def _card(model: HybridLM, base: str, sleep: SleepConfig | None, inserted: bool) -> str:
    """The model card."""
    parameters = sum(p.numel() for name, p in model.named_parameters() if ".lora_" not in name)
    lines = [
        "---",
        "library_name: sleep-lightning",
        "tags: [sleep-time-consolidation]",
        "---",
        f"# {base}, trained with sleep_lightning",
        "",
        f"Blocks: `{model.config.pattern}` ({parameters:,} parameters; lower case: inserted fast "
        f"weights). The licence of {base} holds.",
    ]
    if sleep is not None:
        lines.append(f"Windows of {sleep.window_size} tokens; {sleep.n_passes} passes over each before it is evicted.")
    if inserted:
        lines.append(f"The inserted blocks lie in `{MEMORY}`: tools that do not know them load the base model alone.")
    lines += [
        "",
        "```python",
        "from sleep_lightning import load_pretrained",
        'model = load_pretrained("DIR")',
        "```",
        "",
    ]
    return "\n".join(lines)
