"""``chat``: a session on a terminal, or of lines from a pipe."""

import io
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rich.console import Console

from sleep_lightning.cli.console import print_facts, say
from sleep_lightning.formatting import in_bytes, in_flop, with_unit
from sleep_lightning.machine.locks import open_lock, take
from sleep_lightning.names import check_path, printable
from sleep_lightning.runs.signals import SignalsInterrupt
from sleep_lightning.serve.opening import OpenedModel
from sleep_lightning.session import UNLABELLED, SleepSession, Snapshot
from sleep_lightning.session.core import Policy, check_source
from sleep_lightning.session.state_file import is_state

LONGEST = 400
"""Characters of an example that is shown."""
UNDOABLE = 32
"""Lines that ``/rollback`` can undo."""
BAR = 16
HELP = {
    "TEXT": "read it; a window that is full is slept on",
    "?TEXT": "ask, and forget question and answer: the session is as before",
    "??TEXT": "ask, and keep both",
    "/sleep [N]": "close the window as it stands, with N passes",
    "/source LABEL": "where what follows comes from (a label of the provenance)",
    "/rollback": "undo the last line that was kept, and so on",
    "/fork": "go on in a copy; /back returns",
    "/save [FILE], /load FILE": "the state, in a file",
    "/inspect": "every head: norm, rank, half-life, last change",
    "/provenance": "every window that was slept on, and where it came from",
    "/forget LABEL": "rebuild the memory without a source (with --keep-texts)",
    "/cost": "the bill: reading and answering, and sleeping",
    "/reset": "forget everything",
    "/help, /quit": "",
}


@dataclass
class Chat:
    """A conversation with one session at a time.

    Args:
        opened: the model.
        console: what is said goes there.
        state: file to go on from, and to save in at the end; None: none.
        max_new_tokens: of an answer; None: as long as those of the task.
        temperature, seed: of answers.
        policy, keep_texts: of a new session; None: on_full.
        changes: keys of ``sleep`` that were changed.

    Raises:
        ValueError: the state cannot be read, is used by another chat, or has other rules than were asked for.
    """

    opened: OpenedModel
    console: Console
    state: Path | None = None
    max_new_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    policy: Policy | None = None
    keep_texts: bool = False
    changes: Sequence[str] = ()
    source: str = UNLABELLED
    _undo: list[tuple[str, Snapshot]] = field(default_factory=list)
    _originals: list[tuple[SleepSession, list[tuple[str, Snapshot]]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._lock = None if self.state is None else held_alone(self.state)
        try:
            self.session = self._begun()
        except BaseException:
            self._release()
            raise

    def _begun(self) -> SleepSession:
        o = self.opened
        if self.state is None or not self.state.exists():
            return SleepSession(
                o.model, o.experiment.sleep, o.tokenizer, policy=self.policy or "on_full", keep_texts=self.keep_texts
            )
        s, wanted = SleepSession.load(self.state, o.model, o.tokenizer), o.experiment.sleep
        for key in self.changes:
            if (has := getattr(s.config, key)) != (value := getattr(wanted, key)):
                raise ValueError(
                    f"--state {self.state} goes on with sleep.{key}={has}, not {value}; drop it, or begin another file"
                )
        if self.policy not in (None, s.policy):
            raise ValueError(f"--state {self.state} goes on with --policy {s.policy}; drop it, or begin another file")
        if self.keep_texts and not s.keep_texts:
            raise ValueError(f"--state {self.state} was begun without --keep-texts; drop it, or begin another file")
        return s

    def greet(self) -> None:
        """What this is, and what to type."""
        o, s = self.opened, self.session.config
        facts = {
            "model": f"{o.experiment.task.name}, {o.experiment.model.described}, windows of {s.window_size} tokens, "
            f"N={s.n_passes}",
            "memory": f"{in_bytes(self.session.nbytes)}, however much is read",
        }
        context, question = o.example
        if len(context) + len(question) < LONGEST:
            facts |= {"try": context, "then": f"?{question}"}
        print_facts(self.console, facts | {"help": "/help"})

    def run(self, lines: Iterable[str]) -> int:
        """Until the lines end, one says /quit, or a signal comes; then the state is saved, where it has a file.

        Returns the exit code: 2 if the session has expired.
        """
        stopped = ended = 0
        with SignalsInterrupt(once=True) as signals:
            try:
                self._answer_all(lines)
            except KeyboardInterrupt:
                stopped = signals.exit_code
            finally:
                ended = self._end()
        return stopped or ended

    def _answer_all(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.strip() in ("/quit", "/exit"):
                return
            try:
                self.answer(line.strip())
            except (ValueError, OSError) as error:
                say(self.console, f"! {error}")

    def _end(self) -> int:
        """Save what was forked, not the fork."""
        try:
            self.session.close()
            if self.state is not None:
                if self._originals:
                    say(self.console, f"  the fork is given up; {self.state} keeps what it was forked from")
                    (self.session, _), *_ = self._originals
                    self._originals = []
                    self.session.close()
                self._save(str(self.state))
        except ValueError as error:
            print(f"error: {printable(str(error))}", file=sys.stderr)
            return 2
        finally:
            self._release()
        return 0

    def _release(self) -> None:
        if self.state is not None and self._lock is not None:
            _lock_of(self.state).unlink(missing_ok=True)
            self._lock.close()

    def answer(self, line: str) -> None:
        """One line. Raises ValueError, and OSError for files."""
        if line.startswith("/"):
            name, _, rest = line[1:].partition(" ")
            command = self._commands.get(name)
            if command is None:
                raise ValueError(f"/{name} is no command; see /help")
            command(rest.strip())
        elif line.startswith("?"):
            self._ask(line.lstrip("?").strip(), keep=line.startswith("??"))
        elif line:
            self._kept(line, lambda: self.session.append(line, self.source))

    @property
    def _commands(self) -> dict[str, Callable[[str], None]]:
        names = ("sleep", "source", "rollback", "fork", "back", "save", "load", "inspect", "provenance", "forget")
        return {name: getattr(self, f"_{name}") for name in (*names, "cost", "reset", "help")}

    def _kept(self, line: str, do: Callable[[], object]) -> None:
        """Do what changes the session, so that it can be undone."""
        before, read = self.session.snapshot(), self.session.cost.wake.tokens
        start = time.perf_counter()
        do()
        seconds = time.perf_counter() - start
        self._undo = [*self._undo, (line, before)][-UNDOABLE:]
        self._stand(seconds, self.session.cost.wake.tokens - read)

    def _ask(self, question: str, keep: bool) -> None:
        most = self.max_new_tokens or self.opened.answer_tokens

        def ask() -> None:
            prompt = question or None
            tokens = self.session.generate(
                most,
                prompt=prompt,
                temperature=self.temperature,
                seed=self.seed,
                keep=keep,
                source=self.source,
            )
            text = self.session.answer_text()
            with closing(tokens):  # type: ignore[type-var]
                for token in tokens:
                    self._write(text.push(token))
            self._write(f"{text.finish()}\n")

        if keep:
            self._kept(f"??{question}", ask)
        else:
            read, start = self.session.cost.wake.tokens, time.perf_counter()
            ask()
            self._stand(time.perf_counter() - start, self.session.cost.wake.tokens - read)

    def _write(self, text: str) -> None:
        """A piece of an answer; no control character of a model reaches the terminal."""
        print(printable(text, kept="\n\t"), end="", flush=True, file=self.console.file)

    def _stand(self, seconds: float | None = None, tokens: int = 0) -> None:
        s, L = self.session, self.session.config.window_size
        full = round(BAR * s.window_fill / L)
        took = "" if seconds is None else f", {with_unit(seconds, 's')}"
        took += f" ({with_unit(seconds / tokens, 's')} a token)" if seconds is not None and tokens else ""
        say(
            self.console,
            f"  [{'#' * full}{'.' * (BAR - full)}] {s.window_fill}/{L}, {s.windows_closed} windows slept on, "
            f"{s.tokens_seen} tokens read, {in_bytes(s.nbytes)}{took}",
        )

    # Commands

    def _sleep(self, n: str) -> None:
        if n and not n.isdecimal():
            raise ValueError(f"/sleep {n}: passes are a whole number")

        def sleep() -> None:
            passes = self.session.sleep(int(n) if n else None)
            say(self.console, f"  {passes} passes" if passes else "  nothing to sleep on")

        self._kept(f"/sleep {n}".strip(), sleep)

    def _source(self, label: str) -> None:
        check_source(label or UNLABELLED)
        self.source = label or UNLABELLED
        say(self.console, f"  source: {self.source}")

    def _rollback(self, _: str) -> None:
        if not self._undo:
            raise ValueError("there is nothing to undo")
        line, before = self._undo.pop()
        self.session.rollback(before)
        say(self.console, f"  as before: {line if len(line) < 60 else line[:57] + '...'}")
        self._stand()

    def _fork(self, _: str) -> None:
        self._originals.append((self.session, self._undo))
        self.session, self._undo = self.session.fork(), list(self._undo)
        kept = "" if self.state is None else f"; {self.state} keeps what was forked, /save FILE the fork"
        say(self.console, f"  in fork {len(self._originals)}; /back returns{kept}")

    def _back(self, _: str) -> None:
        if not self._originals:
            raise ValueError("this is no fork")
        fork = self.session
        fork.close()
        self.session, self._undo = self._originals.pop()
        say(self.console, f"  back; the fork was apart by\n{self.session.diff(fork)}")
        self._stand()

    def _save(self, file: str) -> None:
        if not (file := file or str(self.state or "")):
            raise ValueError("/save needs a file, or start with --state FILE")
        check_path("/save", file)
        if self._originals and self.state is not None and Path(file).absolute() == self.state.absolute():
            raise ValueError(f"/save in a fork needs another file: {file} keeps what was forked")
        if (path := Path(file)).exists() and not (path.is_file() and (not path.stat().st_size or is_state(path))):
            raise ValueError(f"/save {file} would replace something that is no state of a session; choose another")
        self.session.save(path)
        say(self.console, f"  saved in {file}: {in_bytes(Path(file).stat().st_size)}")

    def _load(self, file: str) -> None:
        check_path("/load", file)
        loaded = SleepSession.load(file, self.opened.model, self.opened.tokenizer)
        self.session.close()
        self.session, self._undo = loaded, []
        self._stand()

    def _inspect(self, _: str) -> None:
        say(self.console, self.session.inspect().table())

    def _provenance(self, _: str) -> None:
        for i, line in enumerate(self.session.provenance(), 1):
            sources = ", ".join(f"{source} {n}" for source, n in line.sources.items()) or "nothing"
            out = ", ".join(f"{source} {n}" for source, n in line.left_out.items())
            when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(line.time))
            left = f"; left out: {out}" if out else ""
            say(
                self.console,
                f"  {i}  {when}  {line.n_passes} passes, change {line.change:.1%}  {sources}{left}  {line.hash[:12]}",
            )

    def _forget(self, label: str) -> None:
        forgotten = self.session.forget(label)
        self._undo = []
        say(self.console, f"  {forgotten} tokens are forgotten")
        self._stand()

    def _cost(self, _: str) -> None:
        for name, line in (("wake", self.session.cost.wake), ("sleep", self.session.cost.sleep)):
            flops, seconds = in_flop(line.flops), with_unit(line.seconds, "s")
            say(self.console, f"  {name:<6}{line.tokens} tokens through the blocks, {flops}, {seconds}")

    def _reset(self, _: str) -> None:
        self.session.reset()
        self._undo = []
        self._stand()

    def _help(self, _: str) -> None:
        print_facts(self.console, HELP)


def held_alone(state: Path) -> IO[str]:
    """The file that keeps another chat from the same state until it is closed.

    Raises:
        ValueError: another one has it.
        OSError: the folder cannot be written.
    """
    while True:
        lock = open_lock(path := _lock_of(state))
        if not take(lock):
            lock.close()
            raise ValueError(f"--state {state} is used by another chat; end that, or choose another file")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(lock.fileno()), path.stat()):
                return lock
        lock.close()  # of a chat that has just ended, which removed it


def _lock_of(state: Path) -> Path:
    return state.with_name(f".{state.name}.lock")


def typed_lines() -> Iterator[str]:
    """What is typed, or comes through a pipe. Ctrl-D ends it. What is not UTF-8 becomes "?"."""
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")
    if not sys.stdin.isatty():
        yield from sys.stdin
        return
    try:
        import readline  # history and editing
    except ImportError:
        pass
    else:
        del readline
    while True:
        try:
            yield input("> ")
        except EOFError:
            print()
            return
