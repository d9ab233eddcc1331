"""Tables of several machines are compared where both have hashes, and never said to be where not."""

import json
from pathlib import Path

from sleep_lightning.evidence.data_order import DataOrder, joined_orders
from sleep_lightning.evidence.page import _pairing
from sleep_lightning.evidence.tables import read_table, write_table


def order(first: str, seed: int, hashes: int, data: str = "d", **digests: str) -> DataOrder:
    by_step = {step.removeprefix("at"): digest for step, digest in digests.items()}
    return DataOrder(first, seed, 1, hashes, "", data, json.dumps(by_step))


def test_machines_that_saw_the_same_data_agree() -> None:
    own, other = order("s n4", 300, 0, at100="a", at200="b"), order("s n1", 300, 2, at100="a", at200="b", at300="c")
    (joined,) = joined_orders([own], [[other]])
    assert (joined.hashes, joined.difference, joined.apart) == (4, "", 0)
    assert json.loads(joined.digests) == {"100": "a", "200": "b", "300": "c"}
    assert "4 hashes of the data were compared and agree." in _pairing([joined])


def test_machines_that_saw_other_data_differ() -> None:
    own, other = order("s n4", 300, 0, at100="a", at200="b"), order("s n1", 300, 0, at100="a", at200="x")
    (joined,) = joined_orders([own], [[other]])
    assert joined.difference == "s n4 of table 1 and s n1 of table 2 saw different data up to step 200"
    assert "**Not all runs of a seed trained on the same data" in _pairing([joined])


def test_what_no_step_lets_compare_is_said() -> None:
    (joined,) = joined_orders([order("s n4", 300, 3, at100="a")], [[order("s n1", 300, 5, at150="a")]])
    assert (joined.hashes, joined.apart) == (5, 1)
    assert "Seeds whose runs on several machines are paired without such a comparison: 1." in _pairing([joined])


def test_a_row_is_counted_once_and_seeds_and_tasks_stay_apart() -> None:
    one, seed, task = order("s n4", 300, 3), order("s n4", 301, 3), order("t n4", 300, 3, data="e")
    assert joined_orders([one, seed], [[one, task], [seed]]) == [one, seed, task]


def test_a_table_without_hashes_can_be_read_and_says_nothing_of_other_machines(tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("first,seed,runs,hashes,difference\ns n4,300,4,36,\n")
    (old,) = read_table(DataOrder, tmp_path / "old.csv")
    assert old == DataOrder("s n4", 300, 4, 36, "")
    newer = order("s n4", 300, 12, data="", at100="a")
    (joined,) = joined_orders([newer], [[old]])
    assert (joined.hashes, joined.apart) == (36, 1)
    write_table(DataOrder, [joined], tmp_path / "new.csv")
    assert read_table(DataOrder, tmp_path / "new.csv") == [joined]
