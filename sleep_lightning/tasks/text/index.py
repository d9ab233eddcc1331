"""Where the records of a file begin, by split: on disk, so that memory does not grow with the file."""

import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from hashlib import blake2b
from pathlib import Path
from struct import Struct
from typing import Any

from sleep_lightning.machine.private import cache_directory
from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.task import SPLITS, Split
from sleep_lightning.tasks.text.records import Place, Records

KEPT_BYTES = 1 << 26
"""A file that is larger is looked through once, and its index kept in the user's cache."""
_ENTRY = Struct("<qq")
_VERSION = "2"  # of what is written, and of which records are accepted
Evidence = Callable[[Any], str]
"""What the answers of a record follow from; raises ValueError for one that cannot be used."""


class Index:
    """Places of one split's records."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size // _ENTRY.size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, i: int) -> Place:
        return Place(*_ENTRY.unpack(os.pread(self._file.fileno(), _ENTRY.size, i * _ENTRY.size)))


def open_index(records: Records, evidence: Evidence, dealt: Mapping[Split, Split], sort: str) -> dict[Split, Index]:
    """The index of a file, by split.

    Args:
        records: of the file.
        evidence: of a record: rows of the same evidence are in one split.
        dealt: to which split those go that the hash deals to each.
        sort: what else ``evidence`` depends on.

    Raises:
        ValueError: a record cannot be read or used; the sentence names its place.
    """
    status = records.path.stat()
    if status.st_size <= KEPT_BYTES:
        with tempfile.TemporaryDirectory(prefix="sleep_lightning-index-") as folder:
            return _build(records, evidence, dealt, Path(folder))
    said = (_VERSION, str(records.path.absolute()), status.st_size, status.st_mtime_ns, sorted(dealt.items()), sort)
    kept = cache_directory() / "text" / blake2b(repr(said).encode(), digest_size=16).hexdigest()
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        new = Path(tempfile.mkdtemp(prefix="new-", dir=kept.parent))
        try:
            _build(records, evidence, dealt, new)
            new.rename(kept)  # another process may have been faster
        except OSError:
            if not kept.exists():
                raise
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return {split: Index(kept / split) for split in SPLITS}


def _build(records: Records, evidence: Evidence, dealt: Mapping[Split, Split], folder: Path) -> dict[Split, Index]:
    with ExitStack() as stack:
        files = {split: stack.enter_context((folder / split).open("wb")) for split in SPLITS}
        for place, record in records.scan():
            try:
                content = evidence(record)
            except ValueError as error:
                raise ValueError(f"{records.origin(place)}: {error}") from error
            files[dealt[split_of(content)]].write(_ENTRY.pack(*place))
    return {split: Index(folder / split) for split in SPLITS}
