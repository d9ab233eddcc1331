"""The user's home folder, which may be missing: in containers, under cron, for users without a passwd entry."""

import os
import pwd
from pathlib import Path

NO_HOME = "there is no home folder (neither HOME nor the user's passwd entry names one that is there)"


def home() -> Path | None:
    """HOME, or what the passwd entry says, if it is there; else None (``~`` would become a folder of that name)."""
    if (given := Path(os.environ.get("HOME", ""))).is_absolute():
        return _existing(given)
    try:
        return _existing(Path(pwd.getpwuid(os.geteuid()).pw_dir))
    except KeyError:
        return None


def _existing(folder: Path) -> Path | None:
    return folder if folder.is_absolute() and os.path.isdir(folder) else None
