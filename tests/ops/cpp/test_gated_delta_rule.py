"""The C++ kernel: the common suite, its own corners (panels, segments, layouts, threads), and its build."""

import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from sleep_lightning.ops import gated_delta_rule
from sleep_lightning.ops.cpp import build
from sleep_lightning.ops.gated_delta_rule import cpp
from sleep_lightning.ops.gated_delta_rule.cpp import why_not_native
from sleep_lightning.testing import KernelTestCase
from sleep_lightning.testing.rule_calls import make_inputs, relative_error, run_rule


@pytest.fixture
def built() -> None:
    if reason := why_not_native(torch.ones(1, 1, 1, 1)):
        pytest.skip(reason)


@pytest.mark.usefixtures("built")
class TestNative(KernelTestCase):
    backend = "native"

    @pytest.mark.parametrize(("K", "V"), [(64, 64), (128, 48), (33, 100)])
    @pytest.mark.parametrize("read", [True, False])
    def test_heads_of_several_panels(self, K: int, V: int, read: bool) -> None:
        self.compare(make_inputs(2, 70, 2, K, V), read=read)

    @pytest.mark.parametrize("chunks", [1, 2, 3, 100])
    @pytest.mark.parametrize("with_state", [True, False])
    def test_segments_of_recomputed_states(
        self, chunks: int, with_state: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(cpp, "SEGMENT_FLOATS", chunks * 16 * 8)
        inputs = make_inputs(2, 170, 2, 16, 8)
        if not with_state:
            inputs["initial_state"].zero_()
        expected = run_rule("reference", {n: x.double() for n, x in inputs.items()})
        if not with_state:
            del inputs["initial_state"]
        actual = run_rule("native", inputs)
        for name in actual:
            assert relative_error(actual[name], expected[name]) <= self.tolerance, name

    def test_any_layout(self) -> None:
        """Heads before tokens, a slice of a fused projection, gates with the tokens last, an expanded gradient."""
        inputs = make_inputs(2, 40, 3, 16, 16)
        strided = dict(inputs)
        strided["q"] = inputs["q"].transpose(1, 2).contiguous().transpose(1, 2)
        strided["k"] = torch.cat((inputs["v"], inputs["k"], inputs["v"]), -1)[..., 16:32]
        strided["v"] = inputs["v"].transpose(2, 3).contiguous().transpose(2, 3)
        strided["g"] = inputs["g"].transpose(1, 2).contiguous().transpose(1, 2)
        strided["initial_state"] = inputs["initial_state"].transpose(2, 3).contiguous().transpose(2, 3)
        gradients = []
        for case in (inputs, strided):
            leaves = {n: x.detach().requires_grad_() for n, x in case.items()}
            o, state = gated_delta_rule(**leaves, backend="native")
            assert o is not None
            gradients.append([o, state, *torch.autograd.grad(o.sum() + state.sum(), list(leaves.values()))])
        for expected, actual in zip(*gradients, strict=True):
            torch.testing.assert_close(actual, expected, rtol=0, atol=0)

    def test_mixed_dtypes(self) -> None:
        inputs = make_inputs(1, 20, 2, 8, 8)
        inputs |= {"k": inputs["k"].bfloat16(), "v": inputs["v"].half(), "g": inputs["g"].double()}
        leaves = {n: x.requires_grad_() for n, x in inputs.items()}
        o, state = gated_delta_rule(**leaves, backend="native")
        assert o is not None and o.dtype == torch.float16 and state.dtype == torch.float32
        gradients = torch.autograd.grad(o.float().sum() + state.sum(), list(leaves.values()))
        assert [d.dtype for d in gradients] == [x.dtype for x in inputs.values()]

    def test_a_gate_of_minus_infinity_forgets_everything_before(self) -> None:
        inputs = make_inputs(1, 20, 2, 8, 8)
        inputs["g"][:, 7] = -torch.inf
        self.compare(inputs)

    def test_results_do_not_depend_on_the_number_of_threads(self) -> None:
        inputs, threads = make_inputs(3, 70, 3, 16, 20), torch.get_num_threads()
        try:
            results = []
            for n in (1, 2, 3, 2):
                torch.set_num_threads(n)
                results.append(run_rule("native", inputs))
        finally:
            torch.set_num_threads(threads)
        for other in results[1:]:
            for name, x in results[0].items():
                assert torch.equal(x, other[name]), name

    def test_saves_little_for_backward(self) -> None:
        """BPTT keeps every window and pass alive: the inputs but v, the errors, and no state per chunk."""
        leaves = {n: x.requires_grad_() for n, x in make_inputs(1, 512, 1, 16, 16).items()}
        saved: list[Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: saved.append(x) or x, lambda x: x):
            gated_delta_rule(**leaves, backend="native")
        allowed = sum(x.numel() for n, x in leaves.items() if n != "v") + leaves["v"].numel()
        assert sum(x.numel() for x in saved) == allowed
        saved.clear()
        with torch.no_grad():
            _, _, errors, states = torch.ops.sleep_lightning.gated_delta_rule(*leaves.values(), 1.0, False)
        assert errors.numel() == states.numel() == 0

    def test_a_second_derivative_is_refused(self) -> None:
        leaves = {n: x.requires_grad_() for n, x in make_inputs(1, 4, 1, 2, 2).items()}
        _, state = gated_delta_rule(**leaves, backend="native")
        (d_k,) = torch.autograd.grad(state.square().sum(), leaves["k"], create_graph=True)
        with pytest.raises(NotImplementedError, match="differentiable once"):
            d_k.sum().backward()

    def test_compiles_into_one_graph(self) -> None:
        leaves = {n: x.requires_grad_() for n, x in make_inputs(2, 40, 2, 8, 8).items()}
        results = []
        for call in (gated_delta_rule, torch.compile(gated_delta_rule, fullgraph=True, backend="aot_eager")):
            o, state = call(**leaves, backend="native")
            results.append([o, state, *torch.autograd.grad(o.sum() + state.square().sum(), list(leaves.values()))])
        for eager, compiled in zip(*results, strict=True):
            assert torch.equal(eager, compiled)

    @pytest.mark.parametrize("absent", ["nothing", "q", "initial_state"])
    def test_opcheck(self, absent: str) -> None:
        inputs = {n: x.requires_grad_() for n, x in make_inputs(1, 40, 2, 8, 8).items()} | {absent: None}
        arguments = [inputs[n] for n in ("q", "k", "v", "g", "beta", "initial_state")]
        forward = torch.ops.sleep_lightning.gated_delta_rule.default
        torch.library.opcheck(forward, (*arguments, 0.3, True))
        arguments = [None if x is None else x.detach() for x in arguments]
        o, final, errors, states = forward(*arguments, 0.3, True)
        q, k, _, g, beta, state = arguments
        d_o, needs_d_initial = (None if q is None else o), state is not None
        saved = (q, k, g, beta, state, errors, states, torch.float32, 0.3, needs_d_initial)
        torch.library.opcheck(torch.ops.sleep_lightning.gated_delta_rule_backward.default, (d_o, final, *saved))


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[pytest.MonkeyPatch]:
    """An empty cache directory, nothing loaded, the default compiler."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.delenv(build.SWITCH, raising=False)
    monkeypatch.setattr(build, "FLAGS", [*build.FLAGS, "-O0"])  # fast to compile
    build._load.cache_clear()
    yield monkeypatch
    build._load.cache_clear()


class TestBuild:
    @staticmethod
    def assert_falls_back(reason: str) -> None:
        inputs = make_inputs(1, 4, 1, 2, 2)
        with pytest.warns(RuntimeWarning, match=reason):
            gated_delta_rule(**inputs)
        with warnings.catch_warnings(action="error"):  # once, not at every call
            assert "native" not in gated_delta_rule.available(inputs["k"])
        with pytest.raises(ValueError, match=f"'native' cannot run here: .*{reason}"):
            gated_delta_rule.select(inputs["k"], "native")

    def test_no_compiler(self, fresh: pytest.MonkeyPatch) -> None:
        fresh.setattr("shutil.which", lambda name: None)
        self.assert_falls_back("no C\\+\\+ compiler .* set CXX")

    @pytest.mark.parametrize("command", ["false", "/no/such/compiler"])
    def test_a_compiler_that_does_not_work(self, fresh: pytest.MonkeyPatch, command: str) -> None:
        fresh.setenv("CXX", command)
        self.assert_falls_back(command)

    def test_a_source_that_does_not_compile(self, fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
        source = tmp_path / "broken.cpp"
        source.write_text("int broken(")
        fresh.setattr(build, "SOURCES", [*build.SOURCES, source])
        self.assert_falls_back("broken.cpp")

    @pytest.mark.filterwarnings("ignore:.* is not a folder; compiled code is kept in:RuntimeWarning")
    def test_no_directory_that_can_be_written(self, fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        fresh.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
        fresh.setattr("tempfile.tempdir", str(tmp_path / "file"))
        self.assert_falls_back("cannot be written: .*; set XDG_CACHE_HOME")

    def test_switched_off(self, fresh: pytest.MonkeyPatch) -> None:
        fresh.setenv(build.SWITCH, "0")
        k = make_inputs(1, 4, 1, 2, 2)["k"]
        assert why_not_native(k) == "disabled by SLEEP_LIGHTNING_NATIVE=0"
        assert "native" not in gated_delta_rule.available(k)

    def test_tensors_it_does_not_take(self) -> None:
        assert "float64" in (why_not_native(torch.ones(1, 1, 1, 1, dtype=torch.float64)) or "")
        assert "meta" in (why_not_native(torch.ones(1, 1, 1, 1, device="meta")) or "")

    @pytest.mark.usefixtures("built")
    def test_a_runtime_that_does_not_link_gives_way_to_the_systems(self, fresh: pytest.MonkeyPatch) -> None:
        fresh.setattr(build, "torch_openmp", lambda: ["/no/such/libgomp.so.1"])
        assert build.build().exists()

    @pytest.mark.usefixtures("built")
    def test_another_cpu_or_compiler_gets_a_library_of_its_own(self, fresh: pytest.MonkeyPatch) -> None:
        first = build.build()
        assert build.build() == first
        fresh.setattr(build, "_cpu", lambda: "another")
        assert build.build() != first

    @pytest.mark.usefixtures("built")
    @pytest.mark.slow
    def test_three_processes_build_at_once(self, fresh: pytest.MonkeyPatch, tmp_path: Path) -> None:
        code = "from sleep_lightning.ops.cpp import build as b; b.FLAGS += ['-O0']; b.load()"
        processes = [subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) for _ in range(3)]
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors.decode()
        left = list((tmp_path / "sleep_lightning").iterdir())
        assert sorted(path.suffix for path in left) == [".lock", ".so"]
