"""Tuned models for transformers' Auto classes: ``generate``, ``pipeline`` and lm-evaluation-harness's ``hf`` take them.

Importing this module registers the model type ``sleep_lightning``, which the directory ``DIR/sleep`` of an export has::

    import sleep_lightning.pretrained.auto
    model = AutoModelForCausalLM.from_pretrained("DIR/sleep")

It needs transformers, and no remote code. Windows are counted from the first token; a full window sleeps before the
next token is read, so that logits are those of a model that reads token by token.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.pretrained.loading import load_pretrained
from sleep_lightning.sleep import SleepConfig, sleep, wake, zero_memory


class SleepingConfig(PreTrainedConfig):  # type: ignore[misc]
    """Config of ``SleepingForCausalLM``.

    Args:
        sleep: keys of ``SleepConfig``.
        vocab_size, hidden_size, num_hidden_layers: of the model, for tools that ask.
    """

    model_type = "sleep_lightning"

    def __init__(
        self,
        sleep: Mapping[str, Any] | None = None,
        vocab_size: int = 0,
        hidden_size: int = 0,
        num_hidden_layers: int = 0,
        **kwargs: Any,
    ) -> None:
        self.sleep = dict(sleep or {})
        self.vocab_size, self.hidden_size, self.num_hidden_layers = vocab_size, hidden_size, num_hidden_layers
        super().__init__(**{"use_cache": False} | kwargs)


class SleepingForCausalLM(PreTrainedModel, GenerationMixin):  # type: ignore[misc]
    """A tuned model that sleeps whenever a window is full.

    What windows have left is kept from one call to the next, and read again if the next call's tokens begin with the
    same windows: ``generate`` computes the tokens of one window a token, and no window twice.
    """

    config_class = SleepingConfig
    _no_split_modules: tuple[str, ...] = ("Block",)

    def __init__(self, config: SleepingConfig, model: HybridLM | None = None) -> None:
        super().__init__(config)
        if model is None:
            raise ValueError("load it with from_pretrained('DIR/sleep'), DIR being what export wrote")
        if k := config.sleep.get("retrieved_windows"):
            raise ValueError(
                f"sleep.retrieved_windows={k}: through the Auto classes it would answer without retrieval; use "
                f"sleep_lightning's own test, or export with 0"
            )
        self.model, self.sleep_config = model, SleepConfig(**config.sleep)
        self._slept: dict[int, tuple[Tensor, Memory]] = {}
        self.post_init()

    def _init_weights(self, module: Any) -> None:
        """They are there."""

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, config: Any = None, dtype: Any = None, **kwargs: Any) -> Self:
        """Read ``DIR/sleep``.

        Args:
            path: that directory.
            args: unused.
            config: in place of its config.
            dtype: of the weights, or its name; None or ``auto``: fp32.
            kwargs: ``device_map`` of one device is honoured; other keys of transformers are not.

        Raises:
            ValueError: a dtype that weights do not have, or a directory or sleep that cannot be loaded.
        """
        chosen = config if isinstance(config, SleepingConfig) else SleepingConfig.from_pretrained(path)
        model = load_pretrained(Path(path).parent, dtype=_dtype(dtype or kwargs.get("torch_dtype")))
        devices = kwargs.get("device_map")
        device = next(iter(devices.values())) if isinstance(devices, Mapping) and devices else devices
        loaded = cls(chosen, model).eval()
        return loaded if device in (None, "auto") else loaded.to(device)

    def get_input_embeddings(self) -> Any:
        return self.model.embedding

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        last_window: bool = False,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """Logits ``[B, T, vocab]`` of all tokens (of the last windows' with ``last_window``), and the next-token loss.

        Windows of a row begin behind its padding on the left, where logits are zeros; rows with as much run together.
        """
        pads = [0] * len(input_ids) if attention_mask is None else (attention_mask.cumsum(1) == 0).sum(1).tolist()
        found: dict[int, Tensor] = {}
        if last_window:  # of prompts padded otherwise nothing will be asked again
            self._slept = {pad: kept for pad, kept in self._slept.items() if pad in pads}
        for pad in sorted(set(pads)):
            rows = [i for i, one in enumerate(pads) if one == pad]
            tokens = input_ids[rows, pad:]
            start, memory = self._remembered(tokens, pad) if last_window else (0, self._nothing(tokens))
            read = self._read(tokens, start, memory, pad if last_window else None)
            found |= dict(zip(rows, read, strict=True))
        longest = max(1, *map(len, found.values())) if last_window else input_ids.shape[1]
        logits = torch.stack([F.pad(found[i], (0, 0, longest - len(found[i]), 0)) for i in range(len(pads))])
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        return CausalLMOutput(loss=loss, logits=logits)

    def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> dict[str, Any]:
        """All tokens at every step: memory is kept here, and not in a cache of transformers'."""
        return {"input_ids": input_ids, "attention_mask": kwargs.get("attention_mask"), "last_window": True}

    def _read(self, tokens_BT: Tensor, start: int, memory: Memory, kept_as: int | None) -> Tensor:
        """Logits of all windows from ``start`` on; of the last, and what the others left is kept, if that has a key.
        Without tokens there are none."""
        c, last_window = self.sleep_config, kept_as is not None
        pieces = [torch.zeros(len(tokens_BT), 0, self.model.vocab_size, device=tokens_BT.device)]
        for first in range(start, tokens_BT.shape[1], c.window_size):
            tokens_BL = tokens_BT[:, first : first + c.window_size]
            if not last_window or first + c.window_size >= tokens_BT.shape[1]:
                pieces.append(self.model.logits(wake(self.model, tokens_BL, memory, c)[0]))
            if first + c.window_size < tokens_BT.shape[1]:
                memory = sleep(self.model, tokens_BL, memory, c)
                if kept_as is not None:
                    self._slept[kept_as] = tokens_BT[:, : first + c.window_size].clone(), memory.detach()
        return torch.cat(pieces, 1)

    def _remembered(self, tokens_BT: Tensor, kept_as: int) -> tuple[int, Memory]:
        """How many tokens have been slept on already, at most all but the last window, and what they left."""
        if kept_as in self._slept:
            before, memory = self._slept[kept_as]
            n = before.shape[1]
            if n < tokens_BT.shape[1] and len(before) == len(tokens_BT) and torch.equal(before, tokens_BT[:, :n]):
                return n, memory
        return 0, self._nothing(tokens_BT)

    def _nothing(self, tokens_BT: Tensor) -> Memory:
        return zero_memory(self.model, len(tokens_BT), self.sleep_config)


def _dtype(given: Any) -> torch.dtype:
    """transformers' ``dtype``: one of torch's, or its name."""
    if given is None or given == "auto":
        return torch.float32
    found = getattr(torch, given.removeprefix("torch."), None) if isinstance(given, str) else given
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ValueError(f"dtype={given!r} is no dtype of weights; use bfloat16, float16 or float32")
    return found


AutoConfig.register(SleepingConfig.model_type, SleepingConfig, exist_ok=True)
AutoModelForCausalLM.register(SleepingConfig, SleepingForCausalLM, exist_ok=True)
