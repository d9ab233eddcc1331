"""Where the models that the shipped experiments name come from."""

from pathlib import Path

_COMMANDS = {
    "SmolLM2-135M-Instruct": "python -m sleep_lightning.pretrained.smollm2 {folder}",
    **{
        name.partition("/")[2]: f"hf download {name} --local-dir {{folder}}"
        for name in ("ByteDance/Ouro-1.4B", "jet-ai/Jet-Nemotron-2B", "Qwen/Qwen3.5-0.8B")
    },
}
"""Directory -> what fetches it."""


def how_to_get(folder: str) -> str | None:
    """The command that fetches the model into a directory of its name; None for models that are not known here."""
    command = _COMMANDS.get(Path(folder).name)
    return None if command is None else command.format(folder=folder)
