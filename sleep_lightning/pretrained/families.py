"""The families of pretrained models: what their config says, and where their tensors go."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from sleep_lightning.model import ModelConfig
from sleep_lightning.pretrained.decoder import decoder_entries, decoder_values
from sleep_lightning.pretrained.entries import Entry
from sleep_lightning.pretrained.hybrids import jet_entries, jet_values, qwen3_5_entries, qwen3_5_values
from sleep_lightning.pretrained.raw_config import RawConfig


@dataclass(frozen=True)
class Family:
    """How one ``model_type`` is read.

    Attributes:
        values: ``config.json`` and the family's name -> keys of ``ModelConfig``.
        entries: config, the blocks that are not inserted, and the prefix of names -> entries.
        prefixes: of names in the files; the first that is found there.
        kept: names of tensors that the text model here does not have; ``export`` copies them from the source.
    """

    values: Callable[[RawConfig, str], dict[str, Any]]
    entries: Callable[[ModelConfig, list[int], str], Iterator[Entry]]
    prefixes: tuple[str, ...] = ("model.",)
    kept: str = r"$^"

    def prefix(self, names: Iterable[str]) -> str:
        """The prefix that the names in the files have."""
        names = list(names)
        return next((p for p in self.prefixes if any(n.startswith(p) for n in names)), self.prefixes[-1])

    def keeps(self, name: str) -> bool:
        """Whether a tensor is left alone."""
        return re.match(self.kept, name) is not None


_DECODER = Family(decoder_values, decoder_entries, kept=r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq$")
_QWEN3_5 = Family(qwen3_5_values, qwen3_5_entries, ("model.language_model.", "model."), kept=r"(model\.visual\.|mtp\.)")
FAMILIES: dict[str, Family] = {
    "llama": _DECODER,
    "mistral": _DECODER,
    "qwen2": _DECODER,
    "qwen3": _DECODER,
    "qwen3_5": _QWEN3_5,
    "qwen3_5_text": _QWEN3_5,
    "ouro": Family(decoder_values, decoder_entries, kept=r"model\.early_exit_gate\."),
    "jet_nemotron": Family(jet_values, jet_entries),
}
"""By ``model_type``."""


def family_of(config: dict[str, Any], where: str) -> tuple[Family, RawConfig, str]:
    """The family, the part of the config that describes the text model, and the name its differences go by.

    Raises:
        ValueError: an unknown ``model_type``.
    """
    kind = config["model_type"]
    if kind not in FAMILIES:
        raise ValueError(f"{where}: model_type={kind!r} is not known; known are {', '.join(FAMILIES)}")
    text = config.get("text_config")
    inner = RawConfig(text, f"{where}: text_config") if isinstance(text, dict) else RawConfig(config, where)
    return FAMILIES[kind], inner, kind.removesuffix("_text")
