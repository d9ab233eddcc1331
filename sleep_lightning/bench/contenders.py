"""Who answers in ``bench session``: sleep, and what stands in its place, each behind a number of tokens."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from sleep_lightning.compare.asking import Ask, ReadWindow, asker
from sleep_lightning.cost.answering import AnswerCost, Asked, answer_cost
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.model.attention import Attention
from sleep_lightning.session import SessionState, SleepSession
from sleep_lightning.sleep import SleepConfig

VOCAB = 1024
MOST_READ = 8192
"""Tokens that sessions really read: nothing that they compute depends on how many more there were."""
TOO_SLOW = 4e10
"""FLOPs from which an answer is not timed."""


@dataclass(frozen=True)
class Size:
    """A model, its window, a question and what is varied. ``tokens_read`` are whole windows."""

    d_model: int = 128
    pattern: str = "AGAG"
    window: int = 128
    question: int = 16
    passes: tuple[int, ...] = (1, 4, 16)
    tokens_read: tuple[int, ...] = (2**10, 2**13, 2**16, 2**20)

    def model(self, pattern: str, summary_tokens: int = 0) -> HybridLM:
        """Untrained; attention has a gate, so that its blocks are as large as those of fast weights, and one head of
        keys and values of which a half is rotated, so that a million tokens fit into 2 GiB."""
        torch.manual_seed(0)
        heads = max(1, self.d_model // 64)
        more = {"kv_heads": 1, "attention_gate": True, "rope_fraction": 0.5, "summary_tokens": summary_tokens}
        model = HybridLM(ModelConfig(self.d_model, pattern, n_heads=heads, **more), VOCAB)  # type: ignore[arg-type]
        mixers = [block.mixer for block in model.stack if isinstance(block.mixer, Attention)]
        for mixer in mixers:
            mixer.rope = mixers[0].rope  # one table of a million positions
        return model.to("cuda" if torch.cuda.is_available() else "cpu")

    def __str__(self) -> str:
        return f"d{self.d_model} {self.pattern}, L={self.window}, one sequence, a question of {self.question} tokens"


@dataclass(frozen=True)
class Contender:
    """Something that answers.

    Attributes:
        n_passes: that it makes, or is as deep as; None where there is no such thing.
        cost: of its answer.
        nbytes: that it keeps.
        ask: makes one; None: that would take too long.
        token: reads a token and chooses the next; None: it answers, and does not go on token by token.
        seen: tokens behind which ``token`` is counted.
    """

    n_passes: int | None
    model: HybridLM
    cost: AnswerCost
    nbytes: int
    ask: Ask | None
    token: Callable[[], object] | None = None
    seen: int = 0

    @property
    def token_flops(self) -> int | None:
        """Of a token, chosen from the logits of the one before."""
        if self.token is None:
            return None
        flops = self.model.pass_flops(1, range(self.model.n_blocks), cached_tokens=self.seen)
        return None if flops is None else flops.forward.total() + self.model.logits_flops(1)


class Models:
    """The models of a size, and sessions of the hybrid by N."""

    def __init__(self, size: Size) -> None:
        self.size, blocks = size, len(size.pattern)
        self.hybrid, self.transformer = size.model(size.pattern), size.model("A" * blocks)
        self.compacting = size.model("A" * blocks, max(1, size.window // 4))
        self.deeper = {n: size.model(size.pattern * n) for n in size.passes if n > 1}
        self.sessions = {n: SleepSession(self.hybrid, SleepConfig(size.window, n)) for n in size.passes}

    def with_a_memory(self, read: int) -> dict[str, Contender]:
        """Whose answers cost what they cost after any number of tokens."""
        size, asked, found = self.size, Asked(read, self.size.question), dict[str, Contender]()
        half = size.window // 2
        for n, session in self.sessions.items():
            whole = -(-session.tokens_seen // size.window) * size.window
            session.append([1] * (max(min(read, MOST_READ), whole) - session.tokens_seen))
            cost = answer_cost(self.hybrid, session.config, asked)
            ask: Ask = partial(answer, session, size.question)
            token = partial(read_token, session)
            found[f"sleep N={n}"] = Contender(n, self.hybrid, cost, session.nbytes, ask, token, half)
        for n in self.deeper:
            config = SleepConfig(size.window, wake_passes=n)
            cost = answer_cost(self.hybrid, config, asked)
            nbytes = SessionState.fresh(self.hybrid, config).nbytes
            found[f"loops N={n}"] = Contender(n, self.hybrid, cost, nbytes, asker(self.hybrid, config, asked))
        for n, model in self.deeper.items():
            config = SleepConfig(size.window)
            cost, nbytes = answer_cost(model, config, asked), SessionState.fresh(model, config).nbytes
            window = ReadWindow(model, config, 0, size.window)
            ask = _question_of(window, size.question)
            found[f"deeper x{n}"] = Contender(n, model, cost, nbytes, ask, window.token, half)
        return found

    def with_a_full_cache(self, read: int) -> Contender:
        """Attention alone, over keys and values of all tokens; they live as long as its ``ask``."""
        question = self.size.question
        config = SleepConfig(read + 2 * question)
        window = ReadWindow(self.transformer, config, read, config.window_size - read)
        cost = answer_cost(self.transformer, config, Asked(read, question))
        ask = _question_of(window, question)
        return Contender(None, self.transformer, cost, window.nbytes, ask, window.token, read)

    def reading_again(self, read: int) -> dict[str, Contender]:
        """Which read with every question what they have kept."""
        asked, found = Asked(read, self.size.question), dict[str, Contender]()
        retrieval = SleepConfig(self.size.window, retrieved_windows=1), self.hybrid
        compaction = SleepConfig(self.size.window), self.compacting
        for name, (config, model) in {"retrieval": retrieval, "compaction": compaction}.items():
            cost = answer_cost(model, config, asked)
            ask = None if cost.answer_flops > TOO_SLOW else asker(model, config, asked)
            found[name] = Contender(None, model, cost, cost.held_bytes, ask)
        return found


def read_token(session: SleepSession) -> None:
    """Read one token and choose the next."""
    session.append([1])
    int(session.next_logits().argmax())


def answer(session: SleepSession, question: int) -> int:
    """Read a question of so many tokens, choose the first of its answer, and throw both away."""
    return int(session.ask([1] * question, 1, keep=False)[0])


def _question_of(window: ReadWindow, question: int) -> Ask:
    return lambda: window.ask(question)
