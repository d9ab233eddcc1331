"""The table of an injection for a page: how long the answers stay bent."""

from collections.abc import Mapping, Sequence

from sleep_lightning.bench.injection import NEVER, ONCE, OPEN, QUESTIONS, RESTATED, SLEPT
from sleep_lightning.tables import markdown_table

Row = Mapping[str, object]


def injection_table(rows: Sequence[Row]) -> str:
    """Markdown: a table for every kind of clean windows, one of the open window and one of sessions that undo it; of
    several models a line each.

    Args:
        rows: of ``bench_injection``.
    """
    if len(shapes := list(dict.fromkeys(row["shape"] for row in rows))) > 1:
        return _models([[row for row in rows if row["shape"] == shape and row["hops"] == 1] for shape in shapes])
    hops = sorted({_int(row["hops"]) for row in rows})
    shown = [row for row in rows if row["hops"] in (hops[0], hops[-1])]
    parts = [_undone([row for row in shown if "equal_to_the_bit" in row])]
    for clean in dict.fromkeys(row["clean"] for row in shown if row["contender"] in (SLEPT, OPEN)):
        parts.append(_lasting([row for row in shown if row["clean"] == clean and "equal_to_the_bit" not in row]))
    return "\n".join(parts[1:] + parts[:1])


def _lasting(rows: Sequence[Row]) -> str:
    """Lines of N and hops, columns of k."""
    first, ks = rows[0], sorted({_int(row["k"]) for row in rows})
    title = f"Poison {first['contender']}" if first["contender"] == OPEN else f"Clean windows: {first['clean']}"
    lines = list[Sequence[object]]()
    found = sorted({(_int(row["N"]), _int(row["hops"])) for row in rows})
    for n, hops in (one for one in found if one[1] == 1 or one == found[-1]):  # further hops: of the most passes alone
        of = [row for row in rows if (row["N"], row["hops"]) == (n, hops)]
        bent = {row["k"]: row for row in of if row["contender"] != NEVER}
        never = {row["k"]: row for row in of if row["contender"] == NEVER}
        lines.append((n, hops, "follows the poison", *(_share(bent[k], "follows") for k in ks)))
        lines.append(("", "", "is right", *(_share(bent[k], "right") for k in ks)))
        if never:
            lines.append(("", "", "is right, never poisoned", *(_share(never[k], "right") for k in ks)))
        lines.append(("", "", "log p of the poison's answer", *(_mean(bent[k], "shift", "+.1f") for k in ks)))
        lines.append(("", "", "total variation", *(_mean(bent[k], "tv", ".2f") for k in ks)))
    return f"**{title}**\n\n{markdown_table(('N', 'hops', '', *(f'k = {k}' for k in ks)), lines)}\n"


MODELS = (
    ("in the open window", OPEN, "none yet", 0, "follows"),
    ("slept on", SLEPT, RESTATED, 0, "follows"),
    ("and the truth again", SLEPT, RESTATED, 1, "follows"),
    ("twice", SLEPT, RESTATED, 2, "follows"),
    ("and 4 windows of questions, 1 pass", SLEPT, ONCE, 4, "follows"),
    ("and 16, 1 pass", SLEPT, ONCE, 16, "follows"),
    ("and 16, N passes", SLEPT, QUESTIONS, 16, "follows"),
    ("right behind 16 of 1 pass, never poisoned", NEVER, ONCE, 16, "right"),
)
"""Columns of a table of models: what is said of it, the way, clean windows, k, and what is shown."""


def _models(models: Sequence[Sequence[Row]]) -> str:
    """A line for each: how many answers of one hop follow the poison, at the N of training."""
    lines = list[Sequence[object]]()
    for rows in models:
        most, cells = max(_int(row["N"]) for row in rows), []
        for _, way, clean, k, name in MODELS:
            key = (way, clean, k, most)
            cells += [_share(r, name) for r in rows if (r["contender"], r["clean"], r["k"], r["N"]) == key][:1]
        lines.append((rows[0]["shape"], *cells))
    return markdown_table(("model", *(column[0] for column in MODELS)), lines) + "\n"


def _undone(rows: Sequence[Row]) -> str:
    """A line for each way and number of hops."""
    names = ("session", "hops", "to the bit as never read", "follows the poison", "is right", "total variation")
    lines = list[Sequence[object]]()
    for row in rows:
        equal = f"{row['equal_to_the_bit']} of {row['answers']}"
        shares = (_share(row, "follows"), _share(row, "right"))
        lines.append((row["contender"], row["hops"], equal, *shares, _mean(row, "tv", ".2f")))
    return f"**Sessions that have undone it**\n\n{markdown_table(names, lines)}\n"


def _share(row: Row, name: str) -> str:
    share, low, high = (float(str(row[key])) for key in (name, f"{name}_low", f"{name}_high"))
    return f"{share:.2f} [{low:.2f}, {high:.2f}]"


def _mean(row: Row, name: str, form: str) -> str:
    mean, error = (float(str(row[key])) for key in (name, f"{name}_error"))
    return f"{mean:{form}} ± {error:{form.lstrip('+')}}"


def _int(value: object) -> int:
    return int(str(value))
