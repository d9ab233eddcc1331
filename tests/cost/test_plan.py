"""Plans without weights and without a GPU, against what the same code keeps on CPU."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from sleep_lightning.__main__ import main
from sleep_lightning.cli.commands.plan import load
from sleep_lightning.config import Experiment, TrainingConfig, load_experiment
from sleep_lightning.cost.activation_memory import probe_pass
from sleep_lightning.cost.plan import POLICIES, plan
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.model import ModelConfig
from sleep_lightning.ops import attention, non_finite
from sleep_lightning.ops.cpp import build
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.tasks import Rule110Config
from tests.cli.cli import ROOT
from tests.model.styles import STYLES
from tests.pretrained.published import write_configs


def experiment(precision: str = "fp32", **model: object) -> Experiment:
    config = ModelConfig(**({"d_model": 64, "n_heads": 2, "backend": "chunked"} | model))  # type: ignore[arg-type]
    task = Rule110Config(ring_size=12, n_strings=3, steps=[1])
    training = TrainingConfig(batch_size=16, precision=precision, accelerator="cpu")  # type: ignore[arg-type]
    return Experiment(task, config, SleepConfig(12, 2), training)


@pytest.mark.parametrize("style", [None, *STYLES])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_is_what_the_same_operations_keep_on_cpu(
    precision: str, style: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To a percent where the CPU runs what a GPU does; its shortcuts for finite numbers keep up to a tenth less."""
    e = experiment(precision, **(STYLES[style] if style else {}))
    found = plan(e, 1, 2**30, [1, 4])
    monkeypatch.setenv(build.SWITCH, "0")  # no C++ kernels
    for way in found.ways:
        t = replace(e.training, checkpointing=way.checkpointing)
        same = replace(e, sleep=replace(e.sleep, n_passes=way.n_passes), training=t)
        measured = predict_step_memory(same, same.build_model())
        assert way.nbytes == pytest.approx(measured, rel=0.1 if style != "ouro" else 0.11)
        with monkeypatch.context() as gpu:
            for room in (attention, non_finite):
                gpu.setattr(room, "maybe_non_finite", lambda *_: True)
            gpu.setattr(attention, "SHORT", 0)
            measured = predict_step_memory(same, same.build_model())
        assert way.nbytes == pytest.approx(measured, rel=0.002)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_attention_map_is_planned(precision: str) -> None:
    """A fused kernel keeps none: twice the window takes twice the memory of a pass, not four times."""
    L = 512
    e = experiment(precision)
    with FakeTensorMode():
        model = e.build_model()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        one, two = (probe_pass(model, n * L).full for n in (1, 2))
    assert two == pytest.approx(2 * one, rel=0.02)


SHIPPED = [file.stem for file in sorted((ROOT / "conf").glob("*.yaml")) if "  pretrained:" not in file.read_text()]


@pytest.mark.parametrize("name", ["depo", *(pytest.param(one, marks=pytest.mark.slow) for one in SHIPPED)])
def test_shipped_experiments_are_planned(name: str) -> None:
    """A scale that follows from N, as Depo's has it, makes the experiment be checked again."""
    e = load_experiment(ROOT / "conf" / f"{name}.yaml")
    [none, *others] = plan(e, 1, 2**40, [1]).ways
    assert none.nbytes >= max(way.nbytes for way in others) > 0


def passes_of(e: Experiment, *passes: int) -> list[int]:
    return list(dict.fromkeys(way.n_passes for way in plan(e, 1, 2**40, passes).ways))


def test_without_passes_they_are_those_that_the_experiment_takes() -> None:
    e = experiment()
    short = replace(e, sleep=SleepConfig(12, 3, grad_passes=3))  # of N = 1 and 2 all passes have a gradient
    assert passes_of(short) == [1, 2, 3, 4]
    attention = replace(e, model=replace(e.model, pattern="AAAA"), sleep=SleepConfig(12, 1))
    assert passes_of(attention) == [1]
    with pytest.raises(ValueError, match=r"sleep\.n_passes=2 with model\.pattern='AAAA' has no effect"):
        passes_of(attention, 2)


def test_each_n_that_is_drawn_is_planned_alone() -> None:
    e = experiment()
    drawn = replace(e, sleep=SleepConfig(12, 5), training=replace(e.training, sampled_passes=[1, 3]))
    assert passes_of(drawn) == [1, 2, 3, 4]
    for n in (1, 3):
        alone = plan(replace(e, sleep=SleepConfig(12, n)), 1, 2**40, [n])
        assert plan(drawn, 1, 2**40, [n]).ways == alone.ways


@pytest.mark.slow
def test_what_fits_is_the_least_change() -> None:
    e = experiment()
    whole = {way.checkpointing: way.nbytes for way in plan(e, 1, 2**40, [4]).ways}
    assert [*whole] == list(POLICIES) and whole["none"] > whole["mlp"] > whole["pass"]
    for policy, nbytes in whole.items():
        fitting = plan(e, 1, nbytes, [4]).fitting[4]
        assert fitting is not None and fitting.nbytes <= nbytes
        assert POLICIES.index(fitting.checkpointing) <= POLICIES.index(policy) and fitting.accumulate == 1
    smaller = plan(e, 1, min(whole.values()) - 1, [4]).fitting[4]
    assert smaller is not None and smaller.accumulate > 1
    assert plan(e, 1, 1000, [4]).fitting[4] is None
    sharded = plan(e, 4, plan(e, 4, 2**40, [1]).ways[-1].nbytes - 1, [1]).fitting[1]
    assert sharded is not None and (sharded.sharding == "full" or sharded.accumulate > 1)


@pytest.mark.slow
def test_it_is_shown_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    run = ["plan", "--config", "conf/rule110.yaml", "--gpus", "1", "--passes", "1", "2"]
    assert main([*run, "--memory", "80GiB"]) == 0
    shown = capsys.readouterr().out
    assert "fits as it is" in shown and "parameters" in shown and "1 x H100 at 30%" in shown
    assert main([*run, "--memory", "1MB"]) == 1
    assert "in no way" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--memory", "1" * 320 + "GB"], "1GB must be a size such as 80GiB"),
        (["--memory", "lots"], "--memory lots must be a size such as 80GiB"),
        (["--gpus", "0"], "--gpus 0 must be from 1"),
        (["--gpu", "GTX"], "--gpu GTX is not known; use one of A100"),
        (["--utilization", "2"], "--utilization 2.0 must be above 0"),
        (["--passes", "0"], "--passes [0] must be from 1"),
        (["--gpus", "3"], "training.batch_size"),
        (["training.compile=true"], "plan cannot predict training.compile"),
    ],
)
def test_wrong_input_is_one_sentence(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", "conf/rule110.yaml", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


@pytest.mark.slow
def test_ouro_at_full_size_takes_seconds(tmp_path: object) -> None:
    """1.4B parameters with six Jet layers, 12,000 tokens: no weights, no GPU."""
    e = load_experiment("conf/rule110.yaml")
    model = ModelConfig(
        d_model=2048, pattern="AAAAj" * 6, n_heads=16, d_ff=5632, vocab_size=49152, gdn_heads=8, key_dim=128,
        value_dim=256, norm_placement="sandwich", qk_norm=False, residual_scale=1.0,
    )  # fmt: skip
    task = Rule110Config(ring_size=48, n_strings=250, steps=[1])
    training = replace(e.training, batch_size=8, precision="bf16")
    ouro = Experiment(task, model, SleepConfig(48 * 25, 4), training)
    found = plan(ouro, 8, 80 * 2**30, [4])
    assert found.parameters == pytest.approx(1.55e9, rel=0.01)
    assert found.fitting[4] is not None


@pytest.mark.long
def test_a_directory_with_its_config_alone_is_planned_with_the_tasks_own_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_configs(tmp_path, tokenizer=False)
    monkeypatch.chdir(tmp_path)
    config = str(ROOT / "conf" / "gsm_infinite_ouro.yaml")
    planned, tokenizer = load(config, ["training.seed=3"])
    assert (planned.task.tokenizer, tokenizer, planned.training.seed) == ("words", "words", 3)  # type: ignore[attr-defined]
    assert planned.model.vocab_size == 49152  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"^task\.tokenizer=\./nowhere cannot be loaded"):
        load(config, ["task.tokenizer=./nowhere"])
