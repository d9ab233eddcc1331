"""``chat`` with lines from a pipe: what is read, asked, undone and saved is what a session does."""

import io
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sleep_lightning.__main__ import main
from sleep_lightning.cli.chat import Chat
from sleep_lightning.cli.console import plain_console
from sleep_lightning.config import load_experiment
from sleep_lightning.runs.model_folder import write_model_folder
from sleep_lightning.serve.opening import open_model
from sleep_lightning.session import SleepSession
from sleep_lightning.tasks.words import Words
from tests.cli.cli import ROOT, SMALL

L = 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    experiment = load_experiment(ROOT / "conf" / "rule110.yaml", SMALL)
    write_model_folder(tmp_path / "tiny", experiment, experiment.build_model(), "# tiny\n")  # type: ignore[arg-type]
    return tmp_path / "tiny"


@pytest.fixture
def chat(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """What ``chat`` says to some lines."""

    def run(*lines: str, options: tuple[str, ...] = (), checkpoint: Path = folder) -> list[str]:
        monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(lines)))
        assert main(["chat", "--checkpoint", str(checkpoint), *options]) == 0
        return capsys.readouterr().out.splitlines()

    return run


def alone(folder: Path) -> SleepSession:
    opened = open_model(str(folder))
    return SleepSession(opened.model, opened.experiment.sleep, opened.tokenizer)


def test_it_reads_asks_and_shows_where_it_stands(chat, folder: Path) -> None:  # type: ignore[no-untyped-def]
    said = chat("0 1 1 0 1 0 0", "?Q1", "??Q1", "/cost", "/provenance", checkpoint=folder / "model.safetensors")
    one = alone(folder)
    one.append("0 1 1 0 1 0 0")
    first = one.ask("Q1", 2, keep=False)
    assert one.ask("Q1", 2) == first
    assert said.count(first) == 2  # of the task's answers: two tokens
    stands = [line.split(", ")[:3] for line in said if line.startswith("  [")]
    assert [(s[0].split("] ")[1], s[1], s[2]) for s in stands] == [
        ("1/6", "1 windows slept on", "7 tokens read"),
        ("1/6", "1 windows slept on", "7 tokens read"),
        ("4/6", "1 windows slept on", "10 tokens read"),
    ]
    assert any(line.startswith("  sleep 6 tokens through the blocks") for line in said)
    assert any(f"unlabelled {L}" in line for line in said)
    assert any(line.startswith("  try ") for line in said) and any(line.startswith("  then ") for line in said)


def test_rollback_fork_and_forget(chat, folder: Path) -> None:  # type: ignore[no-untyped-def]
    said = chat(
        "0 1 1 0 1 0", "?Q1", "/source web", "1 1 1 1 1 1 1", "/fork", "/sleep 3", "/back", "/rollback", "?Q1",
        "1 1", "/forget web", "?Q1", "/rollback", "/inspect", "/reset", "?Q1",
        options=("--keep-texts",),
    )  # fmt: skip
    one = alone(folder)
    one.append("0 1 1 0 1 0")
    assert said.count(one.ask("Q1", 2, keep=False)) == 3
    assert "  3 passes" in said and "  as before: 1 1 1 1 1 1 1" in said and "  2 tokens are forgotten" in said
    assert "! there is nothing to undo" in said and any("eff. rank" in line for line in said)
    assert any("1 windows in common" in line or "2 windows in common" in line for line in said)


def test_a_state_is_gone_on_from(chat, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state = ("--state", str(tmp_path / "state"))
    chat("0 1 1 0 1 0 0", "/quit", "1 1 1", options=state)
    said = chat("1", f"/save {tmp_path / 'other'}", "/reset", f"/load {tmp_path / 'other'}", options=state)
    assert [line.split(", ")[2] for line in said if line.startswith("  [")] == [
        "8 tokens read", "0 tokens read", "8 tokens read"
    ]  # fmt: skip
    assert "9 tokens read" in "".join(chat("1", options=state))


def test_mistakes_are_sentences_and_it_goes_on(chat, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    wrong = ("?", "2 x", "/what", "/sleep x", "/sleep 0", "/save", "/back", "/load none", "/forget a")
    said = chat(*wrong, "/help", "0 1")
    errors = [line for line in said if line.startswith("! ")]
    assert len(errors) == len(wrong)
    assert "'2' is no word of the task; write its words, with spaces between: 0 1 Q1" in errors[1]
    assert any("2 tokens read" in line for line in said)
    for arguments, wanted in (
        (["--checkpoint", "none"], "--checkpoint none does not exist"),
        (["--checkpoint", "none", "--temperature", "-1"], "temperature=-1.0 must be from 0"),
        (["--checkpoint", "none", "--state", "no/state"], "there is no folder no; create it first"),
        (["--checkpoint", "none", "--max-new-tokens", "0"], "--max-new-tokens 0 must be from 1"),
    ):
        assert main(["chat", *arguments]) == 2
        assert wanted in capsys.readouterr().err


def test_keys_are_changed_as_for_test(chat, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    state = ("--state", str(tmp_path / "state"))
    said = chat("0 1 1 0 1 0", "/provenance", options=("sleep.n_passes=5", "sleep.window_size=4", *state))
    assert any("windows of 4 tokens, N=5" in line for line in said) and any("  5 passes" in line for line in said)
    said = chat("/provenance", options=(*state, "sleep.n_passes=5"))
    assert any("  5 passes" in line for line in said)
    for arguments, wanted in (
        (["sleep.n_passes=2", *state], "state goes on with sleep.n_passes=5, not 2; drop it, or begin another file"),
        (["--policy", "manual", *state], "state goes on with --policy on_full; drop it"),
        (["--keep-texts", *state], "state was begun without --keep-texts; drop it"),
        (["training.max_steps=3"], "training.max_steps=3 would change nothing: a model is held here, and not trained"),
        (["tracking.uri=x"], "tracking.uri=x would change nothing"),
        (["sleep.grad_passes=1"], "sleep.grad_passes=1 would change nothing"),
        (["model.d_model=32"], "model.d_model=32 does not fit"),
        (["task.name=depo"], "was trained with task.name=rule110"),
        (["sleep.n_pases=3"], "did you mean sleep.n_passes"),
        (["sleep.wake_passes=2"], "sleep.wake_passes=2 needs a whole window at once"),
        (["5"], "argument '5' is not key=value"),
    ):
        assert main(["chat", "--checkpoint", str(folder), *arguments]) == 2, arguments
        said = capsys.readouterr().err
        assert wanted in said and said.count("\n") == 1


def test_hostile_lines(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("a file of mine")
    os.mkfifo(tmp_path / "fifo")
    wrong = [
        b"\xff\xfe 0", b"/sleep 1000000000", b"/sleep -1", "/sleep \u00b2".encode(), b"/source " + b"x" * 2000,
        f"/save {tmp_path / 'mine'}".encode(), f"/save {tmp_path}".encode(), f"/save {tmp_path}/no/x".encode(),
        f"/load {tmp_path / 'fifo'}".encode(), b"/load /dev/zero", b"/load " + b"y" * 5000, b"/save a\x00b",
        b"/\x1b[2J", b"?" + b"Q1 " * 5000 + b"z", "\u202e\u2066".encode(),
    ]  # fmt: skip
    lines = b"\n".join([b"0 1", *wrong, b"/source \x1b]0;x\x07", b"/source", b"1 1", b"?Q1"])
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines), encoding="utf-8"))
    assert main(["chat", "--checkpoint", str(folder)]) == 0
    said = capsys.readouterr().out
    errors = [line for line in said.splitlines() if line.startswith("! ")]
    assert len(errors) == len(wrong), errors
    assert "would replace something that is no state of a session" in said and "4 tokens read" in said
    assert "\x1b" not in said and (tmp_path / "mine").read_text() == "a file of mine"


@pytest.mark.parametrize("while_answering", [False, True])
def test_a_signal_saves_the_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, while_answering: bool
) -> None:
    """Two of them, which is what ``timeout`` sends; the second comes while it is saved."""
    chat = Chat(open_model(str(folder)), plain_console(quiet=True), tmp_path / "state")

    def terminated(_: object = None) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def lines() -> Iterator[str]:
        yield "0 1"
        if while_answering:
            monkeypatch.setattr(chat.session, "_next_logits", terminated)
            yield "??Q1"
        terminated()

    save = chat.session.save
    monkeypatch.setattr(chat.session, "save", lambda path: (terminated(), save(path)))
    assert chat.run(lines()) == 128 + signal.SIGTERM
    assert SleepSession.load(tmp_path / "state", chat.opened.model).tokens_seen == 2 + while_answering
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_two_chats_on_one_state(folder: Path, tmp_path: Path) -> None:
    opened, state = open_model(str(folder)), tmp_path / "state"
    first = Chat(opened, plain_console(quiet=True), state)
    with pytest.raises(ValueError, match="state is used by another chat; end that, or choose another file"):
        Chat(opened, plain_console(quiet=True), state)
    first.run(["0 1"])
    assert [file.name for file in tmp_path.glob(".*")] == [], "no lock is left behind"
    second = Chat(opened, plain_console(quiet=True), state)
    assert second.session.tokens_seen == 2


def test_a_chat_that_is_refused_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    (state := tmp_path / "state").write_bytes(b"no state")
    for changes in ((), ("n_passes",)):
        with pytest.raises(ValueError, match="state"):
            Chat(open_model(str(folder), ["sleep.n_passes=4"]), plain_console(quiet=True), state, changes=changes)
        assert [file.name for file in tmp_path.glob(".*")] == []
        alone(folder).save(state)


def test_a_state_that_expires_meanwhile(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chat = Chat(open_model(str(folder)), plain_console(quiet=True), tmp_path / "state")
    chat.session.expires_at = 0.0
    assert chat.run(["0 1"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: session") and "has expired" in said and said.count("\n") == 1
    assert list(tmp_path.glob("*state*")) == [] == list(tmp_path.glob(".*"))


def test_the_state_keeps_what_was_forked(chat, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    state, fork = tmp_path / "state", tmp_path / "fork"
    said = chat(
        "0 1 1", "/fork", "1 1", "/save", f"/save {state}", f"/save {fork}", "/fork", "0", "/quit",
        options=("--state", str(state)),
    )  # fmt: skip
    assert f"  in fork 1; /back returns; {state} keeps what was forked, /save FILE the fork" in said
    assert sum("/save in a fork needs another file" in line for line in said) == 2
    assert f"  the fork is given up; {state} keeps what it was forked from" in said
    assert any("3 tokens read" in line for line in chat("?Q1", options=("--state", str(state))))
    assert any("5 tokens read" in line for line in chat(f"/load {fork}"))


def test_words() -> None:
    words = Words(("a", "bb"))
    assert words.encode(" bb\ta ") == [1, 0] and words.decode([1, 0]) == "bb a" and words.encode("") == []
