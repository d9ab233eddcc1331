"""The C++ compiler: finding it, and running it so that it ends with this process."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

COMPILE_SECONDS = 300
_RUN_AND_WATCH = """
exec 3<&0
"$@" 3<&- </dev/null &
command=$!
{ read -r _ <&3; kill -KILL 0; } >/dev/null 2>&1 &
wait $command
code=$?
kill $! 2>/dev/null
exit $code
"""
"""A command in the background, and one that waits for the end of standard input: a pipe that this process holds open,
however it ends. Then it kills the whole process group, as a compiler has children."""


class BuildError(Exception):
    """The library could not be built or loaded; the message says why and what to do."""


def compiler() -> list[str]:
    """The C++ compiler's command: ``$CXX``, or the first of c++, g++ and clang++ on the path. Raises BuildError."""
    if command := shlex.split(os.environ.get("CXX", "")):
        return command
    for name in ("c++", "g++", "clang++"):
        if found := shutil.which(name):
            return [found]
    raise BuildError("no C++ compiler (c++, g++ or clang++) on the path; install one or set CXX")


def run(command: Sequence[str], temporary: Path | None = None) -> str:
    """What a command prints. It is killed, with its children, when this process ends or after ``COMPILE_SECONDS``.

    Args:
        command: and its arguments.
        temporary: folder of its temporary files; None: the usual one.

    Raises:
        BuildError: it cannot be run, or fails.
    """
    environment = os.environ | ({} if temporary is None else {"TMPDIR": str(temporary)})
    read, held = os.pipe()
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", _RUN_AND_WATCH, "sh", *command],
            stdin=read,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=COMPILE_SECONDS,
            check=False,
            env=environment,
            start_new_session=True,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BuildError(f"{command[0]} did not run: {error}") from error
    finally:
        os.close(read)
        os.close(held)
    if done.returncode:
        raise BuildError(f"{shlex.join(command)} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout
