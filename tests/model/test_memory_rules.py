"""Each memory rule written out token by token, and the common suite."""

import torch
from torch import Tensor
from torch.nn import functional as F

from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.fast_weights import FastWeights
from sleep_lightning.model.jet import JetBlock
from sleep_lightning.testing import MemoryRuleTestCase
from tests.conftest import tiny_model

Parts = tuple[Tensor, ...]


def parts(mixer: FastWeights, x_BTE: Tensor) -> Parts:
    """The parts of the input projection one by one: its gates may be a projection of their own, b with a bias."""
    if mixer.gate_proj is None:
        return mixer.in_proj(x_BTE).split(mixer.in_splits, -1)
    own, gates = (
        iter(mixer.in_proj(x_BTE).split(mixer.matrix_rows, -1)),
        mixer.gate_proj(x_BTE).split(mixer.n_heads, -1),
    )
    a_and_b = [*gates[:-1], gates[-1] + mixer.write_bias]
    before = [next(own) for _ in range(mixer.gate_parts)]
    return (*before, *a_and_b, *own)


def fixed_conv(mixer: FastWeights, qkv: Parts) -> Parts:
    x = torch.cat(qkv, -1)
    padded = F.pad(x.transpose(1, 2), (mixer.conv_size - 1, 0))
    y = F.conv1d(padded, mixer.conv_weight.t()[:, None], groups=x.shape[-1]).transpose(1, 2)
    return F.silu(y).split(mixer.in_splits[:3], -1)


def decay(mixer: FastWeights, a_BTH: Tensor) -> Tensor:
    assert mixer.A_log is not None and mixer.dt_bias is not None
    return torch.exp(-mixer.A_log.exp() * F.softplus(a_BTH + mixer.dt_bias))


def l2norm(mixer: FastWeights, x: Tensor) -> Tensor:
    """fla's, Qwen3-Next's and Jet-Nemotron's ``l2norm``."""
    assert mixer.qk_l2norm_eps == 1e-6
    return x / (x.square().sum(-1, keepdim=True) + 1e-6).sqrt()


def scan(
    mixer: FastWeights, qkv: Parts, a_BTH: Tensor, b_BTH: Tensor, gate: Tensor, S: Tensor, delta: bool
) -> tuple[Tensor, Tensor]:
    """The recurrence on ``S`` [B, H, K, V] with write strengths ``sigmoid(b)``, and the output."""
    q, k, v = (x.unflatten(-1, (mixer.n_heads, -1)) for x in qkv)
    q, k, b_BTH = l2norm(mixer, q) * mixer.key_dim**-0.5, l2norm(mixer, k), b_BTH.sigmoid()
    reads = []
    for t in range(q.shape[1]):
        S = a_BTH[:, t, :, None, None] * S
        held = (S * k[:, t, :, :, None]).sum(2) if delta else 0
        S = S + k[:, t, :, :, None] * (b_BTH[:, t, :, None] * (v[:, t] - held))[:, :, None]
        reads.append((S * q[:, t, :, :, None]).sum(2))
    normed = F.rms_norm(torch.stack(reads, 1), mixer.norm_weight.shape, mixer.norm_weight, mixer.norm_eps)
    return mixer.out_proj(normed.flatten(2) * F.silu(gate)), S


class TestGatedDeltaNet(MemoryRuleTestCase):
    letter = "G"

    def definition(self, mixer: FastWeights, x_BTE: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        *qkv, a, b, gate = parts(mixer, x_BTE)
        return scan(mixer, fixed_conv(mixer, tuple(qkv)), decay(mixer, a), b, gate, state, delta=True)


class TestGatedHebbian(MemoryRuleTestCase):
    letter = "H"

    def definition(self, mixer: FastWeights, x_BTE: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        *qkv, a, b, gate = parts(mixer, x_BTE)
        return scan(mixer, fixed_conv(mixer, tuple(qkv)), decay(mixer, a), b, gate, state, delta=False)


class TestDeltaNet(MemoryRuleTestCase):
    letter = "D"

    def definition(self, mixer: FastWeights, x_BTE: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        *qkv, b, gate = parts(mixer, x_BTE)
        return scan(mixer, fixed_conv(mixer, tuple(qkv)), torch.ones_like(b), b, gate, state, delta=True)


class TestJetBlock(MemoryRuleTestCase):
    letter = "J"

    def definition(self, mixer: FastWeights, x_BTE: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        assert isinstance(mixer, JetBlock)
        q, k, a, b, v, hidden, gate = parts(mixer, x_BTE)
        taps_BTJC = mixer.tap_proj(F.silu(hidden)).unflatten(-1, (mixer.conv_size, -1))
        past_BTCJ = F.pad(v, (0, 0, mixer.conv_size - 1, 0)).unfold(1, mixer.conv_size, 1)
        qkv = (F.silu(q), F.silu(k), F.silu((past_BTCJ.transpose(2, 3) * taps_BTJC).sum(2)))
        return scan(mixer, qkv, decay(mixer, a), b, gate, state, delta=True)

    def test_starts_as_a_fixed_convolution(self) -> None:
        [layer] = HybridLM(ModelConfig(d_model=64, n_heads=2, pattern="J"), 3).memory_layers
        assert isinstance(layer, JetBlock)
        assert not layer.tap_proj.weight.any()
        assert 0.4 < layer.tap_proj.bias.abs().max() <= 0.5
        assert layer.in_splits[-2] == 64 // 8


def test_a_model_may_mix_rules() -> None:
    model = tiny_model(pattern="GHDJ")
    assert model.config.writers() == [0, 1, 2, 3]
    assert [rule.name for rule in model.config.rules] == ["gated_delta_rule", "gated_hebbian"]
    memory = model.zero_memory(1, carry_conv_state=True)
    assert len({x.shape for x in memory.states}) == 1
    assert len({x.shape for x in memory.conv}) == 2  # the Jet block carries values only
