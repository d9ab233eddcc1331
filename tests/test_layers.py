"""No room imports from a later one; the heavy libraries stay in their rooms."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "sleep_lightning"
FLOORS = [
    "accuracy",
    "formatting",
    "frontier",
    "lines",
    "names",
    "refusals",
    "tables",
    "timing",
    "machine",
    "redaction",
    "ops",
    "model",
    "sleep",
    "session",
    "pretrained",
    "tasks",
    "config",
    "cost",
    "runs",
    "training",
    "tracking",
    "compare",
    "sweep",
    "serve",
    "bench",
    "evidence",
    "testing",
    "cli",
    "__main__",
]
LOWEST = {
    "lightning": "training",
    "mlflow": "tracking",
    "omegaconf": "config",
    "matplotlib": "session",
    "optuna": "sweep",
    "fastapi": "serve",
    "starlette": "serve",
    "uvicorn": "serve",
    "prometheus_client": "serve",
}


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_no_import_goes_up() -> None:
    for path in PACKAGE.rglob("*.py"):
        if room(path) == "__init__":
            continue
        floor = FLOORS.index(room(path))
        for module in imports(path):
            parts = module.split(".")
            if parts[0] == "sleep_lightning" and len(parts) > 1:
                assert FLOORS.index(parts[1]) <= floor, f"{path.name} imports {module}"
            elif parts[0] in LOWEST:
                assert floor >= FLOORS.index(LOWEST[parts[0]]), f"{path.name} imports {module}"


@pytest.mark.process
def test_the_model_loads_without_trainers_and_kernels() -> None:
    code = (
        "import sys, sleep_lightning.tasks, sleep_lightning.sleep; "
        "print([m for m in ('lightning', 'mlflow', 'fla', 'triton', 'matplotlib', 'plotly') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True)
    assert done.stdout.strip() == "[]"
