"""Shell completion, written by shtab from the parsers of all commands."""

import argparse
from importlib import import_module

import shtab

from sleep_lightning.cli.commands import COMMANDS
from sleep_lightning.cli.commands.completion import ALIAS
from sleep_lightning.cli.help import keys

FILES = {"YAML", "FILE", "SPEC.yaml", "RUN_DIR|CKPT", "RUN|FILE"}
"""What stands for files: of what may be either, folders are completed as well."""
FOLDERS = {"DIR", "RUN_DIR", "FOLDER"}


def script(shell: str) -> str:
    """For ``bash`` or ``zsh``, to be evaluated by it."""
    parser = argparse.ArgumentParser(prog=ALIAS)
    commands = parser.add_subparsers()
    for name, (module, about) in COMMANDS.items():
        one = commands.add_parser(name, help=about)
        one.set_defaults(command=name)  # as in ``__main__``: a module of several commands asks for it
        import_module(f"sleep_lightning.cli.commands.{module}").add_arguments(one)
        for action in _actions(one):
            _complete(action)
    names = " ".join(f"{key}=" for key in dict.fromkeys(key.name for key in keys()))
    preamble = {
        "bash": f'_sleep_lightning_keys() {{ compopt -o nospace; compgen -W "{names}" -- "$1"; compgen -f -- "$1"; }}',
        "zsh": f"_sleep_lightning_keys() {{ compadd -S '' -- {names}; _files }}",
    }
    text: str = shtab.complete(parser, shell, preamble=preamble[shell])
    return text


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """Of a parser and those of its verbs."""
    found: list[argparse.Action] = []
    for action in parser._actions:
        found.append(action)
        if isinstance(action, argparse._SubParsersAction):
            found += [inner for verb in action.choices.values() for inner in _actions(verb)]
    return found


def _complete(action: argparse.Action) -> None:
    shown = str(action.metavar)
    if shown == "key=value":
        action.complete = dict.fromkeys(("bash", "zsh"), "_sleep_lightning_keys")  # type: ignore[attr-defined]
    elif shown in FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif shown in FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
