"""Loggers of other packages as a side service: one that cannot start is refused, one that fails later only warns."""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from lightning.pytorch.loggers import Logger

from sleep_lightning.redaction import one_line

_CALLS = ("log_metrics", "log_hyperparams", "log_graph", "after_save_checkpoint", "save", "finalize")


def started(logger: Logger, key: str, *, required: bool) -> Logger | None:
    """A logger that is ready to log, and whose failures from now on are warnings.

    Args:
        logger: just built; most open their files or log in when ``experiment`` is first read.
        key: what named it.
        required: raise if it cannot start; False: warn and do without it.

    Raises:
        ValueError: it cannot start, and is required.
    """
    name = type(logger).__name__
    try:
        getattr(logger, "experiment", None)
    except Exception as error:
        why = f"{key}: {name} cannot start: {one_line(error)}"
        if required:
            raise ValueError(f"{why}; mend that, drop it, or set tracking.required=false") from error
        warnings.warn(f"{why}; training without it", stacklevel=2)
        return None
    logger.__class__ = _tolerant(type(logger))
    return logger


def _tolerant(kind: type[Logger]) -> type[Logger]:
    """A subclass of the same name: callbacks may ask for ``isinstance(logger, WandbLogger)``."""
    calls = {name: _tolerated(getattr(kind, name)) for name in _CALLS}
    return type(kind.__name__, (kind,), {"__module__": kind.__module__, "__doc__": kind.__doc__, **calls})


def _tolerated(call: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(call)
    def run(self: Logger, *arguments: Any, **named: Any) -> Any:
        try:
            return call(self, *arguments, **named)
        except Exception as error:
            said = self.__dict__.setdefault("_failures_said", set())
            if type(error) not in said:
                said.add(type(error))
                what = f"{type(self).__name__}.{call.__name__} failed, what it did not log is lost, training continues"
                warnings.warn(f"{what}: {one_line(error)}", stacklevel=2)
            return None

    return run
