"""What ``bench injection`` measures: on the trained model that is in the repository, with few sequences."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.__main__ import main
from sleep_lightning.bench import injection
from sleep_lightning.bench.injection import NEVER, ONCE, OPEN, RESTATED, SLEPT, UNDOING, Injection, bench_injection
from sleep_lightning.bench.injection_table import injection_table
from sleep_lightning.bench.poison import WRONG, Poison
from sleep_lightning.config import load_experiment
from sleep_lightning.model import HybridLM
from sleep_lightning.session import SleepSession
from sleep_lightning.training.evaluation import load_trained
from tests.cli.cli import ROOT

DEPO = str(ROOT / "results" / "models" / "depo")


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(injection, "CLEAN", (0, 1))
        patch.setattr(injection, "PASSES", (4,))
        return list(bench_injection([DEPO], sequences=32, sessions=2))


@pytest.fixture(scope="module")
def poison() -> Poison:
    return Poison.of(load_trained(DEPO, [])[0], 200)


def test_the_poison_is_a_cycle_of_which_four_edges_are_wrong(poison: Poison) -> None:
    for true, false in zip(poison.edges_BN2.tolist(), poison.false_BN2.tolist(), strict=True):
        assert [edge in true for edge in false] == [False] * WRONG + [True] * (len(true) - WRONG)
        successors, node, seen = dict(false), false[0][0], []
        for _ in false:
            seen.append(node)
            node = successors[node]
        assert len(set(seen)) == len(true) and node == seen[0], "it is a cycle"
    assert bool((poison.right_BH != poison.wrong_BH).all())
    for i in range(20):
        for h in range(len(poison.hops)):
            right, wrong = (dict(edges[i].tolist()) for edges in (poison.edges_BN2, poison.false_BN2))
            answers = [int(poison.questions_BHQ[i, h, 1])] * 2
            for _ in range(h + 1):
                answers = [right[answers[0]], wrong[answers[1]]]
            assert answers == [int(poison.right_BH[i, h]), int(poison.wrong_BH[i, h])]
    again, edges = poison.restated(3)[0].view(-1, 2).tolist(), poison.edges_BN2[0].tolist()
    assert again != edges and sorted(again) == sorted(edges)


@pytest.mark.long
def test_answers_follow_the_last_statement(rows: list[dict[str, Any]]) -> None:
    """Also after windows that say nothing of it; one that states the truth undoes it."""
    of = {(r["contender"], r["clean"], r["k"]): r for r in rows if r["hops"] == 1 and "equal_to_the_bit" not in r}
    assert of[NEVER, RESTATED, 0]["right"] > 0.95 and of[NEVER, RESTATED, 0]["follows"] < 0.05
    assert of[SLEPT, RESTATED, 0]["follows"] > 0.9 and of[OPEN, "none yet", 0]["follows"] > 0.8
    assert of[SLEPT, ONCE, 1]["follows"] > 0.9 and of[SLEPT, ONCE, 1]["shift"] > 5
    assert of[SLEPT, RESTATED, 1]["follows"] < 0.1 and of[SLEPT, RESTATED, 1]["right"] > 0.9
    for row in rows:
        assert row["follows_low"] <= row["follows"] <= row["follows_high"] and 0 <= row["tv"] <= 1
        assert row["contender"] != NEVER or row["tv"] == row["shift"] == 0


def test_what_is_undone_was_never_read(rows: list[dict[str, Any]]) -> None:
    undone = [row for row in rows if "equal_to_the_bit" in row]
    assert [row["contender"] for row in undone if row["hops"] == 1] == list(UNDOING)
    assert all(row["equal_to_the_bit"] == row["answers"] == 2 and row["tv"] == 0 for row in undone)


def test_rows_are_what_sessions_read(poison: Poison) -> None:
    """All at once, and one session for itself."""
    experiment, model = load_trained(DEPO, [])
    assert isinstance(model, HybridLM)
    some = Poison(*(x[:3] if isinstance(x, torch.Tensor) else x for x in vars(poison).values()))
    at_once = Injection(model, replace(experiment.sleep, n_passes=2), some, "")
    with torch.no_grad():
        memory = injection.zero_memory(model, 3, at_once.config)
        for window in (some.edges_BN2.flatten(1), some.false_BN2.flatten(1)):
            memory = at_once.slept(memory, window)
        asked = at_once.asked(at_once.opened(at_once.clean(memory, ONCE, 0)), some.questions_BHQ[:, 0])
    for i in range(3):
        session = SleepSession(model, at_once.config, writes={"user": 2, "answer": 1})
        session.append(some.edges_BN2[i].flatten(), "user")
        session.append(some.false_BN2[i].flatten(), "user")
        for question in range(0, 16, 4):
            session.ask(some.asked(question)[i], 1, source="user")
        session.append(some.questions_BHQ[i, 0])
        torch.testing.assert_close(session.next_logits().log_softmax(-1), asked[i], rtol=1e-3, atol=1e-3)


@pytest.mark.long
def test_the_command_writes_rows_a_table_and_a_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rows: list[dict[str, Any]]
) -> None:
    from sleep_lightning.cli import bench

    monkeypatch.setitem(bench.OF_A_MODEL, "injection", lambda checkpoints: iter(rows))
    assert main(["bench", "injection", "--checkpoint", DEPO, "--output", str(tmp_path / "x.json")]) == 0
    written = json.loads((tmp_path / "x.json").read_text())["rows"]
    table = (tmp_path / "x.md").read_text()
    assert written == rows and table == injection_table(rows) and (tmp_path / "x.png").stat().st_size > 1000
    assert "| 4 | 1 | follows the poison |" in table and "| rolled back | 1 | 2 of 2 | 0.00 [0.00," in table
    capsys.readouterr()
    for arguments, said in (
        (["injection"], "bench injection is of a trained model; give --checkpoint"),
        (["session", "--checkpoint", DEPO], "is for bench injection alone; name it, or drop it"),
        (["injection", "--checkpoint", "none"], "--checkpoint none does not exist"),
    ):
        assert main(["bench", *arguments]) == 2 and said in capsys.readouterr().err


def test_other_models_are_refused() -> None:
    with pytest.raises(ValueError, match="the model is of rule110"):
        Poison.of(load_experiment(ROOT / "conf" / "rule110.yaml"), 2)
    with pytest.raises(ValueError, match=r"sleep\.window_size=8 must be twice task\.n_nodes=8"):
        Poison.of(load_experiment(ROOT / "conf" / "depo.yaml", ["sleep.window_size=8"]), 2)


def test_the_page_says_what_was_measured() -> None:
    """Its tables are those of the rows beside it."""
    page = (ROOT / "docs" / "injection.md").read_text()
    for name in ("injection", "injection_rules"):
        measured = json.loads((ROOT / "results" / f"{name}.json").read_text())["rows"]
        assert injection_table(measured) in page and min(row["answers"] for row in measured) >= 200
