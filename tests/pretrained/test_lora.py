"""Adapters on a frozen pretrained model: what learns, by hashes; merged exports; what they cost."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sleep_lightning.__main__ import main
from sleep_lightning.config import load_experiment
from sleep_lightning.cost.activation_memory import count_saved
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.plan import plan
from sleep_lightning.cost.step_memory import predict_step_memory
from sleep_lightning.formatting import with_unit
from sleep_lightning.model import HybridLM
from sleep_lightning.ops.cpp import build
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.training.gradients import accumulate_gradients
from sleep_lightning.training.module import SleepModule
from sleep_lightning.training.optimizer import MuonAdamW, build_optimizer
from tests.cost.test_flops import inverses
from tests.pretrained.snapshots import tokens, write
from tests.pretrained.test_families import logits_of
from tests.pretrained.test_fit import arguments, hashes

pytest.importorskip("peft")
pytestmark = pytest.mark.long
LORA = "model.lora={r: 4, lora_alpha: 8, target_modules: [qkv_proj, o_proj, gate_up_proj, down_proj]}"


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    write("llama", folder)
    return folder


@pytest.fixture(scope="module")
def run(snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps, stopped after three and resumed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    keys = [LORA, f"training.run_dir={folder}", "training.checkpoint_every=3", "training.adamw_lr=0.01"]
    assert main(["fit", *arguments(snapshot, *keys)]) == 0
    assert main(["fit", "--resume", str(folder), "training.max_steps=6"]) == 0
    return folder


def randomised(folder: Path, **lora: object) -> HybridLM:
    """Adapters as training leaves them."""
    model = load_pretrained(folder, {"every": 2}, lora={"r": 4} | lora)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name or "out_proj" in name:
                p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(4)), alpha=0.1)
    return model


def test_at_first_nothing_changes_to_the_bit(snapshot: Path) -> None:
    base, model, x = load_pretrained(snapshot), load_pretrained(snapshot, lora={"r": 4}), tokens(2, 12)
    assert torch.equal(logits_of(model, x), logits_of(base, x))


def test_frozen_weights_stay_and_adapters_and_memory_learn(run: Path, snapshot: Path) -> None:
    """Also through a resume; the loss moves."""
    before = hashes(load_pretrained(snapshot))
    module = SleepModule.load_from_checkpoint(run)
    assert isinstance(module.model, HybridLM)
    now = {name.replace(".base_layer.", "."): value for name, value in hashes(module.model).items()}
    blocks = {0: 0, 1: 1, 3: 2, 4: 3}  # of AAgAAg, in the file
    for block, layer in blocks.items():
        for name, value in before.items():
            if name.startswith(f"layers.{layer}."):
                assert now[name.replace(f"layers.{layer}.", f"layers.{block}.")] == value, name
    assert all(now[name] == before[name] for name in ("embedding.weight", "norm.weight", "head.weight"))
    learning = {name for name, p in module.model.named_parameters() if p.requires_grad}
    assert {name.split(".")[1] for name in learning if ".lora_" not in name} == {"2", "5"}
    adapters = [p for name, p in module.model.named_parameters() if "lora_B" in name]
    assert len(adapters) == 4 * 4 and all(p.abs().max() > 0 for p in adapters)
    losses = [row["loss"] for row in torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["history"]]
    assert losses[-1] != losses[0]


def test_the_resumed_run_is_the_one_in_one_go(run: Path, snapshot: Path, tmp_path: Path) -> None:
    keys = [LORA, f"training.run_dir={tmp_path / 'whole'}", "training.max_steps=6", "training.adamw_lr=0.01"]
    assert main(["fit", *arguments(snapshot, *keys)]) == 0
    whole, resumed = (
        SleepModule.load_from_checkpoint(folder / "checkpoints" / "last.ckpt") for folder in (tmp_path / "whole", run)
    )
    assert hashes(whole.model).keys() == hashes(resumed.model).keys()  # type: ignore[arg-type]
    same = {"layers.0.mixer.in_proj.base_layer.weight", "embedding.weight"}
    assert all(hashes(whole.model)[name] == hashes(resumed.model)[name] for name in same)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["llama", "llama tied", "qwen2", "qwen3_5"])
def test_a_merged_export_has_the_adapted_logits(kind: str, tmp_path: Path) -> None:
    write(kind, tmp_path / "base")
    targets = ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]
    model, x = randomised(tmp_path / "base", target_modules=targets, lora_alpha=16), tokens(2, 20)
    export(model, tmp_path / "tuned", SleepConfig(8, 2))
    again = load_pretrained(tmp_path / "tuned")
    assert not any("lora" in name for name, _ in again.named_parameters())
    for sleep in (SleepConfig(20), SleepConfig(8, 2)):
        expected = logits_of(model, x, sleep)
        assert not torch.allclose(expected, logits_of(load_pretrained(tmp_path / "base"), x, sleep), atol=1e-2)
        torch.testing.assert_close(
            logits_of(again, x, sleep), expected, rtol=0, atol=1e-5 * float(expected.abs().max())
        )


def test_transformers_loads_the_merged_base(snapshot: Path, tmp_path: Path) -> None:
    model = load_pretrained(snapshot, lora={"r": 4})
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1)
    export(model, tmp_path / "tuned")
    theirs, x = (
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "tuned", dtype=torch.float32),
        tokens(1, 12),
    )
    torch.testing.assert_close(logits_of(model, x), theirs(x).logits, rtol=1e-4, atol=1e-4)


def test_a_run_is_exported_merged(run: Path, tmp_path: Path) -> None:
    assert main(["export", "--checkpoint", str(run), "--output", str(tmp_path / "tuned")]) == 0
    trained, again, x = SleepModule.load_from_checkpoint(run).model, load_pretrained(tmp_path / "tuned"), tokens(2, 16)
    assert isinstance(trained, HybridLM)
    expected = logits_of(trained, x)
    torch.testing.assert_close(logits_of(again, x), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_muon_has_the_memory_and_adamw_the_adapters(snapshot: Path) -> None:
    e = load_experiment(None, arguments(snapshot, LORA))
    model = e.build_model()
    assert isinstance(model, HybridLM)
    optimizer = build_optimizer(model, e.training)
    assert isinstance(optimizer, MuonAdamW)
    names = {p: name for name, p in model.named_parameters()}
    muon, adamw = (
        {names[p] for group in one.param_groups for p in group["params"]} for one in (optimizer.muon, optimizer.adamw)
    )
    assert muon == {f"layers.{i}.mixer.{name}.weight" for i in (2, 5) for name in ("in_proj", "out_proj")}
    assert {name for name in adamw if ".lora_" in name} == {name for name in names.values() if ".lora_" in name}
    assert all(".lora_" in name or name.split(".")[1] in "25" for name in adamw)


def test_adapters_alone_train_without_any_matrix_for_muon(snapshot: Path) -> None:
    e = load_experiment(None, [*arguments(snapshot, LORA, "sleep.n_passes=1"), "model.insert={}"])
    torch.manual_seed(0)
    module = SleepModule(e)
    before, optimizer = hashes(module.model), build_optimizer(module.model, e.training)  # type: ignore[arg-type]
    accumulate_gradients(module.model, module.task.batch(4, seed=0, position=0), e.sleep)
    optimizer.step()
    assert {name for name, value in hashes(module.model).items() if value != before[name]} == {  # type: ignore[arg-type]
        name
        for name in before
        if "lora_B" in name  # A's gradient is zero while B is
    }
    optimizer.load_state_dict(optimizer.state_dict())


@pytest.mark.parametrize("key", ["model.lora.r=2", "model.lora.layers_to_transform=[3]"])
def test_a_sweep_changes_one_key(key: str, snapshot: Path) -> None:
    e = load_experiment(None, arguments(snapshot, LORA, key))
    model = e.build_model()
    adapters = {name: p for name, p in model.named_parameters() if ".lora_A" in name}  # type: ignore[attr-defined]
    if "r=" in key:
        assert len(adapters) == 16 and {len(p) for p in adapters.values()} == {2}
    else:
        assert {name.split(".")[1] for name in adapters} == {"4"}


def test_a_sweep_over_ranks(snapshot: Path, tmp_path: Path) -> None:
    base = load_experiment(None, arguments(snapshot, LORA))
    (tmp_path / "base.yaml").write_text(base.to_yaml())
    (tmp_path / "sweep.yaml").write_text("name: ranks\nbase: base.yaml\nspace: {model.lora.r: {choices: [2, 8]}}\n")
    assert main(["sweep", "run", str(tmp_path / "sweep.yaml"), "--dry-run"]) == 0


@pytest.mark.parametrize("more", [[], ["training.train=memory"], ["sleep.loop=1/3/2"], ["training.checkpointing=pass"]])
@pytest.mark.parametrize("passes", [1, 3])
@pytest.mark.slow
def test_flops_are_those_dispatched(
    passes: int, more: list[str], snapshot: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the first learning block's input, whose gradient is counted and not needed."""
    monkeypatch.setenv(build.SWITCH, "0")
    keys = [f"sleep.n_passes={passes}", "training.executor=windows", "model.backend=chunked", *more]
    e = load_experiment(None, arguments(snapshot, LORA, *keys))
    module = SleepModule(e)
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        batch = module.task.batch(4, seed=0, position=0)
        accumulate_gradients(module.model, batch, e.sleep, executor="windows", policy=e.training.checkpointing)
    cost = sequence_cost(e)
    assert counter.get_total_flops() == pytest.approx(4 * (cost.total - inverses(e)), rel=0.06)
    full = sequence_cost(replace(e, model=replace(e.model, lora={})))  # type: ignore[type-var]
    assert more or cost.backward.total() < 0.85 * full.backward.total()


def test_memory_is_predicted(snapshot: Path) -> None:
    e = load_experiment(None, arguments(snapshot, LORA, "training.executor=windows", "training.batch_size=32"))
    module = SleepModule(e)
    model, t = module.model, e.training
    assert isinstance(model, HybridLM)
    optimizer = build_optimizer(model, t)
    assert isinstance(optimizer, MuonAdamW)
    with count_saved(model) as saved:
        accumulate_gradients(model, module.task.batch(32, seed=0, position=0), e.sleep, executor="windows")
    optimizer.step()
    states = [x for one in (optimizer.muon, optimizer.adamw) for s in one.state.values() for x in s.values()]
    held = sum(x.nbytes for x in (*model.parameters(), *states))
    held += saved.nbytes + sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    predicted = predict_step_memory(e, model)
    assert predicted is not None and held < predicted < 1.4 * held
    [way] = [w for w in plan(e, 1, 2**30, [2]).ways if w.checkpointing == "none"]
    whole = plan(replace(e, model=replace(e.model, lora={})), 1, 2**30, [2]).ways[0]  # type: ignore[type-var]
    assert way.nbytes < whole.nbytes and way.flops < whole.flops


@pytest.mark.slow
def test_plan_and_cost_say_how_many_learn(snapshot: Path, capsys: pytest.CaptureFixture[str]) -> None:
    learning = sum(
        p.numel()
        for p in SleepModule(load_experiment(None, arguments(snapshot, LORA))).model.parameters()
        if p.requires_grad
    )
    for verb in ("plan", "cost"):
        assert main([verb, *arguments(snapshot, LORA)]) == 0
        assert f"of which {with_unit(learning)} learn" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ("{lora_alpha: 8}", "model.lora.r=None must be a whole number"),
        ("{r: 0}", "model.lora.r=0 must be a whole number"),
        ("{r: 4, lora_dropout: 0.1}", "model.lora.lora_dropout is no key of it; it takes r, lora_alpha"),
        ("{r: 4, lora_alpha: -1}", "model.lora.lora_alpha=-1 must be a number above 0"),
        ("{r: 4, use_rslora: 3}", "model.lora.use_rslora=3 must be true or false"),
        ("{r: 4, target_modules: qkv_proj}", "must be a list of qkv_proj, o_proj"),
        ("{r: 4, target_modules: 5}", "model.lora.target_modules=5 must be a list of qkv_proj, o_proj"),
        ("{r: 4, target_modules: [[a]]}", "model.lora.target_modules: ['a'] must be one of qkv_proj"),
        ("{r: 4, target_modules: [q_proj]}", "q_proj is a part of one projection here; use qkv_proj"),
        ("{r: 4, target_modules: [lm_head]}", "'lm_head' must be one of qkv_proj"),
        ("{r: 4, layers_to_transform: [4]}", "model.lora.layers_to_transform=[4] must be from 0 to 3"),
        ("{r: 4, layers_to_transform: 4}", "must be a list of numbers of blocks"),
    ],
)
def test_wrong_keys_are_one_sentence(
    lora: str, message: str, snapshot: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *arguments(snapshot, f"model.lora={lora}")]) == 2
    output = capsys.readouterr()
    assert message in " ".join((output.out + output.err).split()) and "Traceback" not in output.err


def test_adapters_need_a_pretrained_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "model.lora={r: 4}"]) == 2
    assert "needs model.pretrained" in " ".join(capsys.readouterr().err.split())
