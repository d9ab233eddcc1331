"""torchmetrics for Lightning: the two classes it uses, without the hundred others and scipy and transformers."""

import logging
import sys
import threading
from importlib import import_module
from importlib.util import find_spec, module_from_spec
from types import ModuleType
from typing import Any

_lock = threading.RLock()


class PostponedPackage(ModuleType):
    """A package whose ``__init__`` runs when an attribute is wanted that is not there yet."""

    def __getattr__(self, name: str) -> Any:
        _run_init(self)
        return getattr(self, name)

    def __dir__(self) -> list[str]:
        _run_init(self)
        return dir(self)


class _Running(ModuleType):
    """One whose ``__init__`` is running: other threads wait for its end."""

    def __getattr__(self, name: str) -> Any:
        with _lock:
            return object.__getattribute__(self, name)


def _run_init(package: PostponedPackage) -> None:
    with _lock:
        if type(package) is not PostponedPackage:  # it ran while we waited
            return
        spec = package.__spec__
        assert spec is not None and spec.loader is not None
        package.__class__ = _Running  # type: ignore[assignment]
        try:
            spec.loader.exec_module(package)
        except BaseException:
            package.__class__ = PostponedPackage
            raise
        package.__class__ = ModuleType  # type: ignore[assignment]


def postpone_torchmetrics() -> None:
    """Import ``Metric`` and ``MetricCollection``; the rest of the package comes when somebody uses it.

    Nothing happens if torchmetrics is there already, is not installed, or is a version in which that is not possible.
    """
    name = "torchmetrics"
    spec = None if name in sys.modules else find_spec(name)
    if spec is None:
        return
    package = module_from_spec(spec)
    sys.modules[name] = package
    try:
        package.__dict__["_logger"] = logging.getLogger(name)
        package.__dict__["__version__"] = import_module(f"{name}.__about__").__version__
        import_module(f"{name}.utilities")  # first: it and ``metric`` import each other
        for module, member in (("metric", "Metric"), ("collections", "MetricCollection")):
            package.__dict__[member] = getattr(import_module(f"{name}.{module}"), member)
    except Exception:
        forget(name)
    else:
        package.__class__ = PostponedPackage


def forget(name: str) -> None:
    """Make the next import of a package start from nothing."""
    for module in [module for module in sys.modules if module == name or module.startswith(f"{name}.")]:
        del sys.modules[module]
