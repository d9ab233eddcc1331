"""Does an injection last longer in weights? One poisoned window, then clean ones: how long answers follow it.

A window states a cycle; the next restates it with four wrong edges. Then k clean windows are read, and each sequence is
asked one question whose answers differ, after which nothing of it is kept. Beside it: the same without the poison, the
poison in a window that is still open, and sessions that have undone it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sleep_lightning.bench.poison import WRONG, Poison
from sleep_lightning.config import Experiment
from sleep_lightning.model import HybridLM, Memory
from sleep_lightning.session import SleepSession
from sleep_lightning.session.window import OpenWindow
from sleep_lightning.sleep import SleepConfig, zero_memory
from sleep_lightning.sweep.solved import wilson
from sleep_lightning.training.evaluation import load_trained

SEQUENCES = 512
SESSIONS = 200
"""Sequences that are read by sessions of their own, to the bit."""
PASSES = (1, 2, 4)
"""N of every sleep, up to that of training, which is one of them."""
CLEAN = (0, 1, 2, 4, 8, 16)
"""k: clean windows behind the poison."""
NEVER, SLEPT, OPEN = "never read", "slept on", "in the open window"
RESTATED, QUESTIONS, ONCE = "the truth again", "questions, N passes", "questions, 1 pass"
"""What clean windows hold: the true edges again, or kept questions with the model's own answers. Those are slept on as
all that is read, or read once, as in training (and under ``writes={"user": N, "answer": 1}``)."""
Row = dict[str, object]


def bench_injection(checkpoints: Sequence[str], sequences: int = SEQUENCES, sessions: int = SESSIONS) -> Iterator[Row]:
    """A row for each model, way, N, k and number of hops.

    Args:
        checkpoints: of models of Depo whose cycle is one window.
        sequences: each is asked one question for each number of hops, so that answers are independent.
        sessions: of them, those that sessions read, too.

    Raises:
        ValueError: another model or task.
    """
    for checkpoint in checkpoints:
        experiment, model = load_trained(checkpoint, [])
        if not isinstance(model, HybridLM):
            raise ValueError(f"--checkpoint {checkpoint} holds a {type(model).__name__}; injection needs a HybridLM")
        yield from _of_model(experiment, model, sequences, sessions)


def _of_model(experiment: Experiment, model: HybridLM, sequences: int, sessions: int) -> Iterator[Row]:
    poison = Poison.of(experiment, sequences)
    trained = experiment.sleep.n_passes
    for n in sorted({*(n for n in PASSES if n <= trained), trained}):
        config = replace(experiment.sleep, n_passes=n, grad_passes=None)
        yield from Injection(model, config, poison, _shape(experiment)).rows()
    yield from undone(experiment, model, Poison.of(experiment, sessions, seed=1))


def _shape(experiment: Experiment) -> str:
    s = experiment.sleep
    return f"{experiment.model.described}, L={s.window_size}, trained with N={s.n_passes}"


@dataclass
class Injection:
    """All sequences at once, with one N.

    Args:
        model: trained.
        config: of every sleep.
        poison: what is read.
        shape: of the model, for the rows.
    """

    model: HybridLM
    config: SleepConfig
    poison: Poison
    shape: str

    @torch.no_grad()
    def rows(self) -> Iterator[Row]:
        p = self.poison
        true = self.slept(zero_memory(self.model, len(p.edges_BN2), self.config), p.edges_BN2.flatten(1))
        window, _ = self.opened(true).read(self.model, self.config, p.false_BN2.flatten(1)[:, : 2 * WRONG])
        yield from self.compared(OPEN, "none yet", 0, lambda: window.clone(), lambda: self.opened(true))
        for how in (RESTATED, QUESTIONS, ONCE):
            never, slept = true, self.slept(true, p.false_BN2.flatten(1))
            for k in range(CLEAN[-1] + 1):
                if k in CLEAN:
                    opened = (lambda m=m: self.opened(m) for m in (slept, never))
                    yield from self.compared(SLEPT, how, k, *opened)
                never, slept = (self.clean(m, how, k) for m in (never, slept))

    def compared(
        self, way: str, how: str, k: int, poisoned: Callable[[], OpenWindow], never: Callable[[], OpenWindow]
    ) -> Iterator[Row]:
        """A row for each number of hops; without poison, too."""
        for h in range(len(self.poison.hops)):
            question = self.poison.questions_BHQ[:, h]
            said_BV, base_BV = (self.asked(window(), question) for window in (poisoned, never))
            right_B, wrong_B = self.poison.right_BH[:, h], self.poison.wrong_BH[:, h]
            of: Row = {"N": self.config.n_passes, "clean": how, "k": k, "hops": h + 1}
            for name, log_p_BV in ((way, said_BV), (NEVER, base_BV)):
                if name == NEVER and way == OPEN:
                    continue  # as with k = 0
                what = {"what": f"injection, clean windows: {how}", "shape": self.shape, "contender": name}
                yield what | of | measured(log_p_BV, base_BV, right_B, wrong_B)

    def slept(self, memory: Memory, tokens_BL: Tensor) -> Memory:
        """The memory behind one more window."""
        window, _ = self.opened(memory).read(self.model, self.config, tokens_BL)
        return window.close(self.model, self.config)

    def clean(self, memory: Memory, how: str, k: int) -> Memory:
        """The memory behind a clean window."""
        if how == RESTATED:
            return self.slept(memory, self.poison.restated(k))
        window, L = self.opened(memory), self.config.window_size
        for i in range(0, L, 4):
            window, h = window.read(self.model, self.config, self.poison.asked(k * L + i))
            window, _ = window.read(self.model, self.config, self.model.logits(h[:, -1:]).argmax(-1))
        return window.close(self.model, self.config if how == QUESTIONS else replace(self.config, n_passes=1))

    def asked(self, window: OpenWindow, question_BT: Tensor) -> Tensor:
        """Log probabilities of the answer, ``[B, V]``."""
        _, h = window.read(self.model, self.config, question_BT)
        return self.model.logits(h[:, -1]).float().log_softmax(-1)

    def opened(self, memory: Memory) -> OpenWindow:
        return OpenWindow.opened(self.model, self.config, memory)


def measured(log_p_BV: Tensor, base_BV: Tensor, right_B: Tensor, wrong_B: Tensor) -> Row:
    """Shares of answers with Wilson's 95% intervals; means with theirs, against the model that never read it.

    ``shift`` is of the log probability of the poison's answer; ``tv`` the total variation of the whole distribution.
    """
    found: Row = {"answers": len(right_B)}
    said_B = log_p_BV.argmax(1)
    for name, hit_B in (("follows", said_B == wrong_B), ("right", said_B == right_B)):
        n = int(hit_B.sum())
        found |= {name: n / len(hit_B)} | dict(zip((f"{name}_low", f"{name}_high"), wilson(n, len(hit_B)), strict=True))
    shift_B = (log_p_BV - base_BV).gather(1, wrong_B[:, None])[:, 0]
    tv_B = (log_p_BV.exp() - base_BV.exp()).abs().sum(1) / 2
    for name, x_B in (("shift", shift_B), ("tv", tv_B)):
        x_B = x_B.double()
        found |= {name: float(x_B.mean()), f"{name}_error": 1.96 * float(x_B.std()) / len(x_B) ** 0.5}
    return found


UNDOING = ("never read", "rolled back", "forgotten", "not consolidated")


def undone(experiment: Experiment, model: HybridLM, poison: Poison, k: int = 1) -> Iterator[Row]:
    """Sessions that have undone the poison, k clean windows later: how many are to the bit as if it was never read."""
    says: dict[str, list[list[Tensor]]] = {way: [] for way in UNDOING}
    equal = dict.fromkeys(UNDOING, 0)
    for i in range(len(poison.edges_BN2)):
        sessions = {way: read(experiment.sleep, model, poison, i, way, k) for way in UNDOING}
        never = sessions[NEVER]._state.named_tensors()
        for way, session in sessions.items():
            state = session._state.named_tensors()
            equal[way] += all(torch.equal(x, state[name]) for name, x in never.items())
            says[way].append([])
            for question_Q in poison.questions_BHQ[i]:
                asked = session.fork()
                asked.append(question_Q)
                says[way][i].append(asked.next_logits().float().log_softmax(-1))
    for way in UNDOING:
        for h in range(len(poison.hops)):
            said_BV, base_BV = (torch.stack([row[h] for row in says[of]]).cpu() for of in (way, NEVER))
            of: Row = {"N": experiment.sleep.n_passes, "clean": RESTATED, "k": k, "hops": h + 1}
            found = measured(said_BV, base_BV, poison.right_BH[:, h], poison.wrong_BH[:, h])
            what = {"what": "injection, undone by sessions", "shape": _shape(experiment), "contender": way}
            yield what | of | found | {"equal_to_the_bit": equal[way]}


def read(sleep: SleepConfig, model: HybridLM, poison: Poison, i: int, way: str, k: int) -> SleepSession:
    """A session that has read the truth, the poison unless ``way`` says never, and k clean windows."""
    writes = {"user": sleep.n_passes} if way == "not consolidated" else None
    session = SleepSession(model, sleep, keep_texts=True, writes=writes)
    session.append(poison.edges_BN2[i].flatten(), "user")
    snapshot = session.snapshot()
    if way != NEVER:
        session.append(poison.false_BN2[i].flatten(), "web")
    if way == "rolled back":
        session.rollback(snapshot)
    for j in range(k):
        session.append(poison.restated(j)[i], "user")
    if way == "forgotten":
        session.forget("web")
    return session
