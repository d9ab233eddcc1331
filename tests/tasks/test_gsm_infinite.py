import importlib.util
import json
import os
import random
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch.nn import functional as F

from sleep_lightning.config import load_experiment
from sleep_lightning.sleep import IGNORE, plan_windows
from sleep_lightning.tasks import GSMInfinite, GSMInfiniteConfig, baselines
from sleep_lightning.tasks.gsm_infinite.problem import World, sample_problem
from sleep_lightning.tasks.gsm_infinite.published import problem_files
from sleep_lightning.tasks.gsm_infinite.scoring import published_metrics, same_answer
from sleep_lightning.tasks.gsm_infinite.settings import SETTINGS
from sleep_lightning.tasks.task import SPLITS
from sleep_lightning.testing import TaskTestCase
from sleep_lightning.training.metrics import Answers, score
from tests.tasks.gsm_solver import solve

SHORT: dict[str, Any] = {"min_tokens": 100, "max_tokens": 256}
SMALL: dict[str, Any] = {"min_tokens": 60, "max_tokens": 120, "ops": [2, 3], "max_value": 99}


def texts(task: GSMInfinite, rows: int, position: int = 0, **batch: Any) -> list[tuple[str, int, int]]:
    """Text up to the answer, the answer and the operations of every row."""
    found = task.batch(rows, seed=0, position=position, **batch)
    whole = [task.tokenizer.decode(row.tolist()) for row in found.tokens]
    split = [re.fullmatch(r"(.*) Answer: (\d+)", text, re.DOTALL) for text in whole]
    assert all(split)
    return [(m[1], int(m[2]), op) for m, op in zip(split, found.slices["op"].tolist(), strict=True) if m]


class GSMTestCase(TaskTestCase):
    evidence_batches = 2

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        """Stronger than the whole text: the question and the sentences that the answer follows from, in any order."""
        task = self.config.build()
        assert isinstance(task, GSMInfinite)
        return {(hash(solve(task.tokenizer.decode(row.tolist())).evidence),) for row in tokens}

    def test_sampling_is_fast(self) -> None:
        """Problems of the paper's length; far more than any CPU trainer takes."""
        task = GSMInfiniteConfig().build()
        task.batch(200, seed=0, position=0)  # from here on the tokens of most phrases are known
        started = time.process_time()
        task.batch(200, seed=0, position=1)
        rate = 200 / (time.process_time() - started)
        assert rate > 150, f"{rate:.3g} problems/s"


class TestForward(GSMTestCase):
    config = GSMInfiniteConfig(**SHORT)


def test_the_question_may_stand_behind_the_facts() -> None:
    before, behind = (GSMInfiniteConfig(**SHORT, question=place).build() for place in ("before", "behind"))  # type: ignore[arg-type]
    for position in range(3):
        for text, answer, op in texts(behind, 20, position):
            context, asked = text.split(" Question: ")
            assert context.startswith("Context: ") and asked.endswith("?") and asked.count("?") == 1
            found = solve(f"Question: {asked} {context}")
            assert (found.answer, found.op) == (answer, op), text
    assert behind.sequence_length == before.sequence_length


class TestReverse(GSMTestCase):
    config = GSMInfiniteConfig(**SHORT, ops=[2, 5], modes=["reverse"], settings=["schools"])


class TestRightPadded(GSMTestCase):
    config = GSMInfiniteConfig(min_tokens=96, max_tokens=140, ops=[1, 4], depth=2, pad_side="right")

    def test_windows_are_counted_from_the_start_of_the_text(self) -> None:
        batch = self.task.batch(64, seed=0, position=0)
        assert [self.task.vocab[i] for i in batch.tokens[:, 0].unique()] == ["Question"]
        assert [w.sleeps for w in plan_windows(batch.labels, 48)] == [True, True, False]

    def test_a_constant_answer_is_the_same_wherever_it_stands(self) -> None:
        config = GSMInfiniteConfig(**{**vars(self.config), "pad_side": "left"})
        left, right = (task.batch(512, seed=0, position=0).labels for task in (config.build(), self.task))
        assert not torch.equal(left, right)
        assert baselines(left) == baselines(right)


@pytest.mark.long
@pytest.mark.parametrize(
    "config",
    [
        GSMInfiniteConfig(**SHORT),
        GSMInfiniteConfig(**SHORT, ops=[2, 3, 4, 6, 8], modes=["reverse"]),
        GSMInfiniteConfig(**SHORT, depth=2),
        GSMInfiniteConfig(**SHORT, ops=[2, 4, 8], depth=2, modes=["forward", "reverse"]),
        GSMInfiniteConfig(
            min_tokens=300, max_tokens=500, ops=[10, 15, 20], max_constant=9, modes=["forward", "reverse"]
        ),
    ],
    ids=["forward", "reverse", "flat", "flat-both", "deep"],
)
def test_an_independent_solver_agrees_on_2000_problems(config: GSMInfiniteConfig) -> None:
    """10,000 in all: answer, uniqueness and operations, from the text alone."""
    task = config.build()
    for position in range(8):
        for text, answer, op in texts(task, 250, position):
            found = solve(text)
            assert (found.answer, found.op) == (answer, op), text
            assert all(0 <= value <= config.max_value and value.denominator == 1 for value in found.values), text
            assert 0 < min(found.constants, default=1) <= max(found.constants, default=1) <= config.max_constant


@pytest.mark.parametrize(("mode", "depth"), [("forward", 3), ("reverse", 3), ("forward", 2)])
def test_the_solver_agrees_at_the_papers_length(mode: str, depth: int) -> None:
    config = GSMInfiniteConfig(modes=[mode], depth=depth, ops=[2, 4, 6, 8] + [1] * (mode == "forward"))
    task = config.build()
    for text, answer, op in texts(task, 150):
        found = solve(text)
        assert (found.answer, found.op) == (answer, op), text
        assert 2000 <= len(task.tokenizer.encode(text)) <= 3300
        assert found.distractors > 50
        assert all(0 <= value <= 1000 for value in found.values)


def test_a_solver_that_reads_the_tokens_scores_one_and_majorities_are_per_op() -> None:
    task = GSMInfiniteConfig(**SHORT, ops=[1, 2, 8], modes=["forward"]).build()
    batch = task.batch(128, seed=0, position=0, split="validation")
    said = torch.full_like(batch.labels, 0)
    for row, tokens in enumerate(batch.tokens[:, : task.context_length]):
        answer = [*task.tokenizer.encode(str(solve(task.tokenizer.decode(tokens.tolist())).answer)), task.tokenizer.eos]
        said[row, task.context_length + 1 :][: len(answer)] = torch.tensor(answer)
    logits = F.one_hot(said, len(task.vocab)).float()
    scores = score([Answers.of(logits, batch)])
    assert scores["all"].exact_match == 1
    assert set(scores) == {"all", "op_1", "op_2", "op_8"}
    rows = texts(task, 128, split="validation")
    for op in (1, 2, 8):
        answers = Counter(answer for _, answer, o in rows if o == op)
        expected = answers.most_common(1)[0][1] / answers.total()
        assert scores[f"op_{op}"].baselines.majority_exact_match == pytest.approx(expected)


def test_shape_of_the_text() -> None:
    task = GSMInfiniteConfig(**SMALL).build()
    batch = task.batch(64, seed=0, position=0)
    assert task.context_length == 120
    assert task.sequence_length == 123
    for tokens, labels in zip(batch.tokens, batch.labels, strict=True):
        spoken = labels != IGNORE
        assert spoken.nonzero().flatten().tolist() == [121, 122]  # after ":", after the integer
        assert [task.vocab[i] for i in tokens[120:]] == ["Answer", ":", task.vocab[labels[121]]]
        assert labels[122] == task.tokenizer.eos
        text = task.tokenizer.decode(tokens.tolist())
        assert text.startswith("Question: ")
        assert task.tokenizer.encode(text) == tokens[tokens != task.tokenizer.pad].tolist()
        assert task.tokenizer.decode(task.tokenizer.encode(text)) == text


def test_lengths_fill_the_range() -> None:
    task = GSMInfiniteConfig(min_tokens=2000, max_tokens=3300).build()
    lengths = (task.batch(200, seed=0, position=0).tokens[:, :3300] != task.tokenizer.pad).sum(1)
    assert lengths.min() >= 2000
    assert lengths.min() < 2100
    assert lengths.max() > 3200
    exact = GSMInfiniteConfig(min_tokens=96, max_tokens=96, ops=[1, 2]).build()
    assert (exact.batch(64, seed=0, position=0).tokens != exact.tokenizer.pad).all()


def test_ops_modes_and_settings_are_drawn_as_configured() -> None:
    task = GSMInfiniteConfig(**(SHORT | {"ops": [2, 5], "modes": ["forward", "reverse"]})).build()
    batch = task.batch(2000, seed=0, position=0)
    assert batch.slices["op"].bincount()[[2, 5]].tolist() == pytest.approx([1000, 1000], rel=0.1)
    assert batch.slices["mode"].bincount().tolist() == pytest.approx([1000, 1000], rel=0.1)
    found = Counter()
    for row, mode in zip(batch.tokens, batch.slices["mode"].tolist(), strict=True):
        text = task.tokenizer.decode(row.tolist())
        assert ("unknown but above 0" in text) == (mode == 1)
        found.update(name for name, s in SETTINGS.items() if any(place in text for place in s.places))
    assert [found[name] / 2000 for name in ("zoo", "schools", "movies")] == pytest.approx([0.5, 0.25, 0.25], abs=0.05)


def test_one_neutral_pad_or_none() -> None:
    assert GSMInfiniteConfig(**SMALL).build().neutral_pad is None
    assert GSMInfiniteConfig(**SMALL, pad="neutral").build().neutral_pad == 0


def test_an_unknown_word_is_named() -> None:
    with pytest.raises(ValueError, match=r"^task\.tokenizer=words has no token 'zebra';"):
        GSMInfiniteConfig(**SMALL).build().tokenizer.encode("The zebra")


def test_every_problem_has_one_split() -> None:
    rng, world = random.Random(0), World("zoo", range(4), range(4), 3, 4, 1000)
    splits = Counter()
    for _ in range(4000):
        problem = sample_problem(rng, world, 4, "forward")
        splits.update([] if problem is None else [problem.split()])
    assert set(splits) == set(SPLITS)
    assert splits["validation"] / splits.total() == pytest.approx(1 / 16, rel=0.3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"ops": []}, r"^task\.ops=\[\] must list"),
        ({"ops": [0]}, r"^task\.ops=\[0\] must list"),
        ({"ops": [99]}, r"^task\.ops=\[99\]: generated problems have 1 to 40 operations"),
        ({"ops": [1, 2], "modes": ["reverse"]}, r"^task\.ops=\[1, 2\] with task\.modes.*leave 1 out"),
        ({"settings": ["space"]}, r"^task\.settings=\['space'\] .* zoo, schools, movies"),
        ({"modes": []}, r"^task\.modes=\[\] must list"),
        ({"depth": 4}, r"^task\.depth=4 must be 2 \(medium\) or 3 \(hard\)"),
        ({"n_places": 100}, r"^task\.n_places=100 must be from 3 to 72"),
        ({"max_value": 3}, r"^task\.max_value=3 must be from task\.max_constant=4 to 1000"),
        ({"min_tokens": 300, "max_tokens": 200}, r"^task\.min_tokens=300 .*task\.max_tokens=200"),
        (
            {"min_tokens": 20, "max_tokens": 50, "ops": [8]},
            r"^task\.max_tokens=50 is too short .* 8 operations; use at le",
        ),
        (
            {"min_tokens": 90_000, "max_tokens": 90_000},
            r"^task\.min_tokens=90000 cannot be reached: 72 places and 48 kinds",
        ),
        (
            {"min_tokens": 900, "max_tokens": 900, "n_places": 4, "n_kinds": 4},
            r"^task\.min_tokens=900 cannot be reached",
        ),
        ({"ops": [40], "n_places": 3, "n_kinds": 2, "min_tokens": 20}, r"^task\.ops: no forward problem of 40"),
        ({"tokenizer": "./nowhere"}, r"^task\.tokenizer=\./nowhere cannot be loaded"),
        ({"jsonl": "nowhere.jsonl"}, r"^task\.jsonl=nowhere\.jsonl: No such file"),
    ],
)
def test_a_mistake_is_one_sentence(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        GSMInfiniteConfig(**({"min_tokens": 100, "max_tokens": 200} | overrides)).build()
    assert "\n" not in str(caught.value)


def test_a_split_without_problems_is_refused() -> None:
    """Six quantities and two constants make twelve problems of one operation: too few for every split to have one."""
    names: dict[str, Any] = {"settings": ["movies"], "n_places": 3, "n_kinds": 2, "depth": 2, "max_constant": 2}
    task = GSMInfiniteConfig(**names, ops=[1], min_tokens=20, max_tokens=40).build()
    with pytest.raises(ValueError, match=r"^task\.n_places=3 and task\.n_kinds=2 leave no validation problem of 1"):
        task.batch(1, seed=0, position=0, split="validation")


def published(n: int, **changes: Any) -> dict[str, Any]:
    """A line as it is published."""
    number, a, b = f"the number of adult owl in Cedar-Ridge {n}", n % 5 + 1, n % 5 + 3
    return {
        "problem": f"T{number[1:]} equals {a}. The number of adult bear in Ruby Bay equals 2 plus {number}.",
        "question": "How many adult bear does Ruby Bay have?",
        "solution": f"Define adult owl as k; so k = {a}. Define adult bear as b; so b = 2 + k = {b}. Answer: {b}.",
        "op": 3 + n % 2,
        "id": n,
        "template": "crazy_zootopia",
        "mode": "normalforward",
        "length": "zero_context",
        "d": 2,
    } | changes


def symbolic(n: int) -> dict[str, Any]:
    """A symbolic problem as it is published."""
    values = {f"V{i}{n:05d}": (n + i * i) % 4 for i in range(5)}
    names = [name for name, value in values.items() if value == 1]
    return {
        "problem": " ".join(f"assign {name} = {value}." for name, value in values.items()),
        "question": "Determine which variables (if any) are equal to 1.",
        "solution": f"... ANSWER: {', '.join(names)}",
        "op": 3,
        "n": 5,
        "length": 0,
        "id": n,
        "d": 1,
        "answer_q": 1,
        "answer_list": names[::-1],
        "messages": [{"role": "user", "content": "..."}],
    }


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    return str(path)


class TestPublishedFiles:
    keys: ClassVar[dict[str, Any]] = {"min_tokens": 20, "max_tokens": 64, "ops": [3, 4]}

    def test_reads_problems_and_deals_them_out(self, tmp_path: Path) -> None:
        config = GSMInfiniteConfig(jsonl=write(tmp_path / "p.jsonl", [published(n) for n in range(300)]), **self.keys)
        task, seen = config.build(), {}
        for split in SPLITS:
            rows = texts(task, 400, split=split)
            seen[split] = {text for text, _, _ in rows}
            for text, answer, op in rows:
                found = re.search(r"Cedar-Ridge (\d+)\.$", text)
                assert found
                assert (answer, op) == (int(found[1]) % 5 + 3, 3 + int(found[1]) % 2)
        assert not seen["train"] & (seen["validation"] | seen["test"])
        assert not seen["validation"] & seen["test"]
        assert len(seen["train"]) > 150

    def test_filters(self, tmp_path: Path) -> None:
        rows = [published(n) for n in range(300)] + [published(n, op=5) for n in range(300, 600)]
        path = write(tmp_path / "p.jsonl", rows)
        task = GSMInfiniteConfig(jsonl=path, **(self.keys | {"ops": [3, 5]})).build()
        assert set(task.batch(64, seed=0, position=0).slices["op"].tolist()) == {3, 5}
        for wrong in ({"ops": [9]}, {"settings": ["movies"]}, {"modes": ["reverse"]}, {"max_tokens": 30}):
            with pytest.raises(ValueError, match=r"p\.jsonl has no train problem of task\.ops"):
                GSMInfiniteConfig(jsonl=path, **(self.keys | wrong)).build()

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ("{broken", r"p\.jsonl, line 3: Expecting property name.*; fix or delete that line"),
            ("[1]", r"line 3: a JSON object was expected, not list"),
            (json.dumps({"problem": "x"}), r"line 3: 'question' is missing"),
            (json.dumps(published(1, op="3")), r"line 3: 'op' is not int"),
            (json.dumps(published(1, solution="none")), r"line 3: 'solution' has no 'Answer: <integer>\.'"),
            (json.dumps(published(1, solution="Answer: 2.5.")), r"line 3: 'solution' has no 'Answer: <integer>\.'"),
            (json.dumps(published(1, answer_list=[1])), r"line 3: 'answer_list' is not a list of variables"),
        ],
    )
    def test_a_broken_line_is_named(self, tmp_path: Path, line: str, message: str) -> None:
        path = tmp_path / "p.jsonl"
        path.write_text(f"{json.dumps(published(0))}\n\n{line}\n")
        with pytest.raises(ValueError, match=message) as caught:
            GSMInfiniteConfig(jsonl=str(path), **self.keys).build()
        assert "\n" not in str(caught.value)

    def test_a_file_that_has_changed_is_read_again(self, tmp_path: Path) -> None:
        config = GSMInfiniteConfig(jsonl=write(tmp_path / "p.jsonl", [published(n) for n in range(100)]), **self.keys)
        task = config.build()
        assert config.build() is task
        write(tmp_path / "p.jsonl", [published(n, op=4) for n in range(100)])
        os.utime(tmp_path / "p.jsonl", ns=(1, 1))
        assert set(config.build().batch(32, seed=0, position=0).slices["op"].tolist()) == {4}

    def test_parquet_and_arrays(self, tmp_path: Path) -> None:
        """The same problems in every format."""
        rows = [published(n) for n in range(100)]
        (tmp_path / "p.json").write_text(json.dumps(rows))
        paths = [write(tmp_path / "p.jsonl", rows), str(tmp_path / "p.json")]
        if importlib.util.find_spec("datasets") is not None:
            arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
            parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "p.parquet")
            paths.append(str(tmp_path / "p.parquet"))
        batches = [GSMInfiniteConfig(jsonl=path, **self.keys).build().batch(8, seed=0, position=0) for path in paths]
        assert all(batch.tokens.equal(batches[0].tokens) for batch in batches)

    def test_a_whole_file_is_a_split_and_its_problems_come_once_each(self, tmp_path: Path) -> None:
        path = write(tmp_path / "p.jsonl", [published(n) for n in range(40)])
        for train in ({"jsonl": write(tmp_path / "t.jsonl", [published(n) for n in range(100, 400)])}, {}):
            task = GSMInfiniteConfig(test_file=path, **train, **self.keys).build()
            found = [text for i in range(5) for text, _, _ in texts(task, 8, position=i, split="test")]
            assert [int(re.findall(r"Cedar-Ridge (\d+)", text)[0]) for text in found] == list(range(40))
            assert len({text for text, _, _ in texts(task, 64)}) > 20
        everything = GSMInfiniteConfig(jsonl=path, test_file=path, validation_file=path, **self.keys).build()
        assert len(everything._sources["train"].problems) == 40  # type: ignore[attr-defined]

    def test_symbolic_problems(self, tmp_path: Path) -> None:
        rows = [symbolic(n) for n in range(200)]
        task = GSMInfiniteConfig(jsonl=write(tmp_path / "p.jsonl", rows), **self.keys | {"max_tokens": 80}).build()
        assert task.unordered
        for row in task.batch(50, seed=0, position=0).tokens:
            text, answer = task.tokenizer.decode(row.tolist()).split(" Answer: ")
            assert answer == (", ".join(sorted(re.findall(r"assign (V\d+) = 1\.", text))) or "none")
        eos = task.tokenizer.eos
        both, turned, one = (
            task.tokenizer.encode(said) for said in ("V000001, V100001", "V100001, V000001", "V000001")
        )
        assert task.same_answer([*both, eos], [*turned, eos])
        assert not task.same_answer([*one, eos, eos, eos], [*both, eos])
        assert not task.same_answer([*both, task.tokenizer.encode(",")[0]], [*turned, eos]), "it has not ended"
        assert task.same_answer([*one, eos, *both], [*one, eos]), "what stands behind the end is not said"

    @pytest.mark.parametrize(
        ("said", "answer", "right"),
        [
            ("V1, V22", "V22, V1", True),
            ("V1 and V22.", "V22, V1", True),
            ("V1, V22, V3", "V22, V1", False),
            ("V1, V1", "V1", True),
            ("V10", "V1", False),
            ("none", "none", True),
            ("V1", "none", False),
            ("none", "V1", False),
            ("12", "12", True),
            ("112", "12", False),
        ],
    )
    def test_answers_are_judged_as_published(self, said: str, answer: str, right: bool) -> None:
        assert same_answer(said, answer) is right

    def test_what_its_generator_writes_is_read_as_a_directory(self, tmp_path: Path) -> None:
        """Medium and hard: a file for each number of operations and process, below their length and subset."""
        for op in (2, 3, 10):
            folder = tmp_path / "Igsm" / "8k" / "medium" / str(op)
            folder.mkdir(parents=True)
            for process in (0, 1):
                rows = [published(100 * op + 10 * process + n, op=op, length="8k") for n in range(10)]
                name = f"igsm_op15_ip20_force_True_{process}.jsonl"
                (folder / name).write_text("\n".join([json.dumps(row) for row in rows]) + "\n")
        (tmp_path / "Igsm" / "README.md").write_text("no problems")
        path = str(tmp_path / "Igsm")
        keys: dict[str, Any] = self.keys | {"ops": [2, 3, 10]}
        task = GSMInfiniteConfig(test_file=path, jsonl=path, **keys).build()
        found = [text for i in range(6) for text, _, _ in texts(task, 10, position=i, split="test")]
        numbers = [int(re.findall(r"Cedar-Ridge (\d+)", text)[0]) for text in found]
        assert numbers == [100 * op + 10 * p + n for op in (2, 3, 10) for p in (0, 1) for n in range(10)]
        write(folder / "igsm_op15_ip20_force_True_2.jsonl", [published(7, op=10)])
        grown = GSMInfiniteConfig(test_file=path, jsonl=path, **keys).build()
        assert len(grown._sources["test"].problems) == 61  # type: ignore[attr-defined]
        (folder / "igsm_op15_ip20_force_True_2.jsonl").write_text("{")
        with pytest.raises(ValueError, match=r"10/igsm_op15_ip20_force_True_2\.jsonl, line 1: "):
            GSMInfiniteConfig(test_file=path, jsonl=path, **keys).build()
        (tmp_path / "none").mkdir()
        with pytest.raises(ValueError, match=r"holds no problems; give a file .* or a directory"):
            GSMInfiniteConfig(test_file=str(tmp_path / "none"), **keys).build()

    @pytest.mark.long
    def test_a_downloaded_data_set_is_read_as_a_directory(self, tmp_path: Path) -> None:
        """Symbolic: Parquet, a split for each number of operations."""
        pytest.importorskip("datasets")
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        (tmp_path / "data").mkdir()
        for op in (1, 2, 30, 50):
            rows = [symbolic(100 * op + n) | {"op": op} for n in range(20)]
            parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "data" / f"ops_{op}-00000-of-00001.parquet")
        names = [file.name.split("-")[0] for file in problem_files(str(tmp_path))]
        assert names == ["ops_1", "ops_2", "ops_30", "ops_50"]
        keys: dict[str, Any] = {"min_tokens": 10, "max_tokens": 80, "ops": [1, 2, 30, 50]}
        path = str(tmp_path)
        task = GSMInfiniteConfig(test_file=path, validation_file=path, jsonl=path, **keys).build()
        assert task.unordered
        for split in ("test", "train"):
            assert set(task.batch(64, seed=0, position=0, split=split).slices["op"].tolist()) <= {1, 2, 30, 50}  # type: ignore[arg-type]
        assert len(task._sources["test"].problems) == 80  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match=r"generated problems have 1 to 40 operations; only those of a file"):
            GSMInfiniteConfig(test_file=path, **keys)

    def test_the_published_mix(self, tmp_path: Path) -> None:
        """Of 40 problems of three operations 16 + 2 + 2 forward and, here, 4 reverse; of ten of four operations 4."""
        kinds = {"crazy_zootopia": 100, "teachers_in_school": 50, "movie_festival_awards": 50}
        rows = [published(i, op=3, template=name) for name, n in kinds.items() for i in range(n)]
        rows += [published(1000 + i, op=3, mode="forwardreverse") for i in range(4)]
        rows += [published(2000 + i, op=4) for i in range(10)]
        path = write(tmp_path / "p.jsonl", rows)
        keys: dict[str, Any] = self.keys | {"modes": ["forward", "reverse"], "per_op": 40}
        with pytest.warns(UserWarning, match=r"186 of 214 problems are left out \(186 by task\.per_op\)"):
            task = GSMInfiniteConfig(test_file=path, **keys).build()
        found = [text for text, _, _ in texts(task, 28, split="test")]
        numbers = [int(re.findall(r"Cedar-Ridge (\d+)", text)[0]) for text in found]
        assert numbers == [*range(16), 0, 1, 0, 1, *range(1000, 1004), *range(2000, 2004)]
        with pytest.raises(ValueError, match=r"^task\.per_op=0 must be at least 1, or null"):
            GSMInfiniteConfig(per_op=0)

    def test_what_is_left_out_is_said(self, tmp_path: Path) -> None:
        rows = [published(n) for n in range(200)]
        rows += [published(0, op=9), published(0, op=9), published(0, mode="forwardreverse")]
        rows += [published(0, template="movie_festival_awards"), published(0, problem="short.")]
        keys: dict[str, Any] = self.keys | {"settings": ["zoo"], "min_tokens": 30}
        with pytest.warns(UserWarning, match="are left out") as said:
            GSMInfiniteConfig(jsonl=write(tmp_path / "p.jsonl", rows), **keys).build()
        assert str(said[0].message).endswith(
            "p.jsonl: 4 of 205 problems are left out (2 by task.ops, 1 by task.modes, 1 by task.settings)"
        )
        assert "1 by task.min_tokens, max_tokens" in str(said[1].message)

    def test_the_published_figures(self, tmp_path: Path) -> None:
        found = published_metrics({2: 1.0, 4: 0.8, 6: 0.4, 8: 0.05})
        assert found == {
            "auc": pytest.approx(180 + 120 + 45),
            "mean_accuracy_to_30": pytest.approx(0.5625),
            "first_op_below_50": 6,
            "first_op_below_10": 8,
        }
        assert published_metrics({3: 1.0})["first_op_below_50"] is None
        found = published_metrics({20: 1.0, 30: 0.5, 40: 0.0})
        assert found["mean_accuracy_to_30"] == 0.75 and found["auc"] == 1000

    def test_an_empty_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "p.jsonl").write_text("\n")
        with pytest.raises(ValueError, match="holds no problems"):
            GSMInfiniteConfig(jsonl=str(tmp_path / "p.jsonl")).build()


@pytest.fixture(scope="module")
def bpe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small byte-level BPE tokenizer in a directory, in the manner of the pretrained models'."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>", "<|pad|>"], initial_alphabet=alphabet)
    corpus = [text for text, _, _ in texts(GSMInfiniteConfig(**SHORT).build(), 64)]
    tokenizer.train_from_iterator(corpus, trainer)
    path = tmp_path_factory.mktemp("bpe")
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.save_pretrained(path)
    return str(path)


@pytest.mark.parametrize("pad_side", ["left", "right"])
def test_any_hugging_face_tokenizer(bpe: str, pad_side: Any) -> None:
    config = GSMInfiniteConfig(min_tokens=200, max_tokens=400, ops=[2, 8], tokenizer=bpe, pad_side=pad_side)
    task = config.build()
    batch = task.batch(200, seed=0, position=0)
    assert len(task.vocab) == 600
    assert (batch.labels[:, : task.context_length] == IGNORE).all()
    for tokens, labels, (text, answer, op) in zip(batch.tokens, batch.labels, texts(task, 200), strict=True):
        found = solve(text)
        assert (found.answer, found.op) == (answer, op)
        label = labels[labels != IGNORE].tolist()
        assert label[-1] == task.tokenizer.eos
        assert task.tokenizer.decode(label) == str(answer)
        whole = task.tokenizer.encode(f"{text} Answer: {answer}")
        assert tokens[tokens != task.tokenizer.pad].tolist() == whole  # parts join as if encoded in one
        first = int((labels != IGNORE).nonzero()[0])
        assert tokens[first + 1 : first + len(label)].tolist() == label[:-1]


@pytest.mark.parametrize("name", ["gsm_infinite", "gsm_infinite_paper"])
def test_shipped_experiments_draw_batches(name: str) -> None:
    experiment = load_experiment(Path(__file__).parents[2] / "conf" / f"{name}.yaml")
    batch = experiment.task.build().batch(8, seed=0, position=0)
    windows = plan_windows(batch.labels, experiment.sleep.window_size)
    assert [w.sleeps for w in windows] == [True] * (len(windows) - 1) + [False]
