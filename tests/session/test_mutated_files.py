"""State files that somebody has changed: refused with a reason, or equal. None crashes, none is taken for another."""

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sleep_lightning.model import HybridLM
from sleep_lightning.session import SleepSession
from tests.session.conftest import bits, same, tiny_session

Mutation = Callable[[random.Random, bytes, bytes], bytes]
"""(random, a file, a file of another session) -> a file."""


def header(content: bytes) -> int:
    """Where its tensors begin."""
    return 8 + int(struct.unpack("<Q", content[:8])[0])


def flip(r: random.Random, content: bytes, start: int, stop: int, bits: int) -> bytes:
    changed = bytearray(content)
    for _ in range(bits):
        changed[r.randrange(start, stop)] ^= 1 << r.randrange(8)
    return bytes(changed)


def swap_header(r: random.Random, content: bytes, other: bytes) -> bytes:
    return other[: header(other)] + content[header(content) :]


def swap_said(r: random.Random, content: bytes, other: bytes) -> bytes:
    """What it says beside its tensors is that of another session."""
    a, b = (json.loads(x[8 : header(x)]) for x in (content, other))
    a["__metadata__"] = b["__metadata__"]
    return _with_header(a, content[header(content) :])


def swap_tensors(r: random.Random, content: bytes, other: bytes) -> bytes:
    """Two tensors have each other's places."""
    said = json.loads(content[8 : header(content)])
    names = [name for name in said if name != "__metadata__"]
    a, b = r.sample(names, 2)
    said[a], said[b] = said[b], said[a]
    return _with_header(said, content[header(content) :])


def change_field(r: random.Random, content: bytes, other: bytes) -> bytes:
    """One value in the JSON of the session is something else."""
    said = json.loads(content[8 : header(content)])
    session = json.loads(said["__metadata__"]["session"])
    key = r.choice(sorted(session))
    session[key] = r.choice([None, 0, -1, 10**30, 1e308, "", "x" * 1000, [], {}, True, [[["a"]]], {"a": 1}])
    said["__metadata__"]["session"] = json.dumps(session)
    return _with_header(said, content[header(content) :])


def _with_header(said: object, tensors: bytes) -> bytes:
    encoded = json.dumps(said).encode()
    return struct.pack("<Q", len(encoded)) + encoded + tensors


MUTATIONS: list[Mutation] = [
    lambda r, c, o: flip(r, c, 0, len(c), r.choice((1, 1, 2, 8))),
    lambda r, c, o: flip(r, c, 0, 8, 1),
    lambda r, c, o: flip(r, c, 8, header(c), r.choice((1, 3))),
    lambda r, c, o: flip(r, c, header(c), len(c), 1),
    lambda r, c, o: c[: r.randrange(len(c))],
    lambda r, c, o: c + r.randbytes(r.randrange(1, 100)),
    lambda r, c, o: c[: (i := r.randrange(len(c)))] + c[i + r.randrange(1, 9) :],
    lambda r, c, o: c[: (i := r.randrange(len(c)))] + r.randbytes(r.randrange(1, 9)) + c[i:],
    lambda r, c, o: c[: (i := r.randrange(len(c)))] + bytes(min(64, len(c) - i)) + c[i + 64 :],
    lambda r, c, o: c[: (i := r.randrange(min(len(c), len(o))))] + o[i:],
    lambda r, c, o: r.randbytes(r.randrange(200)),
    swap_header,
    swap_said,
    swap_tensors,
    change_field,
]


def loaded(file: Path, model: HybridLM) -> tuple[SleepSession | None, str]:
    try:
        return SleepSession.load(file, model), ""
    except ValueError as error:
        return None, str(error)


def mutate(tmp_path: Path, files: int) -> int:
    """How many of so many mutated files are refused; the others must be equal."""
    session, other = tiny_session(keep_texts=True), tiny_session({"pattern": "GAGA"})
    session.append([1, 2, 3, 4, 5, 6, 7, 8], "user")
    other.append([1] * 9)
    contents = []
    for one in (session, other):
        one.save(tmp_path / "x")
        contents.append((tmp_path / "x").read_bytes())
    expected, file, refused = bits(session), tmp_path / "mutated", 0
    for i in range(files):
        r = random.Random(i)
        file.write_bytes(MUTATIONS[i % len(MUTATIONS)](r, *contents))
        found, reason = loaded(file, session.model)
        if found is None:
            assert str(file) in reason and len(reason) < 600, f"{i}: {reason}"
            refused += 1
            continue
        assert same(bits(found), expected) and found.provenance() == session.provenance(), f"{i} is another state"
        assert (found.config, found.cost, found.id) == (session.config, session.cost, session.id)
    return refused


def test_three_hundred_mutated_files(tmp_path: Path) -> None:
    assert mutate(tmp_path, 300) > 280


@pytest.mark.slow
def test_ten_thousand_mutated_files(tmp_path: Path) -> None:
    assert mutate(tmp_path, 10_000) > 9_500


def test_loading_executes_nothing(tmp_path: Path) -> None:
    """Whatever torch.save or pickle writes is no state."""
    file = tmp_path / "x"

    class Payload:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "executed",))  # type: ignore[return-value]

    torch.save({"state": Payload()}, file)
    with pytest.raises(ValueError, match="truncated or damaged"):
        SleepSession.load(file, tiny_session().model)
    assert not (tmp_path / "executed").exists()
