"""Low-rank adapters on the frozen projections of a pretrained model (LoRA, arXiv:2106.09685), by peft: ``model.lora``.

Queries, keys and values are one projection here, as are gate and up: their adapters share one ``A``. Blocks of fast
weights have none: they learn in full.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.config import ATTENTION
from sleep_lightning.model.parameter_groups import set_trained, trained_parameters

TARGETS = {
    "qkv_proj": "mixer.in_proj",
    "o_proj": "mixer.out_proj",
    "gate_up_proj": "mlp.in_proj",
    "down_proj": "mlp.out_proj",
}
"""Values of ``target_modules``, and where they are in a block."""
STACKED = {"q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj"} | dict.fromkeys(
    ("gate_proj", "up_proj"), "gate_up_proj"
)
"""Names of other tools for parts of a projection."""
ADAPTER = "default"


@dataclass(frozen=True)
class Lora:
    """What ``model.lora`` holds, under peft's names.

    Attributes:
        r: rank.
        lora_alpha: the update is scaled by ``lora_alpha / r``; None: r.
        target_modules: keys of ``TARGETS``.
        layers_to_transform: blocks that get adapters, counted from 0 without inserted ones; None: all.
        use_rslora: it is scaled by ``lora_alpha / sqrt(r)`` instead.
    """

    r: int
    lora_alpha: float | None = None
    target_modules: Sequence[str] = ("qkv_proj", "o_proj")
    layers_to_transform: Sequence[int] | None = None
    use_rslora: bool = False

    @classmethod
    def of(cls, config: ModelConfig) -> "Lora | None":
        """Checked; None for a model without. Raises ValueError naming the key."""
        values = config.lora
        if not values:
            return None
        names = [f.name for f in fields(cls)]
        if (unknown := next((name for name in values if name not in names), None)) is not None:
            raise ValueError(f"model.lora.{unknown} is no key of it; it takes {', '.join(names)}")
        if type(r := values.get("r")) is not int or r < 1:
            raise ValueError(f"model.lora.r={r!r} must be a whole number of at least 1, 16 for example")
        alpha = values.get("lora_alpha")
        if alpha is not None and (isinstance(alpha, bool) or not isinstance(alpha, int | float) or alpha <= 0):
            raise ValueError(f"model.lora.lora_alpha={alpha!r} must be a number above 0, or null for r")
        if type(rs := values.get("use_rslora", False)) is not bool:
            raise ValueError(f"model.lora.use_rslora={rs!r} must be true or false")
        found = cls(**values)
        found._check_targets()
        found._check_layers(config.has_mlp.count(True))
        if not found.modules(config):
            raise ValueError(
                f"model.lora={values} adapts nothing: mixers with fast weights learn in full; choose blocks of "
                f"attention"
            )
        return found

    def _check_targets(self) -> None:
        if not isinstance(self.target_modules, list | tuple) or not self.target_modules:
            raise ValueError(
                f"model.lora.target_modules={self.target_modules!r} must be a list of {', '.join(TARGETS)}"
            )
        for name in self.target_modules:
            if isinstance(name, str) and name in STACKED:
                raise ValueError(
                    f"model.lora.target_modules: {name} is a part of one projection here; use {STACKED[name]}"
                )
            if not isinstance(name, str) or name not in TARGETS:
                raise ValueError(f"model.lora.target_modules: {name!r} must be one of {', '.join(TARGETS)}")

    def _check_layers(self, n_blocks: int) -> None:
        layers = self.layers_to_transform
        if layers is None:
            return
        if not isinstance(layers, Sequence) or not layers or any(type(i) is not int for i in layers):
            raise ValueError(f"model.lora.layers_to_transform={layers!r} must be a list of numbers of blocks, or null")
        if not 0 <= min(layers) <= max(layers) < n_blocks:
            raise ValueError(f"model.lora.layers_to_transform={list(layers)} must be from 0 to {n_blocks - 1}")

    def modules(self, config: ModelConfig) -> list[str]:
        """Names of the projections with adapters."""
        base = [i for i, has_mlp in enumerate(config.has_mlp) if has_mlp]
        chosen = base if self.layers_to_transform is None else [base[i] for i in sorted(set(self.layers_to_transform))]
        places = [TARGETS[name] for name in dict.fromkeys(self.target_modules)]
        return [f"layers.{i}.{at}" for i in chosen for at in places if at[:3] == "mlp" or config.mixers[i] == ATTENTION]


def add_adapters(model: HybridLM) -> None:
    """Give a model the adapters of ``config.lora``, in place, and freeze all but them and the memory.

    They change nothing at first: ``B`` is zero.

    Raises:
        ValueError: peft is not installed, or ``config.lora`` does not fit.
    """
    lora = Lora.of(model.config)
    if lora is None:
        return
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError("model.lora needs peft: pip install 'sleep-lightning[lora]'") from error
    inject_adapter_in_model(
        LoraConfig(
            r=lora.r,
            lora_alpha=lora.r if lora.lora_alpha is None else lora.lora_alpha,  # type: ignore[arg-type]  # any number
            target_modules=lora.modules(model.config),
            use_rslora=lora.use_rslora,
        ),
        model,
        ADAPTER,
    )
    set_trained(model, trained_parameters(model, "all"))  # peft knows of no memory


def reset_adapters(model: HybridLM) -> None:
    """New adapters, in place, that change nothing."""
    for module in model.modules():
        if hasattr(module, "reset_lora_parameters"):
            module.reset_lora_parameters(ADAPTER, True)  # type: ignore[operator]


def plain_parameters(model: HybridLM) -> dict[str, nn.Parameter]:
    """All but the adapters' own, by the names that they have in a model without; tied ones by both names."""
    named = model.named_parameters(remove_duplicate=False)
    return {name.replace(".base_layer.", "."): p for name, p in named if ".lora_" not in name}


def merged(model: HybridLM, name: str, parameter: Tensor) -> Tensor:
    """A parameter of ``plain_parameters`` with what its adapter adds."""
    module, _, kind = name.rpartition(".")
    if not model.config.lora or kind != "weight" or not hasattr(layer := model.get_submodule(module), "lora_A"):
        return parameter
    with torch.no_grad():
        return parameter + layer.get_delta_weight(ADAPTER).to(parameter.dtype)  # type: ignore[operator]
