"""Bearer tokens: who may use the server, and under which name sessions are theirs."""

import hashlib
import hmac
import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from sleep_lightning.redaction import remember
from sleep_lightning.session.pool import OWNER

VARIABLE = "SLEEP_LIGHTNING_TOKENS"
SHORTEST = 16
"""Characters of a token."""
FORM = f"lines NAME:TOKEN, the token of {SHORTEST} characters or more without spaces"


class BearerTokens:
    """Owners by their tokens; an owner may have several.

    Args:
        owners: owner by token.
    """

    def __init__(self, owners: Mapping[str, str]) -> None:
        self._owners = [(_digest(token.encode()), owner) for token, owner in owners.items()]

    @property
    def owners(self) -> set[str]:
        """Their names."""
        return {owner for _, owner in self._owners}

    def owner_of(self, authorization: bytes | None) -> str | None:
        """Whose token stands in a header ``Authorization: Bearer ...``; None: nobody's.

        The hash of what is given is compared with those of all of them, in the same time wherever they differ.
        """
        kind, _, given = (authorization or b"").partition(b" ")
        mine, found = _digest(given.strip()), None
        for token, owner in self._owners:
            if hmac.compare_digest(token, mine):
                found = owner
        return found if kind.lower() == b"bearer" else None


def read_tokens(file: str | None, environment: Mapping[str, str] = os.environ) -> BearerTokens | None:
    """Tokens from a file, else from the variable ``SLEEP_LIGHTNING_TOKENS`` (commas are ends of lines, too).

    Returns:
        None: neither is given.

    Raises:
        ValueError: they cannot be read, others could read the file, or a line is none.
    """
    if file is not None:
        return _parsed(f"--tokens {file}", _private_text(Path(file)))
    if (given := environment.get(VARIABLE)) is not None:
        return _parsed(VARIABLE, given.replace(",", "\n"))
    return None


def fresh_token(owner: str = "local") -> tuple[str, BearerTokens]:
    """A token for one run of the server, and what accepts it."""
    token = secrets.token_urlsafe(24)
    return token, BearerTokens({token: owner})


def _digest(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _private_text(file: Path) -> str:
    try:
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise ValueError(f"--tokens {file} can be read by others; close it: chmod 600 {file}")
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ValueError(f"--tokens {file} cannot be read ({reason}); write {FORM} into it") from None


def _parsed(where: str, text: str) -> BearerTokens:
    """No message holds a token."""
    owners: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        owner, _, token = (part.strip() for part in line.partition(":"))
        if not OWNER.fullmatch(owner) or len(token) < SHORTEST or not token.isascii() or len(token.split()) != 1:
            raise ValueError(f"{where}: line {number} is no NAME:TOKEN; write {FORM}")
        if token in owners:
            raise ValueError(f"{where}: line {number} repeats a token; give each owner one of its own")
        owners[token] = owner
    if not owners:
        raise ValueError(f"{where} holds no token; write {FORM}")
    remember(owners)
    return BearerTokens(owners)
