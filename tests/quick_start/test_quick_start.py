"""In interpreters of their own: what a process has imported cannot be taken back."""

import gc
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sleep_lightning.quick_start import no_garbage_collection
from tests.cli.cli import environment, fit_arguments

HEAVY = [
    *("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy"),
    *("torchmetrics.functional", "torchmetrics.text", "transformers", "scipy.signal", "scipy.stats"),
    *("fla", "plotly", "optuna", "playwright", "tensorboard", "sklearn"),
]
QUICK = "import sys; from sleep_lightning.quick_start import import_heavy_packages; import_heavy_packages(None)\n"


def python(code: str, cwd: Path, *arguments: str, path: Path | None = None) -> subprocess.CompletedProcess[str]:
    found = environment()
    if path is not None:
        found["PYTHONPATH"] = f"{path}{os.pathsep}{found['PYTHONPATH']}"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, cwd=cwd, env=found, capture_output=True, text=True, timeout=240)


def test_a_whole_fit_imports_none_of_the_heavy_packages(tmp_path: Path) -> None:
    code = (
        "import gc, json, sys; from sleep_lightning.__main__ import main; code = main(sys.argv[1:])\n"
        f"print(json.dumps([code, gc.isenabled(), [name for name in {HEAVY} if name in sys.modules]]))"
    )
    done = python(code, tmp_path, *fit_arguments("run", 1, "training.accelerator=cpu"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [0, True, []]
    assert "leaked" not in done.stderr  # Triton's binding, about what no collector has freed
    assert (tmp_path / "run" / "summary.json").exists() and (tmp_path / "mlflow.db").exists()


def test_torchmetrics_is_whole_for_whoever_uses_it(tmp_path: Path) -> None:
    code = QUICK + (
        "import torch, lightning.pytorch as pl\n"
        "assert 'torchmetrics.functional' not in sys.modules\n"
        "import torchmetrics, torchmetrics.metric\n"
        "assert torchmetrics.Metric is torchmetrics.metric.Metric is pl.core.module.Metric\n"
        "assert 'Accuracy' in dir(torchmetrics) and type(torchmetrics) is type(sys)\n"
        "from torchmetrics import MeanMetric, functional\n"
        "mean = MeanMetric(); mean.update(torch.tensor([1.0, 3.0]))\n"
        "assert isinstance(mean, pl.core.module.Metric) and mean.compute() == 2\n"
        "assert functional.accuracy(torch.tensor([1]), torch.tensor([1]), task='binary') == 1\n"
        "assert not hasattr(torchmetrics, 'nonsense')\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_lightning_knows_compiled_modules_once_there_is_a_compiler(tmp_path: Path) -> None:
    code = QUICK + (
        "import torch; from lightning.pytorch.utilities import compile\n"
        "assert 'torch._dynamo' not in sys.modules\n"
        "plain = torch.nn.Linear(2, 2); assert not isinstance(plain, compile.OptimizedModule)\n"
        "compiled = torch.compile(plain, backend='eager'); import torch._dynamo\n"
        "assert isinstance(compiled, torch._dynamo.OptimizedModule) and isinstance(compiled, compile.OptimizedModule)\n"
        "assert not isinstance(plain, compile.OptimizedModule)\n"
        "assert torch.equal(compiled(torch.ones(2)), plain(torch.ones(2)))\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


def test_disabled_functions_stay_out_of_the_compiler(tmp_path: Path) -> None:
    code = (
        "import torch; from sleep_lightning.quick_start.dynamo_stand_in import without_dynamo\n"
        "with without_dynamo():\n"
        "    inner = torch.compiler.disable(lambda x: (seen.append(torch.compiler.is_compiling()), x + 1)[1])\n"
        "seen = []; assert inner(1) == 2\n"
        "outer = torch.compile(lambda x: inner(x) * 2, backend='eager'); assert outer(torch.ones(1)) == 4\n"
        "assert seen == [False, False], seen\n"
        "import torch._dynamo; assert torch._dynamo.utils.counters['graph_break']\n"
    )
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("wish", ["from torch._dynamo import eval_frame", "import torch._dynamo.eval_frame"])
def test_another_lightning_that_wants_more_gets_it(tmp_path: Path, wish: str) -> None:
    package = tmp_path / "lightning" / "pytorch"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").write_text(f"import torch\n{wish}\nfound = torch._dynamo.eval_frame.OptimizedModule\n")
    code = QUICK + "import torch._dynamo as d, lightning.pytorch as pl; assert pl.found is d.OptimizedModule"
    done = python(code, tmp_path, path=tmp_path)
    assert done.returncode == 0, done.stderr


def test_a_lightning_that_is_broken_says_so_itself(tmp_path: Path) -> None:
    (tmp_path / "lightning").mkdir()
    (tmp_path / "lightning" / "__init__.py").write_text("raise RuntimeError('broken')")
    done = python(QUICK, tmp_path, path=tmp_path)
    assert done.returncode == 1 and done.stderr.endswith("RuntimeError: broken\n")


def test_no_garbage_is_collected_inside_only() -> None:
    def fail() -> None:
        with no_garbage_collection():
            with no_garbage_collection():
                assert not gc.isenabled()
            assert not gc.isenabled()
            raise ValueError

    assert gc.isenabled()
    with pytest.raises(ValueError):
        fail()
    assert gc.isenabled()
