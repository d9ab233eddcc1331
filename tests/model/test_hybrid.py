import pytest
import torch

from sleep_lightning.model import HybridLM, Memory, ModelConfig
from sleep_lightning.model.parameter_groups import hidden_matrices
from tests.conftest import tiny_model
from tests.model.styles import STYLES


@pytest.mark.parametrize("pattern", ["G", "AG", "GA", "AGAG", "GGA", "A", "AHAH", "DA", "AJ", "GHDJ"])
@pytest.mark.parametrize("conv", ["off", "reset", "carried"])
def test_write_is_blocks_without_the_dead_tail(pattern: str, conv: str) -> None:
    if conv == "off" and "J" in pattern:
        pytest.skip("a Jet block has a convolution")
    model = tiny_model(pattern=pattern, conv_size=0 if conv == "off" else 4)
    memory = model.zero_memory(2, carry_conv_state=conv == "carried").map(torch.randn_like)
    h = torch.randn(2, 6, 16)
    _, expected = model.blocks(h, memory)
    written = model.write(h, memory)
    for a, b in zip((*written.states, *written.conv), (*expected.states, *expected.conv), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("pattern", ["AGAG", "AHAH", "ADAD", "AJAJ"])
def test_blocks_are_causal_inside_a_window(pattern: str) -> None:
    model = tiny_model(pattern=pattern)
    h = torch.randn(1, 8, 16)
    changed = h.clone()
    changed[:, 5:] += 1
    memory = model.zero_memory(1)
    torch.testing.assert_close(model.blocks(h, memory)[0][:, :5], model.blocks(changed, memory)[0][:, :5])


def test_sizes_default_as_documented() -> None:
    config = ModelConfig(d_model=256, n_heads=4)
    assert (config.mlp_width, config.key_dim_per_head, config.value_dim_per_head) == (704, 64, 64)
    model = HybridLM(config, 3)
    assert model.zero_memory(2).nbytes == 2 * 2 * 4 * 64 * 64 * 4  # layers x batch x heads x K x V x fp32
    assert 3.0e6 < sum(p.numel() for p in model.parameters()) < 3.8e6


def test_head_is_tied_or_not() -> None:
    tied, untied = tiny_model(tie_embeddings=True), tiny_model(tie_embeddings=False)
    assert tied.head.weight is tied.embedding.weight
    assert untied.head.weight is not untied.embedding.weight


def test_gates_start_as_in_the_method() -> None:
    layer = HybridLM(ModelConfig(d_model=64, n_heads=32), 3).memory_layers[0]
    assert layer.A_log.exp().max() <= 16
    dt = torch.nn.functional.softplus(layer.dt_bias)
    assert 1e-3 * 0.99 <= dt.min()
    assert dt.max() <= 1e-1 * 1.01


def test_memory_saves_and_loads_without_pickle(tmp_path) -> None:  # type: ignore[no-untyped-def]
    memory = tiny_model().zero_memory(2, carry_conv_state=True).map(torch.randn_like)
    memory.save(tmp_path / "memory.safetensors")
    loaded = Memory.load(tmp_path / "memory.safetensors")
    for a, b in zip((*memory.states, *memory.conv), (*loaded.states, *loaded.conv), strict=True):
        assert torch.equal(a, b)
    assert loaded.nbytes == memory.nbytes
    (tmp_path / "junk").write_bytes(b"junk" * 10)
    with pytest.raises(ValueError, match="is not a memory file"):
        Memory.load(tmp_path / "junk")


@pytest.mark.parametrize("style", STYLES)
def test_the_matrices_that_muon_is_given_are_whole(style: str) -> None:
    model = tiny_model(**STYLES[style])
    for weight, rows in hidden_matrices(model):
        assert sum(rows) == len(weight)
    for block, letter in zip(model.stack, model.config.pattern, strict=True):
        assert (block.mlp is None) == letter.islower()


YARN = {"rope_type": "yarn", "factor": 4, "original_max_position_embeddings": 64}
LLAMA3 = YARN | {"rope_type": "llama3", "low_freq_factor": 1, "high_freq_factor": 4}


@pytest.mark.parametrize(
    "optional", [{}, {"attention_factor": 1.2, "beta_fast": 8, "beta_slow": None, "truncate": False}]
)
def test_what_yarn_need_not_be_told_is_taken(optional: dict[str, object]) -> None:
    assert ModelConfig(rope_scaling=YARN | optional).rope_scaling["factor"] == 4


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"n_heads": 4, "kv_heads": 3}, r"model\.kv_heads=3 must divide model\.n_heads=4; use one of \[1, 2, 4\]"),
        ({"rope_fraction": 0.1}, r"model\.rope_fraction=0\.1 of the head dim 32 must be an even"),
        ({"rope_scaling": {"rope_type": "ntk"}}, r"model\.rope_scaling\.rope_type='ntk' is not known"),
        ({"rope_scaling": {"rope_type": "yarn"}}, r"model\.rope_scaling of rope_type=yarn lacks factor"),
        ({"rope_scaling": {"rope_type": "linear", "factor": 0}}, r"model\.rope_scaling\.factor=0 must be"),
        (
            {"rope_scaling": YARN | {"attention_factor": "abc"}},
            r"rope_scaling\.attention_factor='abc' must be a number",
        ),
        ({"rope_scaling": YARN | {"beta_fast": -3}}, r"model\.rope_scaling\.beta_fast=-3 must be a number above 0"),
        ({"rope_scaling": YARN | {"beta_slow": 0}}, r"model\.rope_scaling\.beta_slow=0 must be a number above 0"),
        ({"rope_scaling": YARN | {"truncate": "no"}}, r"model\.rope_scaling\.truncate='no' must be true or false"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1}}, r"low_freq_factor=1 must be below high_freq_factor=1"),
        ({"rope_base": 0}, r"model\.rope_base=0 must be above 1; use 10000"),
        ({"rope_base": 1, "rope_scaling": YARN}, r"model\.rope_base=1 must be above 1"),
        ({"norm_eps": -1}, r"model\.norm_eps=-1 must be from 0"),
        ({"attention_windows": [3]}, r"model\.attention_windows=\[3\] must hold .* each of the 2 blocks"),
        ({"value_heads": 3}, r"model\.value_heads=3 must be a multiple of the 2 heads"),
        ({"vocab_size": 0}, r"model\.vocab_size=0 must be at least 1"),
        ({"insert": {"every": 2}}, r"model\.insert=.* needs model\.pretrained"),
        ({"n_heads": 3}, r"model\.n_heads=3 .*use one of \[1, 2, 4, 8"),
        ({"pattern": ""}, r"model\.pattern=''"),
        ({"pattern": "AX"}, r"model\.pattern='AX' must be one or more of the letters A, G, H, D, J"),
        ({"pattern": "AJ", "conv_size": 0}, r"model\.conv_size=0 .*use G"),
        ({"d_model": 0}, r"model\.d_model=0 must be at least 1"),
        ({"gdn_heads": 5}, r"model\.gdn_heads=5 does not divide"),
        ({"expand_v": 0.3}, r"model\.expand_v=0\.3"),
        ({"conv_size": -1}, r"model\.conv_size=-1"),
        ({"d_model": 7, "n_heads": 1}, r"model\.d_model=7 must be even"),
    ],
)
def test_impossible_sizes_are_refused(overrides: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelConfig(**overrides)  # type: ignore[arg-type]
