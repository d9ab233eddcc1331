"""The imports of ``fit`` in the order, and without the packages, that bring it to its first step soonest."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module

from sleep_lightning.quick_start.dynamo_stand_in import without_dynamo
from sleep_lightning.quick_start.postponed_package import PostponedPackage, forget, postpone_torchmetrics


@contextmanager
def no_garbage_collection() -> Iterator[None]:
    """For imports, which make a million objects to stay: looking through them again and again takes a third of it."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def import_heavy_packages(tracking_uri: str | None) -> None:
    """MLflow, if the run is recorded (at a URI), and Lightning; nothing if Lightning is there already.

    What MLflow and torch have made is then kept from the garbage collector for good: the end of the process, which
    would look through all of it several times, takes a second less. Lightning comes after that, since it imports
    Triton, whose binding complains on stderr about everything of its own that no collector has freed.
    """
    if "lightning" in sys.modules:
        return
    if tracking_uri is not None:
        import_mlflow(tracking_uri)
    postpone_torchmetrics()
    if "triton" not in sys.modules:
        gc.freeze()
    import_lightning()


def import_mlflow(uri: str) -> None:
    """The client and, for a database, its store; whoever opens the run says what is wrong with them."""
    with suppress(Exception):
        import_module("mlflow.tracking")
        if not uri.startswith("http"):
            import_module("mlflow.store.tracking.sqlalchemy_store")


def import_lightning() -> None:
    """Without torch._dynamo, and plainly should this Lightning not bear that."""
    try:
        with without_dynamo():
            import_module("lightning.pytorch")
    except Exception:  # whatever another version asks the stand-ins for
        forget("lightning")
        if isinstance(sys.modules.get("torchmetrics"), PostponedPackage):
            forget("torchmetrics")
        import_module("lightning.pytorch")
