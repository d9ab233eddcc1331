"""Blocks of fast weights between the blocks of a pretrained model: ``model.insert``."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sleep_lightning.model import MEMORY_MIXERS


@dataclass(frozen=True)
class Insertion:
    """A block without MLP, whose output projection starts at zero, behind every k-th block.

    Attributes:
        every: k.
        first: block from which is counted; those before it, a prelude that may stay frozen, get none.
        rule: letter of the memory rule, as in ``model.pattern``.
        heads: heads of the fast weights; None: the model's attention heads.
        key_dim, value_dim: of a head; None: the attention heads' width, and the key dim.
    """

    every: int
    first: int = 0
    rule: str = "G"
    heads: int | None = None
    key_dim: int | None = None
    value_dim: int | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Insertion | None":
        """Checked; None for an empty mapping. Raises ValueError naming the key."""
        if not values:
            return None
        names = [f.name for f in fields(cls)]
        if (unknown := next((name for name in values if name not in names), None)) is not None:
            raise ValueError(f"model.insert.{unknown} is no key of it; it takes {', '.join(names)}")
        if "every" not in values:
            raise ValueError("model.insert lacks every: write model.insert={every: 4} for a block behind every fourth")
        for name in names:
            value = values.get(name)
            least = 0 if name == "first" else 1
            if name != "rule" and value is not None and (type(value) is not int or value < least):
                raise ValueError(f"model.insert.{name}={value!r} must be a whole number of at least {least}")
        if values.get("rule", "G") not in MEMORY_MIXERS:
            raise ValueError(f"model.insert.rule={values['rule']!r} must be one of {', '.join(MEMORY_MIXERS)}")
        return cls(**values)

    def pattern(self, base: str) -> str:
        """The pattern with the inserted blocks, in lower case: they have no MLP."""
        groups = [base[i : i + self.every] for i in range(self.first, len(base), self.every)]
        return base[: self.first] + "".join(g + self.rule.lower() if len(g) == self.every else g for g in groups)

    def sizes(self, base: Mapping[str, Any], where: str) -> dict[str, Any]:
        """Keys of ``ModelConfig`` for the fast weights.

        Raises:
            ValueError: the model has fast weights of its own, of other sizes, or is too shallow.
        """
        if self.first + self.every > len(base["pattern"]):
            begin = f" with model.insert.first={self.first}" if self.first else ""
            raise ValueError(
                f"model.insert.every={self.every}{begin} inserts nothing: {where} has {len(base['pattern'])} blocks"
            )
        own = {name: base[name] for name in ("gdn_heads", "key_dim", "value_dim") if name in base}
        asked = {"gdn_heads": self.heads, "key_dim": self.key_dim, "value_dim": self.value_dim}
        if own:
            for name, value in asked.items():
                if value is not None and value != own[name]:
                    raise ValueError(
                        f"model.insert: {name} of {value} differs from the {own[name]} of {where}'s own fast weights; "
                        f"leave it out"
                    )
            return {}
        heads = self.heads or base["n_heads"]
        key_dim = self.key_dim or base["head_dim"] or base["d_model"] // base["n_heads"]
        return {"gdn_heads": heads, "key_dim": key_dim, "value_dim": self.value_dim or key_dim}
