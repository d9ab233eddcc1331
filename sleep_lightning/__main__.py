"""``python -m sleep_lightning <command>``: dispatch; a sentence with exit code 2 for bad input, 74 for a full disk."""

import argparse
import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import import_module

from sleep_lightning.cli.commands import COMMANDS as COMMANDS
from sleep_lightning.cli.commands import WITH_KEYS
from sleep_lightning.cli.parser import PROGRAM, Parser, nearest, refuse_rest
from sleep_lightning.cli.streams import kept_output, loading
from sleep_lightning.cli.surroundings import out_of_memory, settle
from sleep_lightning.names import printable
from sleep_lightning.refusals import UnusableRow
from sleep_lightning.runs.damage import DamagedFile
from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.runs.space import DiskFull, refusal

_OF_THE_PLACE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
    errno.EFBIG,
}
"""Errors of paths that a user gave, or of what lies there: none of the program's own."""
HELP = {"-h", "--help"}
OTHER_WORDS = {"train": "fit", "resume": "fit --resume", "evaluate": "test"}
"""What other programs call our commands."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns its exit code, 128 + its number if a signal ended it."""
    with kept_output(), SignalsInterrupt() as signals:
        try:
            prepared = _prepare(sys.argv[1:] if argv is None else argv)
            signals.check()
            return prepared if isinstance(prepared, int) else prepared()
        except KeyboardInterrupt:
            name = signal.Signals(signals.exit_code - 128).name
            print(f"stopped by {name}", file=sys.stderr)
            return signals.exit_code
        except (DamagedFile, UnusableRow) as error:
            return _refused(error)
        except OSError as error:
            if DiskFull.of(error) is not None:
                return _refused(*refusal(error))
            if error.errno not in _OF_THE_PLACE or error.filename is None:
                raise
            limit = error.errno == errno.EFBIG
            fix = "raise the limit of files (ulimit -f)" if limit else "check the path and its permissions"
            return _refused(f"{error.filename}: {error.strerror}; {fix}")
        except (MemoryError, ImportError, RuntimeError) as error:
            if (sentence := out_of_memory(error)) is None:
                raise
            _refused(sentence)
            return 1


def _prepare(argv: Sequence[str]) -> int | Callable[[], int]:
    """All that can go wrong before any compute: the exit code if something did, else what runs the command."""
    for word in argv:
        if not _is_text(word):
            print(f"error: {word!a} is not UTF-8 text; give a name in UTF-8 (rename a file: mv)", file=sys.stderr)
            return 2
    try:
        return _command(*(argv or ["--help"]))
    except ValueError as error:  # the user's mistakes, all found before any compute
        return _refused(*refusal(error))


def _command(name: str, *argv: str) -> Callable[[], int]:
    """What runs a command. Raises ValueError for bad input."""
    if name.startswith("-"):
        _program(name).parse_args([name, *argv])  # prints help and exits, or raises
    if name not in COMMANDS:
        raise ValueError(f"{name!r} is no command; {nearest(name, COMMANDS, OTHER_WORDS)}")
    module, about = COMMANDS[name]
    parser = Parser(
        prog=f"{PROGRAM} {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(command=name)
    with loading(f"{name}: loading") if name in WITH_KEYS else nullcontext():  # arms and keys take seconds
        command = import_module(f"sleep_lightning.cli.commands.{module}")
        words = command.with_verb(argv) if name == "sweep" else argv
        command.add_arguments(parser)
        if HELP & set(words) and name in WITH_KEYS:
            parser.epilog = _sections()
    arguments, rest = parser.parse_known_args(words)
    keys = hasattr(arguments, "overrides")
    if rest and (not keys or any(text.startswith("-") for text in rest)):
        refuse_rest(parser, rest, words, keys=keys)
    if rest:
        arguments.overrides += rest  # key=value after an option
    settle()
    with loading(f"{name}: loading"):
        run: Callable[[], int] = command.prepare(arguments)
    return run


def _refused(error: object, code: int = 2) -> int:
    """Say why; of the ranks that torchrun started on a node, which all find the same, the first alone."""
    if os.environ.get("LOCAL_RANK", "0") == "0":
        print(f"error: {printable(str(error))}", file=sys.stderr)
    return code


def _is_text(word: str) -> bool:
    """Whether an argument's bytes were UTF-8: others are surrogates, which no file that we write can hold."""
    try:
        return bool(word.encode()) or not word
    except UnicodeEncodeError:
        return False


def _program(first: str) -> argparse.ArgumentParser:
    """The command line without a command."""
    with loading("loading"):
        sections = _sections() if first in HELP else None
    parser = Parser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND [--help] ...",
        description="Sleep-time consolidation for language models. A YAML file and key=value arguments set the keys.",
        epilog=sections,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND, one of")
    for name, (_, about) in COMMANDS.items():
        commands.add_parser(name, help=about)
    return parser


def _sections() -> str:
    from sleep_lightning.cli.help import section_lines

    return "keys of an experiment, in its YAML or as key=value:\n" + "\n".join(section_lines())


if __name__ == "__main__":
    sys.exit(main())
