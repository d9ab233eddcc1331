"""A share of a sweep's seeds, for one of several machines; their records are joined by ``cat``."""

import re
from dataclasses import replace
from pathlib import Path

from sleep_lightning.sweep.spec import Sweep
from sleep_lightning.sweep.storage import is_sweep

MOST = 4096
_SUFFIX = r"\.\d{1,4}of\d{1,4}"


def share_of(sweep: Sweep, share: str) -> Sweep:
    """The sweep with every N-th of its seeds, from the I-th on, under a name of its own.

    Args:
        sweep: whole.
        share: ``I/N``.

    Raises:
        ValueError: not of that form, or a share without seeds.
    """
    i, n = parse_share(share)
    seeds = sweep.spec.seeds[i - 1 :: n]
    if not seeds:
        raise ValueError(f"--share {share} is empty: the sweep has {len(sweep.spec.seeds)} seeds; use N up to that")
    return replace(sweep, spec=replace(sweep.spec, seeds=seeds, name=f"{sweep.spec.name}.{i}of{n}"))


def parse_share(share: str) -> tuple[int, int]:
    """I and N. Raises ValueError."""
    found = re.fullmatch(r"(\d{1,4})/(\d{1,4})", share, re.ASCII)
    if found is None or not 1 <= int(found[1]) <= int(found[2]) <= MOST:
        raise ValueError(f"--share {share!r} must be I/N with I from 1 to N, for example 1/3")
    return int(found[1]), int(found[2])


def whole_name(name: str) -> str:
    """The name of the sweep that a share, or a whole one, is of."""
    return re.sub(f"{_SUFFIX}$", "", name)


def parts_of(folder: Path) -> list[Path]:
    """The folder of a sweep and those of its shares, of any N, as far as they are there."""
    if not folder.parent.is_dir():
        return []
    names = re.compile(f"{re.escape(folder.name)}({_SUFFIX})?")
    return sorted(path for path in folder.parent.iterdir() if names.fullmatch(path.name) and is_sweep(path))
