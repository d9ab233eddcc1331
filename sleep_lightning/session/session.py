"""A memory that one can hold: tokens are read as they come, and a full window is slept on and forgotten."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM
from sleep_lightning.session.answer_text import AnswerText
from sleep_lightning.session.audit import Audit, audit_of
from sleep_lightning.session.codec import Codec, Tokenizer
from sleep_lightning.session.core import Policy, SessionCore, SessionExpired, check_passes, check_session, check_source
from sleep_lightning.session.idle import SLEEPER
from sleep_lightning.session.inspection import Difference, Inspection, compare_states, inspect_state
from sleep_lightning.session.provenance import BEGIN, UNLABELLED, Read, Slept, WindowLine
from sleep_lightning.session.sampling import Sampling
from sleep_lightning.session.saved import Saved, load_state, save_state
from sleep_lightning.session.state import SessionState, Snapshot
from sleep_lightning.session.text import Stops, Text, Tokens
from sleep_lightning.session.write_policy import WritePolicy
from sleep_lightning.sleep import SleepConfig


class SleepSession(SessionCore):
    """Reads, sleeps and answers, one token after the other: equal to the window loop that models are trained in.

    A token costs the same whatever has been read before it and whatever N is, and the state is a constant number of
    bytes. Methods may be called from several threads; they wait for each other.

    Args:
        model: a trained hybrid; its weights must not change while the session lives.
        sleep_config: L, N and their options. ``grad_passes`` and what else is for training has no effect.
        tokenizer: for text in and out; many sessions best share ``Codec.of`` one, which is set up once.
        policy: when a window is slept on. ``on_full``: as soon as it has L tokens; ``idle``: also as it stands, in a
            thread that all sessions share, when the session has not been used for ``idle_after`` seconds; ``manual``:
            by ``sleep`` alone, and a full window takes no more tokens.
        idle_after: seconds.
        writes: what may be consolidated: a policy, or passes by source label (``WritePolicy``); None: everything.
        keep_texts: keep what is read beside the memory, which ``forget`` needs.
        ttl: seconds after which the session is refused and its memory deleted; None: never.
        audit: called with an ``AuditLine`` before every use, or the path of a file for these lines; what cannot be
            told does not happen.
        clock: seconds since 1970.

    Attributes:
        id: names the session in the audit; kept in its file.
        cost: the bill.
        expires_at: when it does, by ``clock``; None: never.

    Raises:
        ValueError: a model or an option that cannot be read token by token.
    """

    def __init__(
        self,
        model: HybridLM,
        sleep_config: SleepConfig,
        tokenizer: Tokenizer | None = None,
        *,
        policy: Policy = "on_full",
        idle_after: float = 1.0,
        writes: WritePolicy | Mapping[str, int] | None = None,
        keep_texts: bool = False,
        ttl: float | None = None,
        audit: Audit | str | PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_session(model, sleep_config, policy, ttl)
        policy_of_writes = WritePolicy(writes) if isinstance(writes, Mapping) else writes
        config = replace(sleep_config, grad_passes=None)
        super().__init__(model, config, policy, policy_of_writes, keep_texts, ttl, audit_of(audit), clock)
        self._text, self.idle_after = Text(tokenizer, model.vocab_size), idle_after
        self._closed = self._watched = False

    # Reading and sleeping

    def append(self, tokens: Tokens, source: str = UNLABELLED) -> None:
        """Read tokens, sleeping where windows are full: all of them, or none if it raises.

        Args:
            tokens: text or token ids ``[T]``.
            source: where they come from.

        Raises:
            ValueError: tokens that the model does not know; text without a tokenizer; a policy that would not sleep.
        """
        check_source(source)
        ids = self._text.ids(tokens, first=not self.tokens_seen)
        with self._working("write", "append", urgent=True, tokens=len(ids), source=source):
            self._read_given(tokens, ids, source)

    def sleep(self, n_passes: int | None = None, *, stop: Callable[[], bool] | None = None) -> int:
        """Close the window as it stands: ``n_passes`` over it in all (None: N), of which its reading was the first.

        Args:
            n_passes: no more than the write policy allows are made.
            stop: asked between passes; True ends them, and those that were made count.

        Returns:
            The passes made; fewer than asked for under ``tolerance``, 0 for an empty window, or one of which nothing
            may be consolidated.
        """
        check_passes(n_passes)
        with self._working("write", "sleep", tokens=self.window_fill, n_passes=n_passes):
            if not self.window_fill:
                return 0
            self._state, passes = self._reader.sleep(self._state, n_passes, stop)
            return passes

    # Answering

    def ask(
        self,
        tokens: Tokens,
        max_new_tokens: int = 32,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Stops = (),
        seed: int | None = None,
        keep: bool = True,
        source: str = UNLABELLED,
    ) -> Any:
        """Read a question and answer it: text for text, a list of token ids for ids.

        Args:
            tokens: the question.
            max_new_tokens: most tokens of the answer.
            temperature, top_k, top_p, seed: ``Sampling``.
            stop: tokens or texts that end the answer and are no part of it; the tokenizer's end of a text always does.
            keep: False throws question and answer away: the session is to the bit as before.
            source: where the question comes from; the source of the answer is "answer".

        Raises:
            ValueError: nothing to answer, or values out of range; before anything is read.
        """
        answer = list(
            self.generate(
                max_new_tokens,
                prompt=tokens,
                temperature=temperature,
                top_k=top_k,
                top_p=top_p,
                stop=stop,
                seed=seed,
                keep=keep,
                source=source,
            )
        )
        if not isinstance(tokens, str):
            return answer
        text = self.answer_text(stop)
        for token in answer:
            text.push(token)
        text.finish()
        return text.text

    def generate(
        self,
        max_new_tokens: int = 32,
        *,
        prompt: Tokens | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Stops = (),
        seed: int | None = None,
        keep: bool = True,
        source: str = UNLABELLED,
    ) -> Iterator[int]:
        """Token ids, one after the other, each read once the next is wanted.

        From the first to the last of them the session takes nothing else. Arguments as of ``ask``; ``prompt`` is read
        first (None: the answer goes on from the last token read), a token in ``stop`` is not yielded, and a text in
        ``stop`` ends the answer with the token that completes it, which is yielded and not read. ``answer_text`` makes
        text of them.
        """
        if type(max_new_tokens) is not int or max_new_tokens < 0:
            raise ValueError(f"max_new_tokens={max_new_tokens!r} must be a whole number from 0")
        check_source(source)
        sampling = Sampling(temperature, top_k, top_p, seed)
        given: Tokens = [] if prompt is None else prompt
        ids = self._text.ids(given, first=not self.tokens_seen)
        stops = self._text.stops(stop)
        if not ids and not self.tokens_seen:
            raise ValueError("there is nothing that an answer could go on from; append something, or give a prompt")
        self._check_room(len(self._begins(given, ids)) + len(ids) + max_new_tokens)
        return self._generate(given, ids, max_new_tokens, sampling, stops, keep, source)

    def answer_text(self, stop: Stops = ()) -> AnswerText:
        """What makes text of the tokens of ``generate``, one after the other, as ``ask`` does.

        Raises ValueError for texts in ``stop`` without a tokenizer.
        """
        return self._text.answer(self._text.stops(stop)[1])

    def next_logits(self) -> Tensor:
        """Logits of the token that comes next, fp32 ``[vocab]``. Raises ValueError if nothing has been read."""
        with self._working("read", "next_logits", urgent=True):
            if not self.tokens_seen:
                raise ValueError("nothing has been read that a token could follow; append something first")
            return self._next_logits()

    def logprobs(self, tokens: Tokens) -> Tensor:
        """Log probability of each token after all before it, fp32 ``[T]``; the session is to the bit as before."""
        ids = self._text.ids(tokens)
        with self._working("read", "logprobs", urgent=True, tokens=len(ids)):
            if not self.tokens_seen:
                raise ValueError("the first token has no probability: nothing has been read; append something first")
            state, meter = self._state, self._reader.meter
            try:
                h_BTE = torch.cat((state.window.last_BE[:, None], self._read(ids, UNLABELLED)), 1)[:, : len(ids)]
            finally:
                self._state = state
            meter.logits(len(ids))
            with meter.time(self.cost.wake), torch.no_grad():
                log_p_TV = self.model.logits(h_BTE)[0].float().log_softmax(-1)
                return log_p_TV.gather(1, torch.tensor(ids, device=log_p_TV.device)[:, None])[:, 0].cpu()

    # Copies, files, the past

    def reset(self) -> None:
        """Forget everything, kept texts and provenance too; the bill and the time of expiry stay."""
        with self._working("reset", "reset"):
            self._state, self._latest = SessionState.fresh(self.model, self.config), None

    def fork(self) -> Self:
        """Another session with the same past, the same rules, and a bill of its own; tensors are copied once one of
        the two writes into them."""
        with self._working("export", "fork"):
            self._state = replace(self._state, shared=True)
            return self._like(self.config, self._state)

    def snapshot(self) -> Snapshot:
        """The session as it is, for ``rollback``."""
        with self._working("export", "snapshot"):
            self._state = replace(self._state, shared=True)
            self._latest = Snapshot(self._state, self.model, self.config)
            return self._latest

    def rollback(self, snapshot: Snapshot | None = None) -> None:
        """Back to a snapshot of this session, or of one with the same past (None: the latest): to the bit as it was.

        What it cost stays on the bill. Raises ValueError if there is none, or it is of another model or sleep.
        """
        with self._working("reset", "rollback"):
            snapshot = snapshot or self._latest
            if snapshot is None:
                raise ValueError("there is no snapshot to go back to; call snapshot() before what may be undone")
            if snapshot.model is not self.model or snapshot.config != self.config:
                raise ValueError("the snapshot is of another model or another sleep; use one of this session")
            self._state = snapshot.state

    def forget(self, source: str) -> int:
        """Rebuild the memory from the kept texts without those of a source: to the bit equal to never having read it.

        Answers that were kept are texts of the source "answer": what a source has put into them stays until they are
        forgotten, too. Snapshots are given up.

        Returns:
            How many tokens are forgotten.

        Raises:
            ValueError: texts are not kept.
        """
        with self._working("reset", "forget", source=source):
            if not self.keep_texts:
                raise ValueError("there are no texts to read again; begin the session with keep_texts=True")
            state, forgotten = SessionState.fresh(self.model, self.config), 0
            for event in self._state.events:
                if isinstance(event, Read) and event.source == source:
                    forgotten += len(event.tokens)
                else:
                    state = self._reader.replay(state, event, sleeps=self.policy != "manual")
            self._state, self._latest = state, None
            return forgotten

    def provenance(self) -> list[WindowLine]:
        """A line for every window that was closed, first to last."""
        with self._working("inspect", "provenance"):
            return list(self._state.lines)

    def inspect(self) -> Inspection:
        """Norm, effective rank and half-life of every head, and what the last window and each of its passes changed."""
        with self._working("inspect", "inspect"):
            return inspect_state(self.model, self.config, self._state)

    def diff(self, other: "SleepSession") -> Difference:
        """How far the memories of two sessions of one model are apart, and which windows only one of them has seen."""
        first, second = sorted((self, other), key=id)  # one order for all, or two could wait for each other
        with first._working("inspect", "diff", other=second.id), second._working("inspect", "diff", other=first.id):
            if other.model is not self.model:
                raise ValueError("the sessions are of two models, whose memories have nothing in common")
            return compare_states(self.model, self._state, other._state)

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file from which ``load`` goes on to the bit; atomic, for its owner alone.

        Raises:
            OSError: it cannot be written; a file that was there is intact.
        """
        with self._working("export", "save", path=str(path)):
            saved = Saved(
                self.id,
                self.config,
                self.policy,
                self.writes,
                self.keep_texts,
                self.expires_at,
                self._state,
                self.cost,
            )
            save_state(Path(path), self.model, saved)

    @classmethod
    def load(
        cls,
        path: str | PathLike[str],
        model: HybridLM,
        tokenizer: Tokenizer | None = None,
        *,
        idle_after: float = 1.0,
        audit: Audit | str | PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """A session from a file that ``save`` wrote, with the rules it had.

        Args:
            path: of the file.
            model: the model that it was written with: the weights are compared.
            tokenizer, idle_after, audit, clock: as of a new session; they are not in the file.

        Raises:
            SessionExpired: it has expired; the file is deleted.
            ValueError: the file is truncated, damaged, foreign, newer, or of another model.
            OSError: it cannot be read.
        """
        saved = load_state(Path(path), model)
        if saved.expires_at is not None and clock() >= saved.expires_at:
            Path(path).unlink(missing_ok=True)
            raise SessionExpired(f"{path} has expired and is deleted; begin a new session")
        session = cls(
            model,
            saved.config,
            tokenizer,
            policy=saved.policy,
            idle_after=idle_after,
            writes=saved.writes,
            keep_texts=saved.keep_texts,
            audit=audit,
            clock=clock,
        )
        session.id, session.expires_at, session._state = saved.id, saved.expires_at, saved.state
        session._bill(saved.cost)
        with session._working("write", "load", path=str(path)):
            return session

    def close(self) -> None:
        """No idle sleep any more; one that runs has ended, at the boundary of a pass. Nothing else needs closing."""
        self._closed = True
        with self._lock:
            pass

    @property
    def most_passes(self) -> int:
        """Most passes over a window that the session makes without being told how many, ``forget`` among them."""
        kept = (event.n_passes or 0 for event in self._state.events if isinstance(event, Slept))
        writes = () if self.writes is None else (self.writes.others, *self.writes.passes.values())
        return max((self.config.n_passes, *writes, *kept))

    @property
    def tokenizer(self) -> Codec | None:
        """What text goes through."""
        return self._text.codec

    # Inside

    def _like(self, config: SleepConfig, state: SessionState) -> Self:
        """A session with the same rules."""
        other = type(self)(
            self.model,
            config,
            self.tokenizer,
            policy=self.policy,
            idle_after=self.idle_after,
            writes=self.writes,
            keep_texts=self.keep_texts,
            audit=self._audit,
            clock=self._clock,
        )
        other._state, other.expires_at = state, self.expires_at
        other._used()
        return other

    def _read_given(self, tokens: Tokens, ids: list[int], source: str) -> None:
        """Read what a caller has given, all or none; a text that begins the session stands behind its beginning."""
        before, begin = self._state, self._begins(tokens, ids)
        self._check_room(len(begin) + len(ids))
        try:
            self._read(begin, BEGIN)
            self._read(ids, source)
        except BaseException:
            self._state = before
            raise

    def _begins(self, tokens: Tokens, ids: list[int]) -> list[int]:
        return [] if self.tokens_seen or not ids else self._text.begin(tokens)

    def _used(self) -> None:
        super()._used()
        if self.policy == "idle" and self.window_fill and not self._closed:
            SLEEPER.watch(self, self.last_use + self.idle_after)

    def _sleep_idly(self) -> float | None:
        """Close the window if the session is still idle; whoever has something to read waits for one pass at most.

        Returns when to look again (``time.monotonic``); None: once it has been used.
        """
        if not self._lock.acquire(blocking=False):
            return time.monotonic()
        try:
            if self._closed or self.expired or self._generating or not self.window_fill:
                return None
            due = self.last_use + self.idle_after
            if time.monotonic() < due or self._wanted():
                return due
            with self._working("write", "sleep", tokens=self.window_fill, idle=True):
                self._state, _ = self._reader.sleep(self._state, None, lambda: self._wanted() or self._closed)
            return None
        finally:
            self._lock.release()

    def _generate(
        self,
        given: Tokens,
        ids: list[int],
        most: int,
        sampling: Sampling,
        stops: tuple[set[int], list[str]],
        keep: bool,
        source: str,
    ) -> Iterator[int]:
        detail = {"tokens": len(ids), "max_new_tokens": most, "kept": keep, "source": source}
        with self._working("write" if keep else "read", "generate", urgent=True, **detail):
            state, self._generating = self._state, True
        text, unread = self._text.answer(stops[1]), list[int]()
        generator = sampling.generator(state.window.tokens_BL.device)
        try:
            with self._lock:
                self._read_given(given, ids, source)
            for _ in range(most):
                with self._lock:
                    self._read_answer(unread)
                    unread = []
                    token = sampling.draw(self._next_logits(), generator)
                if token in stops[0]:
                    break
                if stops[1]:
                    text.push(token)
                unread = [] if text.ended else [token]
                yield token
                if text.ended:
                    break
        finally:
            with self._lock:
                self._generating = False
                try:
                    if keep:
                        self._read_answer(unread)
                    else:
                        self._state = state
                finally:
                    self._used()
