"""What may write to a memory, where it came from, how long it lives, and who did what with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.session import AuditLine, SessionExpired, SleepSession, WritePolicy
from sleep_lightning.session.chain import Chain
from tests.session.conftest import SESSIONS, L, bits, same, tiny_session

SENTENCES = [([1, 2, 3], "user"), ([4, 5], "web"), ([6, 7, 8, 9], "user"), ([9, 9, 9, 9, 9], "web"), ([3], "user")]


@pytest.fixture(params=SESSIONS)
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return SESSIONS[request.param]


class TestWritePolicy:
    def test_what_may_not_be_consolidated_leaves_no_trace(self, options: dict[str, Any]) -> None:
        """The memory is that of a session which has only read the rest."""
        session = tiny_session(**options, writes={"user": 3}, policy="manual")
        clean = tiny_session(**options, policy="manual")
        session.append([1, 2], "user")
        session.append([9, 9], "web")
        session.append([3], "user")
        seen = session.next_logits()
        session.sleep()
        clean.append([1, 2, 3], "user")
        assert not torch.allclose(seen, clean.next_logits()), "but it is read"
        clean.sleep()
        for name, x in session.memory.named_tensors().items():
            torch.testing.assert_close(x, clean.memory.named_tensors()[name], rtol=1e-5, atol=1e-5)
        (line,) = session.provenance()
        assert (line.sources, line.left_out, line.n_passes, line.tokens) == ({"user": 3}, {"web": 2}, 3, 3)

    def test_a_window_of_nothing_else_is_forgotten(self, options: dict[str, Any]) -> None:
        session = tiny_session(**options, writes={"user": 3})
        session.append([1] * L, "user")
        before = session.memory.clone()
        session.append([9] * L, "web")
        for name, x in session.memory.named_tensors().items():
            assert torch.equal(x, before.named_tensors()[name])
        assert session.provenance()[1].n_passes == 0 and session.provenance()[1].left_out == {"web": L}
        assert session.tokens_seen == 2 * L

    def test_the_fewest_passes_of_a_window_s_sources(self) -> None:
        policy = WritePolicy({"user": 4, "tool": 2}, others=1)
        assert policy.of_window((("user", 3),)) == 4
        assert policy.of_window((("user", 3), ("tool", 1))) == 2
        assert policy.of_window((("user", 3), ("mail", 1))) == 1
        assert WritePolicy({"user": 4}).of_window((("user", 3), ("mail", 1))) == 4
        session = tiny_session(writes=policy)
        session.append([1, 2], "user")
        assert session.sleep(3) == 3
        session.append([1, 2], "tool")
        assert session.sleep(3) == 2, "a call may ask for fewer, not for more"
        session.append([1, 2], "user")
        assert session.sleep() == 4, "and the policy for more than N"

    def test_passes_over_the_rest_are_billed(self) -> None:
        session = tiny_session(writes={"user": 3})
        session.append([1, 2], "user")
        session.append([9], "web")
        wake = session.cost.wake.tokens
        session.sleep()
        assert session.cost.wake.tokens == wake == 3 and session.cost.sleep.tokens == 2 * 3

    @pytest.mark.parametrize("writes", [{"user": -1}, {"user": 1.5}, {"user": True}, {"user": 10**6}])
    def test_bad_policies(self, writes: Any) -> None:
        with pytest.raises(ValueError, match=r"writes: user may have .* give a whole number from 0 to"):
            tiny_session(writes=writes)


class TestProvenance:
    def test_a_line_per_window(self) -> None:
        now = iter(range(100, 200))
        session = tiny_session(clock=lambda: float(next(now)))
        for tokens, source in SENTENCES:
            session.append(tokens, source)
        session.ask([1], 1)
        session.sleep(2)
        lines = session.provenance()
        assert [line.sources for line in lines] == [
            {"user": 4, "web": 2},
            {"user": 3, "web": 3},
            {"web": 2, "user": 1, "unlabelled": 1, "answer": 1},
        ]
        assert [line.n_passes for line in lines] == [3, 3, 2]
        assert all(0 < line.change < 2 for line in lines) and len({line.hash for line in lines}) == 3
        assert [line.time for line in lines] == sorted(line.time for line in lines)

    def test_the_hash_is_of_tokens_sources_passes_and_what_was_before(self) -> None:
        def last(first: list[int], tokens: list[int], source: str, n: int) -> str:
            session = tiny_session()
            session.append(first)
            session.sleep()
            session.append(tokens, source)
            session.sleep(n)
            return session.provenance()[-1].hash

        variants = {
            last([1], [2, 3], "a", 2),
            last([1], [2, 4], "a", 2),
            last([1], [2, 3], "b", 2),
            last([1], [2, 3], "a", 3),
            last([5], [2, 3], "a", 2),
        }
        assert len(variants) == 5 and last([1], [2, 3], "a", 2) in variants

    def test_it_follows_rollback_fork_and_file(self, tmp_path: Path) -> None:
        session = tiny_session()
        session.append([1] * L, "user")
        snapshot = session.snapshot()
        session.append([9] * L, "web")
        fork = session.fork()
        session.save(tmp_path / "x")
        session.rollback(snapshot)
        assert [line.sources for line in session.provenance()] == [{"user": L}]
        loaded = SleepSession.load(tmp_path / "x", session.model)
        assert fork.provenance() == loaded.provenance() and len(fork.provenance()) == 2

    def test_a_long_one_costs_no_more_per_window(self) -> None:
        chain: Chain[int] = Chain()
        for i in range(200_000):
            chain = chain.plus(i)
        assert len(chain) == 200_000 and list(chain)[-1] == 199_999 == chain.last
        del chain  # no recursion


class TestForget:
    @pytest.mark.parametrize("kept", [True, False])
    def test_it_is_to_the_bit_as_never_read(self, options: dict[str, Any], kept: bool, tmp_path: Path) -> None:
        session, clean = (tiny_session(**options, keep_texts=True) for _ in range(2))
        for tokens, source in SENTENCES:
            session.append(tokens, source)
            if source != "web":
                clean.append(tokens, source)
            if tokens == [6, 7, 8, 9]:
                session.sleep(2)
                clean.sleep(2)
        if kept:
            session.save(tmp_path / "x")
            session = SleepSession.load(tmp_path / "x", session.model)
        assert not same(bits(session), bits(clean))
        assert session.forget("web") == 7
        assert same(bits(session), bits(clean)) and session.tokens_seen == clean.tokens_seen == 8
        assert [line.hash for line in session.provenance()] == [line.hash for line in clean.provenance()]
        session.append([2, 2])
        clean.append([2, 2])
        assert same(bits(session), bits(clean))
        assert session.forget("nobody") == 0 and same(bits(session), bits(clean))

    def test_with_a_write_policy_and_answers(self) -> None:
        session = tiny_session(keep_texts=True, writes={"user": 2, "answer": 1})
        session.append([1, 2, 3], "user")
        session.append([9, 8], "web")
        answer = session.ask([4], 4, source="user")
        clean = tiny_session(keep_texts=True, writes={"user": 2, "answer": 1})
        clean.append([1, 2, 3], "user")
        clean.append([4], "user")
        for token in answer:
            clean.append([token], "answer")
        session.forget("web")
        assert same(bits(session), bits(clean))

    def test_windows_keep_their_time(self) -> None:
        now = [1000.0]
        session = tiny_session(keep_texts=True, clock=lambda: now[0])
        for source in ("user", "web", "user"):
            session.append([1] * L, source)
            now[0] += 1000
        session.append([2], "user")
        session.sleep()
        now[0] = 9000.0
        session.forget("web")
        assert [line.time for line in session.provenance()] == [1000, 3000, 4000]
        assert [event.time for event in session._state.events] == [1000, 3000, 4000, 4000]

    def test_without_texts_it_is_refused(self) -> None:
        session = tiny_session()
        session.append([1], "web")
        with pytest.raises(ValueError, match="begin the session with keep_texts=True"):
            session.forget("web")

    def test_snapshots_are_given_up_and_the_state_grows_only_by_texts(self) -> None:
        session = tiny_session(keep_texts=True)
        session.append([1], "web")
        session.snapshot()
        before = session.nbytes
        session.forget("web")
        with pytest.raises(ValueError, match="no snapshot"):
            session.rollback()
        assert session.nbytes == before


class TestExpiry:
    def test_an_expired_session_is_refused_and_deleted(self, tmp_path: Path) -> None:
        now = [1000.0]
        session = tiny_session(ttl=10, clock=lambda: now[0])
        session.append([1] * 9)
        file = tmp_path / "x"
        session.save(file)
        fork = session.fork()
        now[0] += 9.9
        assert SleepSession.load(file, session.model, clock=lambda: now[0]).expires_at == 1010
        session.append([1])
        now[0] += 0.2
        for call in (lambda: session.append([1]), lambda: fork.ask([1]), session.inspect, session.reset, session.fork):
            with pytest.raises(SessionExpired, match=f"session ({session.id}|{fork.id}) has expired"):
                call()
        assert session.tokens_seen == 0 and not any(x.any() for x in session.memory.states)
        with pytest.raises(SessionExpired, match="has expired and is deleted"):
            SleepSession.load(file, session.model, clock=lambda: now[0])
        assert not file.exists()
        assert issubclass(SessionExpired, ValueError)

    def test_bad_ttl(self) -> None:
        with pytest.raises(ValueError, match="ttl=0 must be above 0 seconds"):
            tiny_session(ttl=0)


class TestAudit:
    def test_a_line_for_every_use(self, tmp_path: Path) -> None:
        file = tmp_path / "audit.jsonl"
        session = tiny_session(audit=file, keep_texts=True)
        session.append([1, 2], "user")
        session.ask([1], 2)
        session.ask([1], 2, keep=False)
        session.logprobs([1])
        session.next_logits()
        session.sleep()
        session.provenance()
        session.inspect()
        session.snapshot()
        session.rollback()
        session.diff(session.fork())
        session.save(tmp_path / "x")
        session.forget("user")
        session.reset()
        SleepSession.load(tmp_path / "x", session.model, audit=file)
        lines = [json.loads(line) for line in file.read_text().splitlines()]
        assert [(line["action"], line["method"]) for line in lines] == [
            ("write", "append"),
            ("write", "generate"),
            ("read", "generate"),
            ("read", "logprobs"),
            ("read", "next_logits"),
            ("write", "sleep"),
            ("inspect", "provenance"),
            ("inspect", "inspect"),
            ("export", "snapshot"),
            ("reset", "rollback"),
            ("export", "fork"),
            ("inspect", "diff"),
            ("inspect", "diff"),
            ("export", "save"),
            ("reset", "forget"),
            ("reset", "reset"),
            ("write", "load"),
        ]
        assert lines[0]["detail"] == {"tokens": 2, "source": "user"} and lines[-1]["session"] == session.id
        assert len({line["session"] for line in lines}) == 2, "and its fork"
        assert file.stat().st_mode & 0o777 == 0o600

    def test_what_cannot_be_told_does_not_happen(self) -> None:
        told: list[AuditLine] = []
        broken = False

        def audit(line: AuditLine) -> None:
            if broken:
                raise OSError("full")
            told.append(line)

        session = tiny_session(audit=audit)
        session.append([1, 2])
        before, broken = bits(session), True
        for call in (lambda: session.append([3]), session.reset, session.sleep, lambda: session.ask([1], 1)):
            with pytest.raises(OSError, match="full"):
                call()
        assert same(bits(session), before) and len(told) == 1
        broken = False
        session.append([3])

    def test_threads_that_sleep_idly_tell_too(self) -> None:
        told: list[AuditLine] = []
        session = tiny_session(audit=told.append, policy="idle", idle_after=0.0)
        session.append([1])
        session._sleep_idly()
        session.close()
        assert told[-1].method == "sleep" and told[-1].detail == {"tokens": 1, "idle": True}
