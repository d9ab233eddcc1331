"""torch._dynamo takes as long to import as torch. Lightning wants two things of it at its own import:

* the class of compiled modules, to ask whether a module is one. None is while torch._dynamo is not imported.
* ``disable``, which keeps torch.compile out of a function. There is nothing to keep out before then.

Both have a stand-in here that turns to torch._dynamo as soon as somebody else has imported it.
"""

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

DYNAMO = "torch._dynamo"


def _imported(member: str) -> Any:
    """A member of the real torch._dynamo; None while it is not imported."""
    module = sys.modules.get(DYNAMO)
    return None if module is None or isinstance(module, _StandIn) else getattr(module, member, None)


class _CompiledModules(type):
    def __instancecheck__(cls, instance: object) -> bool:
        real = _imported("OptimizedModule")
        return real is not None and isinstance(instance, real)


class OptimizedModule(metaclass=_CompiledModules):
    """Its instances are those of ``torch._dynamo.OptimizedModule``."""


def disable(
    fn: Callable[..., Any] | None = None, recursive: bool = True, *, reason: str | None = None, **more: Any
) -> Any:
    """``torch._dynamo.disable`` of a function, once there is a torch._dynamo."""
    if fn is None or more:
        return import_module(DYNAMO).disable(fn, recursive, reason=reason, **more)
    disabled: Callable[..., Any] | None = None

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal disabled
        if disabled is None and (real := _imported("disable")) is not None:
            disabled = real(fn, recursive, reason=reason)
        return (disabled or fn)(*args, **kwargs)

    return call


class _StandIn(ModuleType):
    """In the place of torch._dynamo; gives way to it when asked for anything else."""

    OptimizedModule = OptimizedModule
    disable = staticmethod(disable)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import statement asks every module for its __path__
            raise AttributeError(name)
        if sys.modules.get(DYNAMO) is self:
            del sys.modules[DYNAMO]
        return getattr(import_module(DYNAMO), name)


@contextmanager
def without_dynamo() -> Iterator[None]:
    """While Lightning is imported. Nothing if torch._dynamo is there already."""
    if DYNAMO in sys.modules:
        yield
        return
    stand_in = _StandIn(DYNAMO)
    sys.modules[DYNAMO] = stand_in
    try:
        yield
    finally:
        if sys.modules.get(DYNAMO) is stand_in:
            del sys.modules[DYNAMO]
