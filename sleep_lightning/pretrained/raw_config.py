"""Reading a ``config.json``: one clear sentence for what is missing, of another kind, or not supported."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")
_ABSENT = object()


class RawConfig:
    """The values of a ``config.json``, by name and type.

    Args:
        values: as read.
        where: the file, for messages.
    """

    def __init__(self, values: Mapping[str, Any], where: str) -> None:
        self._values, self.where = values, where

    def get(self, name: str, kind: type[T], default: Any = _ABSENT) -> T:
        """Its value; ``default`` where it is absent or null. Raises ValueError if it is needed or of another type."""
        value = self._values.get(name)
        if value is None:
            if default is _ABSENT:
                raise ValueError(f"{self.where} lacks {name}; fetch the snapshot again")
            return default
        if kind is float and isinstance(value, int | str) and not isinstance(value, bool):
            with suppress(ValueError):
                value = float(value)  # Jet-Nemotron writes "1e-5"
        if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
            raise ValueError(f"{self.where}: {name}={value!r} must be a {kind.__name__}")
        return value

    def section(self, name: str) -> "RawConfig":
        """A mapping inside; empty where it is absent."""
        return RawConfig(self.get(name, dict, {}), f"{self.where}: {name}")

    def refuse_unless(self, name: str, value: Any) -> None:
        """Raises ValueError if it is given and not what is supported."""
        if (found := self._values.get(name)) is not None and found != value:
            raise ValueError(f"{self.where}: {name}={found!r} is not supported, only {value!r}; use another model")

    def rope(self) -> dict[str, Any]:
        """``rope_base``, ``rope_fraction`` and ``rope_scaling`` of a ``ModelConfig``, from either spelling."""
        given = dict(self.get("rope_parameters", dict, None) or self.get("rope_scaling", dict, None) or {})
        base = given.pop("rope_theta", None) or self.get("rope_theta", float, 10000.0)
        fraction = given.pop("partial_rotary_factor", None) or self.get("partial_rotary_factor", float, 1.0)
        kind = given.pop("type", None) or given.get("rope_type", "default")
        for unused in ("mrope_section", "mrope_interleaved", "max_position_embeddings"):
            given.pop(unused, None)
        scaling = {} if kind == "default" else given | {"rope_type": kind}
        if scaling.get("rope_type") in ("llama3", "yarn"):
            scaling.setdefault("original_max_position_embeddings", self.get("max_position_embeddings", int))
        scaling = {name: value for name, value in scaling.items() if value is not None}
        return {"rope_base": float(base), "rope_fraction": float(fraction), "rope_scaling": scaling}
