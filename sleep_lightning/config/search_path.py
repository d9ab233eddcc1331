"""Importing the user's modules: from ``sys.path``, the current directory, and the directories of an experiment."""

import importlib
import sys
import traceback
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType


def import_from(module: str, search: Iterable[str | Path], key: str) -> ModuleType:
    """Import a module; the directory it is found in stays on ``sys.path``, at the end, for the imports of its own.

    Args:
        module: dotted name.
        search: directories to look in after ``sys.path`` and the current directory.
        key: the key and value that name it, for errors.

    Raises:
        ValueError: there is no such module, or importing it failed.
    """
    places = [Path.cwd(), *(Path(directory).absolute() for directory in search)]
    top = module.partition(".")[0]
    if top not in sys.modules:
        importlib.invalidate_caches()  # it may have been written just now
    if top not in sys.modules and PathFinder.find_spec(top) is None and top not in sys.builtin_module_names:
        found = next((str(place) for place in places if PathFinder.find_spec(top, [str(place)]) is not None), None)
        if found is None:
            looked = ", ".join(dict.fromkeys(map(str, places)))
            raise ValueError(
                f"{key}: there is no module {top!r} on sys.path or in {looked}; correct the name, or add the "
                f"directory that holds it to training.search_path"
            )
        sys.path.append(found)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            raise ValueError(
                f"{key}: there is no module {error.name!r} in {home_of(top) or top}; correct the name"
            ) from error
        raise ValueError(f"{key}: importing {module} failed: {described(error)}; fix that module") from error
    except Exception as error:
        raise ValueError(f"{key}: importing {module} failed: {described(error)}; fix that module") from error


def home_of(module: str) -> Path | None:
    """The directory on ``sys.path`` that an imported top-level module is in; None for built-in ones."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return None
    if (paths := list(getattr(loaded, "__path__", ()))) and paths[0]:
        return Path(paths[0]).absolute().parent
    file = getattr(loaded, "__file__", None)
    return None if file is None else Path(file).absolute().parent


def described(error: Exception) -> str:
    """An exception of the user's code in one line: its class, its text, and the line it was raised in."""
    text = " ".join(str(error).split())
    own = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not frame.filename.startswith(str(Path(__file__).parent))
    ]
    where = f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"
