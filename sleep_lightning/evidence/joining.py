"""Tables of several machines, each of which ran a share of the seeds, as one."""

from collections.abc import Iterable, Sequence

from sleep_lightning.evidence.scores import TEST, RunScore


def joined_scores(own: Sequence[RunScore], others: Iterable[tuple[str, Sequence[RunScore]]]) -> list[RunScore]:
    """Own rows, and those of runs that are in another table only, sweep by sweep, level by level, by seed. A run that
    one table has of the test split and another of validation counts with the former.

    Args:
        own: this machine's.
        others: the path of a table, for errors, and its rows.

    Raises:
        ValueError: a run of another size than those of its sweep and level.
    """
    found, sizes = list(own), {(row.sweep, row.level): _size(row) for row in own}
    for path, rows in others:
        tested = {_run(row) for row in rows if row.split == TEST}
        found = [row for row in found if row.split == TEST or _run(row) not in tested]
        known = set(map(_run, found))
        for row in rows:
            if _size(row) != sizes.setdefault((row.sweep, row.level), _size(row)):
                raise ValueError(
                    f"--join {path}: {row.sweep} {row.level} has another size there (steps, training FLOPs or "
                    f"parameters); leave it out, or run it again"
                )
        found += [row for row in rows if _run(row) not in known]
    sweeps = list(dict.fromkeys(row.sweep for row in found))
    levels = list(dict.fromkeys((row.sweep, row.level) for row in found))
    return sorted(found, key=lambda row: (sweeps.index(row.sweep), levels.index((row.sweep, row.level)), row.seed))


def _run(row: RunScore) -> tuple[str, str, int]:
    return row.sweep, row.level, row.seed


def _size(row: RunScore) -> tuple[int, float, int]:
    return row.steps, float(f"{row.train_flops:.6g}"), row.parameters
