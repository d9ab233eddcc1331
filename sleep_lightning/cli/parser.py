"""The parser of a command: what is wrong is one sentence, as everywhere; what it takes is in its ``--help``."""

import argparse
import difflib
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Any, NoReturn

PROGRAM = "python -m sleep_lightning"
_CLOSE = 0.88
"""How close an option must be to a key to be meant as one: --checkpoint, of other commands, is not checkpointing."""


class Parser(argparse.ArgumentParser):
    """Raises ValueError for what it does not understand; numbers that are none are refused in plain words."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.register("type", int, whole_number)
        self.register("type", float, number)

    def error(self, message: str) -> NoReturn:
        raise ValueError(f"{message}; see {self.prog} --help")


def whole_number(text: str) -> int:
    """Raises ArgumentTypeError; says so where it is the key of an experiment."""
    if "=" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is a key=value: write those before the options")
    try:
        return int(text)
    except ValueError as error:
        fix = f"; write several apart: {text.replace(',', ' ')}" if "," in text else ""
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number{fix}") from error


def number(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


def nearest(name: str, known: Iterable[str], meant: Mapping[str, str] = MappingProxyType({})) -> str:
    """The end of a sentence on a name that there is not: the closest one, or all.

    Args:
        name: what was given.
        known: the names.
        meant: words for them that others use.
    """
    names = list(known)
    close = difflib.get_close_matches(name, [*names, *meant], n=1)
    return f"did you mean {meant.get(close[0], close[0])}?" if close else f"use one of {', '.join(names)}"


def refuse_rest(parser: argparse.ArgumentParser, rest: Sequence[str], words: Sequence[str], *, keys: bool) -> NoReturn:
    """Raises ValueError for arguments that a command does not take, with advice for a key written as an option.

    Args:
        parser: of the command.
        rest: what it did not understand.
        words: the whole command line.
        keys: whether the command takes keys of an experiment.
    """
    said = f"unrecognized arguments: {' '.join(rest)}"
    if not keys and any("=" in text and not text.startswith("-") for text in rest):
        said += "; keys are set in the file"
    for option in (text for text in rest if text.startswith("--") and keys):
        name, _, value = option.partition("=")
        from sleep_lightning.cli.help import nearest_key

        if (key := nearest_key(name.lstrip("-").replace("-", "_"), _CLOSE)) is not None:
            value = value or next((two for one, two in pairwise(words) if one == option), "...")
            said += f"; keys are set without dashes: {key}={value}"
            break
    parser.error(said)
