"""Which tokens are taken, and what is said of those that are not."""

from pathlib import Path

import pytest

from sleep_lightning.serve.limits import Limits
from sleep_lightning.serve.server import bind, is_loopback
from sleep_lightning.serve.tokens import fresh_token, read_tokens

A, B = "a" * 20, "b" * 20


def written(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    (file := tmp_path / "tokens").write_text(text)
    file.chmod(mode)
    return str(file)


def test_from_a_file_and_from_the_environment(tmp_path: Path) -> None:
    file = written(tmp_path, f"# who\n\nalice: {A}\nbob:{B}\nbob:{'c' * 20}\n")
    for tokens in (read_tokens(file), read_tokens(None, {"SLEEP_LIGHTNING_TOKENS": f"alice:{A},bob:{B}"})):
        assert tokens is not None and tokens.owners == {"alice", "bob"}
        assert tokens.owner_of(f"Bearer {A}".encode()) == "alice" and tokens.owner_of(f"bearer {B}".encode()) == "bob"
        for wrong in (None, b"", b"Bearer", f"Basic {A}".encode(), f"Bearer {A[:-1]}".encode(), b"Bearer \xff"):
            assert tokens.owner_of(wrong) is None
    assert read_tokens(None, {}) is None
    token, tokens = fresh_token()
    assert len(token) >= 32 and tokens.owner_of(f"Bearer {token}".encode()) == "local"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no token"),
        ("alice", "line 1 is no NAME:TOKEN"),
        (f"../x:{A}", "line 1 is no NAME:TOKEN"),
        ("alice:short", "line 1 is no NAME:TOKEN"),
        (f"alice:{A} {A}", "line 1 is no NAME:TOKEN"),
        (f"alice:{A}\nbob:{A}", "line 2 repeats a token"),
    ],
)
def test_what_is_none_is_refused_without_being_shown(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        read_tokens(written(tmp_path, text))
    assert A not in str(caught.value) and "short" not in str(caught.value).replace("shorter", "")


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="can be read by others; close it: chmod 600"):
        read_tokens(written(tmp_path, f"alice:{A}", 0o644))
    with pytest.raises(ValueError, match="cannot be read \\(No such file"):
        read_tokens(str(tmp_path / "none"))


def test_the_limit_of_passes_reaches_n() -> None:
    assert Limits.parsed([]).reaching(4, []) == Limits() and Limits.parsed([]).reaching(32, []).passes == 32
    assert Limits.parsed(["passes=4"]).reaching(4, ["passes=4"]).passes == 4
    with pytest.raises(ValueError, match=r"--limit passes=2 is below sleep.n_passes=3, .* or give sleep.n_passes=2"):
        Limits.parsed(["windows=9", "passes=2"]).reaching(3, ["windows=9", "passes=2"])


def test_limits_and_places() -> None:
    assert Limits.parsed(["passes=3", "sessions=7"]) == Limits(passes=3, sessions=7)
    for bad in ("passes", "passes=0", "passes=-1", "passes=x", "other=1"):
        with pytest.raises(ValueError, match=f"--limit {bad} must be NAME=NUMBER"):
            Limits.parsed([bad])
    assert all(map(is_loopback, ("127.0.0.1", "::1", "localhost"))) and not is_loopback("0.0.0.0")
    with bind("127.0.0.1", 0) as one, pytest.raises(ValueError, match="cannot be listened on"):
        bind("127.0.0.1", one.getsockname()[1])
