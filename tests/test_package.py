"""What a wheel must hold beside modules."""

import tomllib
from fnmatch import fnmatch

from tests.cli.cli import ROOT

PACKAGE = ROOT / "sleep_lightning"


def test_every_data_file_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    declared = project["tool"]["setuptools"]["package-data"]["sleep_lightning"]
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert {".cpp", ".h", ".typed"} <= {path.suffix or path.name for path in files}
    for path in files:
        name = path.relative_to(PACKAGE).as_posix()
        assert any(fnmatch(name, pattern) for pattern in declared), name


def test_every_folder_with_modules_is_a_package() -> None:
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert not [folder for folder in folders if not (folder / "__init__.py").exists()]


def test_constraints_pin_what_is_required() -> None:
    """Every direct dependency, extras included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(x for extra in project["optional-dependencies"].values() for x in extra)]
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").open()}
    for requirement in required:
        name = requirement.split(";")[0].split("[")[0].split(">")[0].split("<")[0].strip().lower()
        assert name in pinned, requirement
