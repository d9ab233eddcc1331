"""A file goes on to the bit, and one that is not whole is refused with the reason."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sleep_lightning.session import SleepSession
from sleep_lightning.session.fingerprint import fingerprint
from sleep_lightning.sleep import SleepConfig
from tests.conftest import tiny_model
from tests.session.conftest import VOCAB, L, bits, go_on, same, tiny_session


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "memory.safetensors"


@pytest.mark.parametrize("read", [0, 4, L, L + 3])
def test_it_goes_on_to_the_bit(file: Path, read: int) -> None:
    for sleep in ({}, {"eviction": "sliding", "carry_conv_state": True, "pass_input": "inject", "loop": "1/2/1"}):
        session = tiny_session(sleep=sleep, policy="on_full")
        session.append(list(range(read)))
        before = bits(session)
        session.save(file)
        loaded = SleepSession.load(file, session.model)
        assert same(bits(session), before) and same(bits(loaded), before)
        assert loaded.config == session.config and loaded.cost == session.cost and loaded.nbytes == session.nbytes
        assert (loaded.tokens_seen, loaded.window_fill) == (read, read % L)
        expected, found = go_on(session), go_on(loaded)
        assert expected[0] == found[0] and same(expected[1], found[1])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_dtypes(file: Path, dtype: torch.dtype) -> None:
    session = SleepSession(tiny_model(VOCAB).to(dtype), SleepConfig(L, 2), policy="manual")
    session.append([1, 2, 3])
    session.save(file)
    loaded = SleepSession.load(file, session.model)
    assert same(bits(loaded), bits(session)) and loaded.policy == "manual"
    assert loaded.ask([1], 2) == session.ask([1], 2)


def test_neutral_pads(file: Path) -> None:
    session = tiny_session()
    session.model.neutral_pad = 0
    session.append([1, 0, 2])
    session.save(file)
    loaded = SleepSession.load(file, session.model)
    assert go_on(loaded)[0] == go_on(session)[0] and same(bits(loaded), bits(session))


def test_it_is_for_its_owner_alone_and_nothing_is_left_beside_it(file: Path) -> None:
    session = tiny_session()
    session.append([1, 2])
    session.save(file)
    session.save(file)
    assert file.stat().st_mode & 0o777 == 0o600 and list(file.parent.iterdir()) == [file]


def test_what_a_killed_writer_left_is_written_over(file: Path) -> None:
    file.with_name(f".{file.name}.partial").write_bytes(b"x" * 100_000)
    tiny_session().save(file)
    SleepSession.load(file, tiny_session().model)
    assert list(file.parent.iterdir()) == [file]


def test_a_save_that_fails_leaves_the_file_before(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    session = tiny_session()
    session.save(file)
    before = file.read_bytes()
    session.append([1])
    for step in ("fsync", "replace"):
        with monkeypatch.context() as m:
            m.setattr(f"os.{step}", lambda *_: (_ for _ in ()).throw(OSError("full")))
            with pytest.raises(OSError, match="full"):
                session.save(file)
        assert file.read_bytes() == before and list(file.parent.iterdir()) == [file]
    with pytest.raises(FileNotFoundError):
        session.save(file.parent / "nowhere" / "x")


def header_of(content: bytes) -> tuple[dict[str, Any], bytes]:
    (n,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + n]), content[8 + n :]


def with_session(content: bytes, change: Callable[[dict[str, Any]], Any]) -> bytes:
    """The file with a changed header, as someone would write it who does not compute the checksum."""
    header, data = header_of(content)
    said = json.loads(header["__metadata__"]["session"])
    change(said)
    header["__metadata__"]["session"] = json.dumps(said)
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda c: b"", "truncated or damaged"),
    "half": (lambda c: c[: len(c) // 2], "truncated or damaged"),
    "one byte less": (lambda c: c[:-1], "truncated or damaged"),
    "longer": (lambda c: c + b"x", "truncated or damaged"),
    "text": (lambda c: b"hello, this is no memory", "truncated or damaged"),
    "a flip": (lambda c: c[:-5] + bytes([c[-5] ^ 4]) + c[-4:], "checksum"),
    "newer": (lambda c: with_session(c, lambda h: h.update(version=2)), "format version '2'.*reads up to 1; update"),
    "no version": (lambda c: with_session(c, lambda h: h.pop("version")), "format version 'None'"),
    "more tokens": (lambda c: with_session(c, lambda h: h.update(tokens_seen=8)), "checksum"),
    "no checksum": (lambda c: with_session(c, lambda h: h.pop("checksum")), "checksum"),
    "foreign format": (lambda c: with_session(c, lambda h: h.update(format="x")), "no state of a session"),
    "a list": (lambda c: with_session(c, lambda h: h.clear()), "no state of a session"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_refused_with_the_reason(file: Path, damage: str) -> None:
    session = tiny_session()
    session.append([1, 2, 3, 4, 5, 6, 7])
    session.save(file)
    change, reason = DAMAGES[damage]
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(ValueError, match=f"memory.safetensors .*{reason}"):
        SleepSession.load(file, session.model)


def test_a_foreign_file_is_refused(file: Path) -> None:
    save_file({"x": torch.zeros(3)}, file)
    with pytest.raises(ValueError, match="is a safetensors file, but no state of a session"):
        SleepSession.load(file, tiny_session().model)
    with pytest.raises(FileNotFoundError):
        SleepSession.load(file.parent / "nothing", tiny_session().model)


def test_another_model_is_refused(file: Path) -> None:
    tiny_session().save(file)
    model = tiny_session().model
    with torch.no_grad():
        model.head.weight[0, 0] += 1
    for other in (model, tiny_session({"pattern": "GAGA"}).model, tiny_session({"rope_base": 500.0}).model):
        with pytest.raises(ValueError, match=r"belongs to a model with the fingerprint .*load the weights"):
            SleepSession.load(file, other)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("tensors", "fewer", "its tensors are not those of this model"),
        ("tensors", "shape", "its tensor start.states.0 is .* this model's is"),
        ("tensors", "dtype", "its tensor start.states.0 is"),
        ("window_fill", 99, "window_fill is 99 of 0 tokens"),
        ("window_fill", True, "window_fill is 'True'"),
        ("tokens_seen", "many", "tokens_seen is 'many'"),
        ("sources", [["a", 3]], "sources are of"),
        ("sources", [["a"]], "sources is"),
        ("sleep", {"unheard_of": 1}, "sleep lacks or does not know .*'unheard_of'"),
        ("cost", {"wake": {"tokens": "x"}, "sleep": {}}, "wake lacks"),
        ("policy", "never", "policy is 'never'"),
        ("lines", [{"time": 0}], "lines lacks"),
        ("events", [{"time": 0, "source": "a", "tokens": "abc"}], "events is"),
        (
            "events",
            [{"time": 0, "source": "a", "tokens": [1] * 7 + [VOCAB]}],
            f"token {VOCAB} is not one of the model's",
        ),
        ("events", [{"time": 0, "source": "a", "tokens": [-1] * 8}], "token -1 is not one of the model's"),
        ("events", [{"time": 0, "source": "a", "tokens": [1] * 14}], "events are of 14 tokens and 2 windows, not of 8"),
        ("events", [], "events are of 0 tokens and 0 windows, not of 8 and 1"),
        ("events", [{"time": 0, "n_passes": 10**6, "stopped_after": None}], "n_passes=1000000 must be"),
        ("last", {"tokens": [10**6], "by_pass": [[0.0] * 4] * 3, "change": [0.0] * 4}, "token 1000000 is not one"),
        ("last", {"tokens": [1], "by_pass": [[0.0]], "change": [0.0] * 4}, "last is not of a window of 6 tokens and"),
        ("last", {"tokens": [1], "by_pass": [], "change": []}, "last is not of a window of 6 tokens and"),
        ("last", {"tokens": [1] * 7, "by_pass": [], "change": [0.0] * 4}, "last is not of a window of 6 tokens and"),
        ("expires_at", float("nan"), "expires_at is 'nan'"),
        ("cost", {"wake": {"tokens": 1, "flops": 1, "seconds": 10**400}, "sleep": {}}, "seconds is"),
        ("tensors", "tokens", "token 1000000 is not one of the model's"),
    ],
)
def test_a_file_that_was_made_to_mislead_is_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: Any, reason: str
) -> None:
    """Its checksum fits: whoever made it has computed it."""
    from sleep_lightning.session import saved, state_file

    session = tiny_session(keep_texts=True)
    if name in ("events", "last") or value == "tokens":
        session.append([1] * 8)

    def write(path: Path, header: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        if name != "tensors":
            header[name] = value
        elif value == "tokens":
            tensors["window.tokens_BL"][0, 0] = 10**6
        elif value == "fewer":
            del tensors["cache.present"]
        else:
            x = tensors["start.states.0"]
            tensors["start.states.0"] = x[:, :1].contiguous() if value == "shape" else x.double()
        state_file.write_state(path, header, tensors)

    monkeypatch.setattr(saved, "write_state", write)
    session.save(file)
    with pytest.raises(ValueError, match=reason):
        SleepSession.load(file, session.model)


def test_the_fingerprint_is_of_values_and_configuration() -> None:
    model = tiny_session().model
    before = fingerprint(model)
    assert before == fingerprint(tiny_session().model) == fingerprint(model)
    with torch.no_grad():
        model.layers[0].mixer.in_proj.weight[0, 0] += 1e-3  # type: ignore[union-attr, operator]
    assert fingerprint(model) != before != fingerprint(tiny_session({"norm_eps": 1e-5}).model)
    assert fingerprint(tiny_session({"backend": "reference"}).model) == before, "what does not change the values"
    assert fingerprint(tiny_session().model.double()) != before


def test_the_file_holds_no_more_than_the_state(file: Path) -> None:
    session = tiny_session()
    session.append([1] * 20)
    session.save(file)
    assert sum(x.nbytes for x in load_file(file).values()) < session.nbytes < file.stat().st_size
