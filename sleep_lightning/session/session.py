"""A memory that one can hold: tokens are read as they come, and a full window is slept on and forgotten."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any, Literal, Protocol, Self

import torch
from torch import Tensor

from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session.cost import Cost, Meter
from sleep_lightning.session.engine import Alone, Engine
from sleep_lightning.session.sampling import check_sampling, sample
from sleep_lightning.session.saved import load_state, save_state
from sleep_lightning.session.state import SessionState
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import PassRecord, SleepConfig

Policy = Literal["on_full", "manual"]
POLICIES = ("on_full", "manual")
Stops = int | str | Sequence[int | str]


class Tokenizer(Protocol):
    """What turns text into tokens and back; those of Hugging Face do."""

    def encode(self, text: str) -> list[int]: ...

    def decode(self, tokens: list[int]) -> str: ...


@dataclass(frozen=True)
class Snapshot:
    """What ``SleepSession.rollback`` goes back to."""

    state: SessionState


class SleepSession:
    """Reads, sleeps and answers, one token after the other: equal to the window loop that models are trained in.

    A token costs the same whatever has been read before it and whatever N is, and the state is a constant number of
    bytes. Methods may be called from several threads; they wait for each other.

    Args:
        model: a trained hybrid; its weights must not change while the session lives.
        sleep_config: L, N and their options. ``grad_passes`` and what else is for training has no effect.
        tokenizer: for text in and out.
        policy: when a window is slept on. ``on_full``: as soon as it has L tokens; ``manual``: by ``sleep`` alone, and
            a full window takes no more tokens.

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
    ) -> None:
        _check(model, sleep_config, policy)
        self.model, self.tokenizer, self.policy = model, tokenizer, policy
        self.config = replace(sleep_config, grad_passes=None)
        self.engine: Engine = Alone()
        self.cost = Cost()
        self._meter = Meter(model, self.config, self.cost)
        self._lock = threading.RLock()
        self._state = SessionState.fresh(model, self.config)
        self._owned = True  # whether no other session or snapshot shares the window, which is written in place
        self._latest: Snapshot | None = None
        self._generating = False

    # What it is

    @property
    def tokens_seen(self) -> int:
        """Tokens read since the session began or was reset."""
        return self._state.tokens_seen

    @property
    def window_fill(self) -> int:
        """Tokens in the open window: what has not been slept on yet."""
        return self._state.window.fill

    @property
    def windows_closed(self) -> int:
        """Windows that have been slept on."""
        return self._state.windows_closed

    @property
    def nbytes(self) -> int:
        """Bytes of the state, open window and all: constant."""
        return self._state.nbytes

    @property
    def memory(self) -> Memory:
        """What crosses windows, as the open window found it. Not to be changed."""
        return self._state.window.start

    # Reading and sleeping

    def append(self, tokens: str | Sequence[int] | Tensor) -> None:
        """Read text or token ids ``[T]``, sleeping where windows are full: all of them, or none if it raises.

        Raises:
            ValueError: tokens that the model does not know; text without a tokenizer; a policy that would not sleep.
        """
        with self._working():
            self._read(self._ids(tokens))

    def sleep(self, n_passes: int | None = None) -> int:
        """Close the window as it stands: ``n_passes`` over it in all (None: N), of which its reading was the first.

        Returns:
            The passes made; fewer than asked for under ``tolerance``, 0 for an empty window.
        """
        config = self.config if n_passes is None else replace(self.config, n_passes=n_passes)
        with self._working():
            if not self.window_fill:
                return 0
            self._state, passes = self._closed(self._state, config)
            self._owned = True
            return passes

    # Answering

    def ask(
        self,
        tokens: str | Sequence[int] | Tensor,
        max_new_tokens: int = 32,
        *,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Stops = (),
        seed: int | None = None,
        keep: bool = True,
    ) -> Any:
        """Read a question and answer it: text for text, a list of token ids for ids.

        Args:
            tokens: the question.
            max_new_tokens: most tokens of the answer.
            temperature, top_k, top_p: of ``generate``.
            stop: tokens or texts that end the answer and are no part of it.
            seed: of sampling.
            keep: False throws question and answer away: the session is to the bit as before.
        """
        options = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "stop": stop, "seed": seed, "keep": keep}
        answer = list(self.generate(max_new_tokens, prompt=tokens, **options))  # type: ignore[arg-type]
        if not isinstance(tokens, str):
            return answer
        text, (_, stops) = self._decode(answer), self._stops(stop)
        return text[: min((text.find(s) for s in stops if s in text), default=len(text))]

    def generate(
        self,
        max_new_tokens: int = 32,
        *,
        prompt: str | Sequence[int] | Tensor | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        stop: Stops = (),
        seed: int | None = None,
        keep: bool = True,
    ) -> Iterator[int]:
        """Token ids, one after the other, each read as it is made.

        Until the iterator is exhausted or closed the session takes nothing else. Arguments as of ``ask``; a text in
        ``stop`` ends the answer with the token that completes it.

        Args:
            max_new_tokens: at most.
            prompt: read first; None goes on from the last token read.
            temperature: 0 takes the likeliest token.
            top_k: draw from the k likeliest.
            top_p: draw from the likeliest that together hold this probability.
            stop: tokens (not yielded) or texts that end it.
            seed: of the draws; None: torch's own generator.
            keep: False: the session is to the bit as before once the iterator is exhausted or closed.

        Raises:
            ValueError: nothing to go on from, or values out of range; before anything is read.
        """
        check_sampling(temperature, top_k, top_p)
        if max_new_tokens < 0:
            raise ValueError(f"max_new_tokens={max_new_tokens} must be 0 or more")
        ids = [] if prompt is None else self._ids(prompt)
        stop_ids, stop_texts = self._stops(stop)
        if not ids and not self.tokens_seen:
            raise ValueError(
                "nothing has been read that an answer could go on from; append something, or give a prompt"
            )
        self._check_room(len(ids) + max_new_tokens)
        draw = (temperature, top_k, top_p, self._generator(seed))
        return self._generate(ids, max_new_tokens, draw, stop_ids, stop_texts, keep)

    def logprobs(self, tokens: str | Sequence[int] | Tensor) -> Tensor:
        """Log probability of each token after all before it, fp32 ``[T]``; the session is to the bit as before."""
        ids = self._ids(tokens)
        if not self.tokens_seen:
            raise ValueError("the first token has no probability: nothing has been read; append something first")
        with self._working(), self._restored():
            before_BE = self._state.window.last_BE[:, None]
            h_BTE = torch.cat((before_BE, self._read(ids)), 1)[:, : len(ids)]
            self._meter.logits(len(ids))
            with self._meter.time(self.cost.wake), torch.no_grad():
                log_p_TV = self.model.logits(h_BTE)[0].float().log_softmax(-1)
                return log_p_TV.gather(1, torch.tensor(ids, device=log_p_TV.device)[:, None])[:, 0].cpu()

    # Copies and files

    def reset(self) -> None:
        """Forget everything; the bill stays."""
        with self._working():
            self._state, self._owned, self._latest = SessionState.fresh(self.model, self.config), True, None

    def fork(self) -> Self:
        """Another session with the same past, and a bill of its own; tensors are copied once one of them is written."""
        with self._working():
            other = type(self)(self.model, self.config, self.tokenizer, policy=self.policy)
            other._state, other._owned, self._owned = self._state, False, False
            return other

    def snapshot(self) -> Snapshot:
        """The session as it is, for ``rollback``."""
        with self._working():
            self._owned = False
            self._latest = Snapshot(self._state)
            return self._latest

    def rollback(self, snapshot: Snapshot | None = None) -> None:
        """Back to a snapshot of this session or one it was forked from (None: the latest): to the bit as it was.

        What it cost stays on the bill. Raises ValueError if there is none.
        """
        with self._working():
            snapshot = snapshot or self._latest
            if snapshot is None:
                raise ValueError(
                    "there is no snapshot to go back to; call snapshot() before what may have to be undone"
                )
            self._state, self._owned = snapshot.state, False

    def save(self, path: str | PathLike[str]) -> None:
        """Write a safetensors file from which ``load`` goes on to the bit; atomic, for its owner alone.

        Raises:
            OSError: it cannot be written; a file that was there is intact.
        """
        with self._working():
            save_state(path, self.model, self.config, self.policy, self._state, self.cost)

    @classmethod
    def load(cls, path: str | PathLike[str], model: HybridLM, tokenizer: Tokenizer | None = None) -> Self:
        """A session from a file that ``save`` wrote.

        Args:
            path: of the file.
            model: the model that it was written with: the weights are compared.
            tokenizer: for text in and out.

        Raises:
            ValueError: the file is truncated, damaged, foreign, newer, or of another model.
            OSError: it cannot be read.
        """
        saved = load_state(path, model)
        session = cls(model, saved.config, tokenizer, policy=saved.policy)  # type: ignore[arg-type]
        session._state, session.cost = saved.state, saved.cost
        session._meter = Meter(model, session.config, session.cost)
        return session

    # Inside

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._lock:
            if self._generating:
                raise ValueError("an answer is being generated; exhaust or close its iterator first")
            yield

    @contextmanager
    def _restored(self) -> Iterator[None]:
        """Whatever happens to the state inside is undone."""
        state, owned = self._state, self._owned
        try:
            yield
        finally:
            self._state, self._owned = state, owned

    def _generate(
        self,
        ids: list[int],
        most: int,
        draw: tuple[float, int | None, float | None, torch.Generator | None],
        stop_ids: set[int],
        stop_texts: list[str],
        keep: bool,
    ) -> Iterator[int]:
        with self._working():
            state, owned, self._generating = self._state, self._owned, True
        made: list[int] = []
        unread: list[int] = []
        try:
            with self._lock:
                self._read(ids)
            while len(made) < most:
                with self._lock:
                    self._read(unread)
                    token = sample(self._next_logits(), *draw)
                unread = []
                if token in stop_ids:
                    break
                made, unread = [*made, token], [token]
                if stop_texts and any(s in self._decode(made) for s in stop_texts):
                    unread = []
                    yield token
                    break
                yield token
        finally:
            with self._lock:
                self._generating = False
                if keep:
                    self._read(unread)
                else:
                    self._state, self._owned = state, owned

    def _next_logits(self) -> Tensor:
        self._meter.logits(1)
        with self._meter.time(self.cost.wake), torch.no_grad():
            return self.engine.logits(self.model, self._state.window.last_BE[:, None])[0, 0]

    def _read(self, ids: list[int]) -> Tensor:
        """Read tokens, all or none; their final hidden states ``[1, T, d_model]``."""
        self._check_room(len(ids))
        state, owned = self._state, self._owned
        hidden = [state.window.last_BE[:, None][:, :0]]
        tokens_BT = torch.tensor([ids], dtype=torch.int64, device=state.window.tokens_BL.device)
        while tokens_BT.shape[1]:
            window = state.window if owned else state.window.clone()
            piece_BT, tokens_BT = tokens_BT.tensor_split((self.config.window_size - window.fill,), 1)
            with self._meter.time(self.cost.wake), torch.no_grad():
                window, h = self.engine.read(self.model, self.config, window, piece_BT)
            self._meter.read(piece_BT.shape[1], window.cache.fill[0] - piece_BT.shape[1])
            hidden.append(h)
            state, owned = replace(state, window=window, tokens_seen=state.tokens_seen + piece_BT.shape[1]), True
            if window.fill == self.config.window_size and self.policy != "manual":
                state, _ = self._closed(state, self.config)
        self._state, self._owned = state, owned
        return torch.cat(hidden, 1)

    def _closed(self, state: SessionState, config: SleepConfig) -> tuple[SessionState, int]:
        """The state behind its open window, and the passes that were made over it."""
        passes = 0

        def count(record: PassRecord) -> None:
            nonlocal passes
            passes = record.n

        window = state.window
        with self._meter.time(self.cost.sleep), torch.no_grad():
            memory = self.engine.close(self.model, config, window, count)
        self._meter.slept(window.fill, passes, config)
        opened = OpenWindow.opened(self.model, self.config, memory, window.last_BE)
        return replace(state, window=opened, windows_closed=state.windows_closed + 1), passes

    def _check_room(self, T: int) -> None:
        room = self.config.window_size - self.window_fill
        if self.policy == "manual" and room < T:
            raise ValueError(
                f"{T} tokens do not fit into the window, which has room for {room}, and policy=manual does not sleep "
                f"by itself; call sleep() first, or use policy=on_full"
            )

    def _ids(self, tokens: str | Sequence[int] | Tensor) -> list[int]:
        if isinstance(tokens, str):
            ids = list(self._tokenizer().encode(tokens))
        else:
            flat = torch.as_tensor(tokens)
            if flat.dim() != 1 or (flat.is_floating_point() and flat.numel()):
                raise ValueError(
                    f"tokens of shape {tuple(flat.shape)} and {flat.dtype} are not a sequence of token ids; give a "
                    f"list of integers, or text"
                )
            ids = [int(i) for i in flat.tolist()]
        if wrong := next((i for i in ids if not 0 <= i < self.model.vocab_size), None):
            raise ValueError(f"token {wrong} is not one of the model's, 0 to {self.model.vocab_size - 1}")
        return ids

    def _tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise ValueError("text needs a tokenizer; give SleepSession one, or token ids")
        return self.tokenizer

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer().decode(ids)

    def _stops(self, stop: Stops) -> tuple[set[int], list[str]]:
        stops = [stop] if isinstance(stop, int | str) else list(stop)
        texts = [s for s in stops if isinstance(s, str) and s]
        if texts:
            self._tokenizer()
        return {s for s in stops if not isinstance(s, str)}, texts

    def _generator(self, seed: int | None) -> torch.Generator | None:
        device = self._state.window.tokens_BL.device
        return None if seed is None else torch.Generator(device).manual_seed(seed)


def _check(model: HybridLM, config: SleepConfig, policy: str) -> None:
    if not isinstance(model, HybridLM):
        raise ValueError(f"a session reads token by token, which {type(model).__name__} cannot; give it a HybridLM")
    if policy not in POLICIES:
        raise ValueError(f"policy={policy!r} is unknown; use one of {', '.join(POLICIES)}")
    config.parts(model.n_blocks)
    for key, value, plain in (
        ("model.summary_tokens", model.summary_tokens, 0),
        ("sleep.wake_passes", config.wake_passes, 1),
        ("sleep.retrieved_windows", config.retrieved_windows, 0),
    ):
        if value != plain:
            raise ValueError(
                f"{key}={value} needs a whole window at once, and a session has its tokens; set it to {plain}"
            )
