"""transformers takes fla's kernels where they are installed, also on CPU, where they do not run."""

import inspect

import pytest


@pytest.fixture(autouse=True)
def _torch_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.qwen3_5 import modeling_qwen3_5 as qwen

    for name in ("torch_chunk_gated_delta_rule", "torch_recurrent_gated_delta_rule", "causal_conv1d_fn"):
        monkeypatch.setattr(qwen, name, inspect.unwrap(getattr(qwen, name)))
