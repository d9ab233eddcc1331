"""Where the ranks that one process launched find each other: in a file of this user's, not at a port.

Any user of a machine can connect to a port of it; torch's store asks for no password, and a stranger who writes into it
sends the ranks to addresses of his own.
"""

import atexit
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import Any

from torch import distributed

from sleep_lightning.runs.process import RENDEZVOUS

INTERFACE = "GLOO_SOCKET_IFNAME"
LOOPBACK = ("lo", "lo0")


def open_rendezvous() -> None:
    """Create the folder of the file, for this user alone and until the process ends, and name it to the ranks that are
    launched next. They listen on the loopback interface, unless ``GLOO_SOCKET_IFNAME`` names another.

    Raises OSError: the temporary folder cannot be written.
    """
    folder = Path(tempfile.mkdtemp(prefix="sleep_lightning-ranks-"))  # 0700
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ[RENDEZVOUS] = str(folder / "store")
    present = {name for _, name in socket.if_nameindex()}
    for name in LOOPBACK:
        if name in present:
            os.environ.setdefault(INTERFACE, name)


def rendezvous(size: int) -> dict[str, Any]:
    """The store of ``size`` ranks, for ``init_process_group``; nothing where no process of ours launched them."""
    file = os.environ.get(RENDEZVOUS)
    return {} if file is None else {"store": distributed.FileStore(file, size)}  # type: ignore[attr-defined]
