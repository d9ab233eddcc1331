"""The grammar of a working session: commits as diffs, test runs, traces of errors, decisions, attempts, tool output.

A thread is what happens to one thing (a setting, a decision, a test) in order, with a question on it. Every entry is a
line or more that begins with the place of its time stamp.
"""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from sleep_lightning.tasks.gsm_infinite.draw import pick
from sleep_lightning.tasks.suites.filler import named
from sleep_lightning.tasks.suites.stories import PERSONS

KINDS = ("setting", "decision", "test", "cause", "tried", "rule")
"""The slice ``kind`` counts from 0 in this order."""
STAMP = "\n[day 1 09:00] "
"""Begins every entry; the true time replaces it."""
FILES = tuple(
    f"{folder}/{file}"
    for file, folder in product(
        named("cart.py, login.py, mailer.py, parser.py, queue.py, report.py, search.py, upload.py"), ("src", "lib")
    )
)
SETTINGS = named("timeout, retries, limit, depth, workers, batch, cache_size, page_size, threads, attempts")
TESTS = tuple(
    f"test_{name}"
    for name in named(
        "login, logout, checkout, refund, search, upload, invite, export, import, merge, rename, archive, restore, "
        "notify, schedule, paging, locking, sorting, parsing, caching, billing, tagging, sharing, syncing"
    )
)
TOPICS: dict[str, tuple[str, ...]] = {
    "session store": named("redis, sqlite, memcached, files, postgres"),
    "date format": named("iso, epoch, local, utc, rfc"),
    "message queue": named("kafka, rabbit, nats, pulsar, pipes"),
    "image format": named("png, webp, avif, jpeg, svg"),
    "deploy day": named("monday, tuesday, wednesday, thursday, friday"),
    "log level": named("debug, info, warning, error, silent"),
    "build tool": named("make, bazel, ninja, meson, just"),
    "text encoding": named("ascii, latin, utf8, utf16, cp1252"),
    "retry policy": named("never, once, twice, linear, exponential"),
    "page theme": named("light, dark, sepia, solar, plain"),
}
REMEDIES = tuple(
    f"{a} {b}"
    for a, b in zip(
        named("clear, raise, pin, patch, restart, disable, split, delay, sort, copy, lock, shrink, retry, skip"),
        named(
            "the cache, the memory, the version, the parser, the server, the proxy, the batch, the upload, the input, "
            "the schema, the table, the pool, the request, the header"
        ),
        strict=True,
    )
)
RULES: dict[str, tuple[str, tuple[str, ...]]] = {
    "Commit messages begin with %s.": (
        "What do commit messages begin with?",
        named("FIX, JOB, DEV, OPS, RUN, API, DOC"),
    ),
    "Nobody edits the folder %s.": (
        "Which folder does nobody edit?",
        named("vendor, legacy, assets, schema, proto, keys"),
    ),
    "Ask %s before a release.": ("Who is asked before a release?", PERSONS[:8]),
    "Tests run with seed %s.": ("Which seed do tests run with?", tuple(map(str, range(11, 20)))),
    "Branches are named after %s.": (
        "What are branches named after?",
        named("rivers, birds, cities, trees, stars, metals"),
    ),
    "Write comments in %s.": ("Which language are comments in?", named("English, French, Dutch, Welsh, Czech, Malay")),
}
"""A rule with a gap, its question and what fills the gap."""
COMMITS = tuple(f"{letter}{n:02x}" for n, letter in product(range(0, 256, 5), "abcdef"))
_TALK = named("lunch at noon?, the coffee is out., good morning!, back in an hour., thanks!, who has the key?")


@dataclass(frozen=True)
class Thread:
    """What happens to one thing.

    Attributes:
        entries: in order; every one begins with ``STAMP``.
        ask: the question on it.
        answer: what it asks for.
        key: what the answer follows from, without what is named at random.
    """

    entries: Sequence[str]
    ask: str
    answer: str
    key: str


class Work:
    """Draws threads, and output of tools that is about nothing.

    While ``reserving`` no two threads are about the same thing; afterwards threads are about what is left.
    """

    reserving = True

    def __init__(self, rng: random.Random, n_rules: int) -> None:
        self._rng = rng
        pools: dict[str, Iterable[Any]] = {"setting": product(FILES, SETTINGS), "test": TESTS, "topic": TOPICS}
        pools |= {"commit": COMMITS, "error": map(str, range(10, 100))}
        self._names = {pool: list(names) for pool, names in pools.items()}
        self.rules = [(rule, pick(rng, RULES[rule][1])) for rule in rng.sample(list(RULES), n_rules)]
        self._open: list[Iterator[str]] = []

    def head(self) -> str:
        """The first entry: the rules."""
        told = "".join(f" {rule % filled}" for rule, filled in self.rules)
        return f"{STAMP}user: rules for the whole job.{told}" if told else ""

    def thread(self, kind: str, steps: int) -> Thread:
        """A thread of one of ``KINDS`` with a number of steps: changes, decisions, runs, errors or attempts."""
        return getattr(self, f"_{kind}")(steps)

    def _name(self, pool: str) -> Any:
        names = self._names[pool]
        i = int(self._rng.random() * len(names))
        if self.reserving:
            names[i], names[-1] = names[-1], names[i]
            return names.pop()
        return names[i]

    def _setting(self, steps: int) -> Thread:
        (file, key), before = self._name("setting"), list[str]()
        values, entries = [self._number()], list[str]()
        for _ in range(steps):
            if before and self._rng.random() < 0.4:  # the value is not said again
                entries.append(f"{STAMP}$ git revert {before.pop()}\nreverted.")
                values.append(values[-2])
                continue
            values.append(self._number(but=values[-1]))
            before = [self._name("commit")]
            entries.append(_diff(before[0], file, key, *values[-2:]))
        return Thread(entries, f"What is {key} in {file} now?", values[-1], repr((file, key, values)))

    def _decision(self, steps: int) -> Thread:
        topic = self._name("topic")
        chosen = [pick(self._rng, TOPICS[topic])]
        entries = [f"{STAMP}decision: {chosen[0]} for the {topic}."]
        for _ in range(steps - 1):
            chosen.append(pick(self._rng, [option for option in TOPICS[topic] if option != chosen[-1]]))
            entries.append(f"{STAMP}decision reversed: {chosen[-1]}, not {chosen[-2]}, for the {topic}.")
        return Thread(entries, f"What was decided last for the {topic}?", chosen[-1], repr((topic, chosen)))

    def _test(self, steps: int) -> Thread:
        test = self._name("test")
        passed = [self._rng.random() < 0.5 for _ in range(steps)]
        entries = [f"{STAMP}{_run(test, one)}." for one in passed]
        return Thread(entries, f"Did {test} pass in its last run?", "yes" if passed[-1] else "no", repr((test, passed)))

    def _cause(self, steps: int) -> Thread:
        test, commit, (file, key) = self._name("test"), self._name("commit"), self._name("setting")
        errors = [self._name("error") for _ in range(steps)]
        old = self._number()
        entries = [_diff(commit, file, key, old, self._number(but=old))]
        entries.append(f"{STAMP}{_run(test, False)}: error {errors[0]}.")
        causes = [*(f"error {error}" for error in errors[1:]), f"commit {commit}"]
        entries += [f"{STAMP}$ trace {e}\nerror {e} comes from {c}." for e, c in zip(errors, causes, strict=True)]
        ask = f"Which file holds the first cause of the failure of {test}?"
        return Thread(entries, ask, file, repr((test, file, steps)))

    def _tried(self, steps: int) -> Thread:
        test, remedies = self._name("test"), self._rng.sample(REMEDIES, steps + 1)
        mended = self._rng.random() < 0.5
        outcomes = zip(remedies, [False] * steps + [True] * mended, strict=False)
        entries = [f"{STAMP}try for {test}: {remedy}.\n{_run(test, passed)}." for remedy, passed in outcomes]
        ask = f"What was tried for {test} and failed, in order?"
        return Thread(entries, ask, ", ".join(remedies[:steps]), repr((test, remedies[:steps])))

    def _rule(self, steps: int) -> Thread:
        """One of the rules; all but one of the steps are wishes to break it."""
        rule, filled = self.rules[self._rng.randrange(len(self.rules))]
        ask, options = RULES[rule]
        entries = []
        for _ in range(steps - 1):
            wish = rule % pick(self._rng, [option for option in options if option != filled])
            entries.append(f"{STAMP}{pick(self._rng, PERSONS)}: new rule? {wish}\nuser: no, the old one holds.")
        return Thread(entries, ask, filled, repr(self.rules))

    def filler(self, other_work: bool) -> str:
        """An entry that changes no answer: output of a tool, or what happens to other things."""
        if not other_work or self._rng.random() < 0.5:
            return f"{STAMP}{self._output()}"
        if len(self._open) < 3:
            kind = pick(self._rng, ("setting", "decision", "test", "cause", "tried"))
            self._open.append(iter(self.thread(kind, self._rng.randint(1, 3)).entries))
        thread = self._rng.randrange(len(self._open))
        if (entry := next(self._open[thread], None)) is None:
            del self._open[thread]
            return self.filler(other_work)
        return entry

    def _output(self) -> str:
        rng, n = self._rng, self._number
        form = int(rng.random() * 6)
        if form == 0:
            return f"{pick(rng, PERSONS)}: {pick(rng, _TALK)}"
        if form == 1:
            return f"$ git status\n{n()} files changed."
        if form == 2:
            return f"$ df\ndisk {n()} % full."
        if form == 3:
            return f"info: {n()} requests in {n()} seconds."
        if form == 4:
            return f"$ ls\n{' '.join(pick(rng, FILES) for _ in range(3))}"
        return f"$ grep {pick(rng, SETTINGS)} docs\n{n()} lines found."

    def _number(self, but: str = "") -> str:
        while (number := str(1 + int(self._rng.random() * 99))) == but:
            pass
        return number


def _diff(commit: str, file: str, key: str, old: str, new: str) -> str:
    return f"{STAMP}commit {commit} changes {file}:\n- {key} = {old}\n+ {key} = {new}"


def _run(test: str, passed: bool) -> str:
    return f"$ pytest {test}\n{test} {'passed' if passed else 'failed'}"


def all_words() -> Iterator[str]:
    """Texts that hold every word but numbers."""
    yield from (*FILES, *SETTINGS, *TESTS, *COMMITS, *REMEDIES, *PERSONS, *_TALK)
    yield from (" ".join((topic, *options)) for topic, options in TOPICS.items())
    yield from (" ".join((rule % "", ask, *options)) for rule, (ask, options) in RULES.items())
    rng = random.Random(0)
    work = Work(rng, len(RULES))
    yield work.head()
    yield from (f"{work.thread(kind, 4).ask} yes no" for kind in KINDS for _ in range(2))
    work.reserving = False
    yield from (work.filler(True) for _ in range(500))
    yield "new rule? user: no, the old one holds. git revert reverted. decision reversed: not passed failed"
