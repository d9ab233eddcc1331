"""What may leave the process: texts without passwords, tokens and other secrets.

Every exit calls ``redact``: the standard streams (and with them logs), what MLflow is sent, the reasons kept in a
sweep's storage, ``config.yaml``. Two things are known as secrets: what a URI's grammar marks as one, in any text, and
the values that were ``remember``-ed.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import unquote

HIDDEN = "***"
SHORTEST, SHORTEST_WORD = 4, 6
"""Characters of a remembered secret at least, and of one that could be a word: shorter ones are words too often."""
LINE = 300
"""Characters of an error's text that are kept."""

_NAME = r"(?:[\w.-]*[_.-])?(?:ssl)?(?:password|passwd|passphrase|pwd|token|secret|api_?key|access_?key|credentials?)"
_SECRET_VARIABLE = re.compile(r"(?:PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|APIKEY|(?:^|_)KEY|CREDENTIALS?)$", re.I)
_SECRET_KEY = re.compile(
    r"(?:password|passwd|passphrase|secret|credentials?|^token|(?:api|auth|access|bearer|hub|private|secret)_?(?:key|token))$",
    re.I,
)
"""Of an experiment, where a ``pad_token`` or ``sort_key`` is none."""
_URI = re.compile(r"[A-Za-z][\w+.-]*://[^\s'\"<>`]+")
_USER_AND_PASSWORD = re.compile(  # with no user, a path may hold : and @; with a port, too
    r"^([^/?#]*://[^:/?#@\[]*):(?!\d+[/?#])(.*)@", re.DOTALL
)
_TOKEN_AS_USER = re.compile(r"^(https?://)([^:/?#@]+)@", re.I)
_QUERY = re.compile(rf"([?&;](?:{_NAME}|auth|odbc_connect)=)([^&;#]*)", re.I)
_REFERENCE = re.compile(r"\$\{[^{}]*\}")

_known: set[str] = set()
_pattern: re.Pattern[str] | None = None


def redact(text: str) -> str:
    """A text without the secrets in its URIs and those that are known."""
    if "://" in text:
        text = _URI.sub(lambda found: redact_uri(found[0]), text)
    return text if _pattern is None else _pattern.sub(HIDDEN, text)


def redact_uri(uri: str) -> str:
    """A URI without its password, its token and the secrets of its query; ``${...}`` references stay."""
    uri = _USER_AND_PASSWORD.sub(lambda found: f"{found[1]}:{_hidden(found[2])}@", uri)
    uri = _TOKEN_AS_USER.sub(lambda found: f"{found[1]}{_hidden(found[2])}@", uri)
    return _QUERY.sub(lambda found: found[1] + _hidden(found[2]), uri)


def is_redacted(uri: str) -> bool:
    """Whether a URI has lost a secret."""
    return HIDDEN in uri


def one_line(text: object) -> str:
    """An error or another text on one line: whole words, no secrets, and no longer than a row can be."""
    return redact(" ".join(str(text).split()))[:LINE]


def remember(secrets: Iterable[str]) -> None:
    """Hide these values wherever they appear from now on, as they are and as a URI writes them."""
    global _pattern
    forms = {form for secret in secrets for form in (secret, unquote(secret))}
    found = {form for form in forms if len(form) >= (SHORTEST_WORD if form.isalnum() else SHORTEST)}
    if found <= _known:
        return
    _known.update(found)
    _pattern = _any_of(_known)


def remember_uri(uri: str) -> None:
    """Hide the secrets of a URI wherever they appear; not a password that is also the user's or database's name."""
    parts = [found[2] for found in (_USER_AND_PASSWORD.search(uri), _TOKEN_AS_USER.search(uri)) if found]
    parts += [found[2] for found in _QUERY.finditer(uri)]
    kept = redact_uri(uri)
    remember(part for part in parts if part and HIDDEN not in part and not _any_of([part]).search(kept))


def remember_environment() -> None:
    """Hide what the environment calls a password, token, secret or key; the path of a file is none."""
    _remember(value for name, value in os.environ.items() if _SECRET_VARIABLE.search(name))


def remember_named(tree: Mapping[str, Any]) -> None:
    """Hide the texts that a nested mapping calls a password, token, secret or API key; the path of a file is none."""
    for name, value in tree.items():
        for one in value if isinstance(value, list) else (value,):
            if isinstance(one, Mapping):
                remember_named(one)
            elif isinstance(one, str) and _SECRET_KEY.search(str(name)):
                _remember([one])


def _remember(values: Iterable[str]) -> None:
    remember(value for value in values if not os.path.exists(value))


def _any_of(secrets: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(secrets, key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{'|'.join(map(re.escape, longest_first))})(?![A-Za-z0-9])")


def _hidden(secret: str) -> str:
    return secret if not secret or _REFERENCE.fullmatch(secret) else HIDDEN
