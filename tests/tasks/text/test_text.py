"""``task.name: text``: files of every format as a task."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sleep_lightning.config import load_experiment
from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks import TaskBatch
from sleep_lightning.tasks.text import TextConfig
from sleep_lightning.tasks.text.task import RowTask
from sleep_lightning.testing import TaskTestCase
from tests.tasks.text.tokenizers import save

SMALL: dict[str, Any] = {
    "window_tokens": 32,
    "context_windows": 3,
    "question_tokens": 32,
    "question_template": "\n{question}",
}
NAMES = ("Ann", "Bob", "Cleo", "Dan", "Eve", "Finn")
PLACES = ("attic", "barn", "cellar", "den")


def qa(i: int) -> dict[str, Any]:
    who, where = NAMES[i % 6], PLACES[i * i % 4]
    return {
        "context": f"Note {i}: {who} is in the {where}.",
        "question": f"Where is {who}?",
        "answer": where,
        "n": i % 3,
    }


def written(path: Path, records: list[Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def texts(task: RowTask, batch: TaskBatch) -> list[str]:
    return [task.tokenizer.decode(row.tolist()) for row in batch.tokens]


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> str:
    return written(tmp_path_factory.mktemp("text") / "notes.jsonl", [qa(i) for i in range(4000)])


class TestText(TaskTestCase):
    minimum_tokens_per_second = 200_000

    @pytest.fixture(autouse=True)
    def _config(self, notes: str) -> None:
        self.config = TextConfig(train=notes, **SMALL)


def test_all_of_it_is_in_the_row_and_the_answer_is_the_label(notes: str) -> None:
    task = TextConfig(train=notes, slices=["n"], **SMALL).build()
    batch = task.batch(64, seed=0, position=0)
    for text, labels, n in zip(texts(task, batch), batch.labels, batch.slices["n"], strict=True):
        i = int(text.split()[1].rstrip(":"))
        wanted = qa(i)
        assert text == f"{wanted['context']}\n{wanted['question']}\nAnswer: {wanted['answer']}"
        assert task.tokenizer.decode(labels[labels != IGNORE].tolist()).strip() == wanted["answer"]
        assert int(n) == wanted["n"]
    windows = plan_windows(batch.labels, 32)
    assert [w.sleeps for w in windows] == [True] * 3 + [False]
    aligned = batch.aligned(SleepConfig(32), task.neutral_pad)
    assert aligned.tokens.shape[1] == 64  # what is padding in all rows is left out


def test_one_file_is_dealt_to_all_splits_by_its_evidence(tmp_path: Path) -> None:
    """Every context twice, with another question: in one split."""
    records = [qa(i) | {"question": question} for i in range(600) for question in ("Where?", "In which place?")]
    task = TextConfig(train=written(tmp_path / "a.jsonl", records), **SMALL).build()
    sizes = {split: len(index) for split, index in task.source.indices.items()}  # type: ignore[attr-defined]
    assert sum(sizes.values()) == 1200 and sizes["train"] > 900 and min(sizes.values()) > 30
    seen = [
        {
            text.partition("\n")[0]
            for i in range(20)
            for text in texts(task, task.batch(64, seed=0, position=i, split=s))
        }
        for s in ("train", "validation", "test")
    ]
    assert not seen[0] & seen[1] and not seen[0] & seen[2] and not seen[1] & seen[2]
    assert len(seen[1]) * 2 == sizes["validation"] and len(seen[2]) * 2 == sizes["test"]


def test_held_out_records_come_in_their_order_each_once(notes: str, tmp_path: Path) -> None:
    test = written(tmp_path / "test.jsonl", [qa(i) for i in range(5000, 5010)])
    task = TextConfig(train=notes, test=test, **SMALL).build()
    found = [t for i in range(3) for t in texts(task, task.batch(5, seed=i, position=i, split="test"))]
    assert [int(text.split()[1].rstrip(":")) for text in found] == [*range(5000, 5010), *range(5000, 5005)]
    own = TextConfig(train=notes, **SMALL).build()
    assert len(task.source.indices["train"]) > len(own.source.indices["train"])  # type: ignore[attr-defined]


def test_the_same_questions_beside_what_is_kept_of_their_context(tmp_path: Path) -> None:
    pytest.importorskip("bm25s")
    filler = "".join(f" Nothing of note on day {i}." for i in range(8))
    records = [r | {"context": f"{filler} {r['context']}{filler}"} for r in map(qa, range(400))]
    path = written(tmp_path / "a.jsonl", records)
    sizes = SMALL | {"window_tokens": 48, "context_windows": 12}
    whole = TextConfig(train=path, **sizes).build()
    for kept in ("bm25", "summary"):
        less = TextConfig(train=path, kept=kept, **sizes).build()  # type: ignore[arg-type]
        assert less.context_length == 48
        for split in ("validation", "test"):
            rows, cut = (task.batch(8, seed=0, position=0, split=split) for task in (whole, less))  # type: ignore[arg-type]
            assert [x[x != IGNORE].tolist() for x in rows.labels] == [x[x != IGNORE].tolist() for x in cut.labels]
            assert all(len(b) < len(a) for a, b in zip(texts(whole, rows), texts(less, cut), strict=True))
            found = [
                re.search(r"(\w+) is in the (\w+)\..*Where is (\w+)\?", text, re.DOTALL) for text in texts(less, cut)
            ]
            assert kept == "summary" or all(m and m[1] == m[3] for m in found)


@pytest.mark.parametrize(
    ("record", "found"),
    [
        ({"text": "a b c " * 20}, "none"),
        (
            {"messages": [{"role": r, "content": "hi"} for r in ("user", "assistant", "system", "user", "assistant")]},
            "an",
        ),
    ],
)
def test_what_is_kept_is_for_questions_behind_one_context(tmp_path: Path, record: dict[str, Any], found: str) -> None:
    path = written(tmp_path / "a.jsonl", [record])
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 1: task\.kept=summary is for questions .* has {found}"):
        TextConfig(train=path, validation=path, test=path, kept="summary", **SMALL).build()


@pytest.mark.parametrize("question", ["before", "both"])
def test_questions_before_the_context(notes: str, question: Any) -> None:
    task = TextConfig(train=notes, question=question, **SMALL).build()
    batch = task.batch(32, seed=0, position=0)
    before = [text.startswith("Where is") for text in texts(task, batch)]
    assert all(before) if question == "before" else before == batch.slices["before"].bool().tolist()
    assert len(set(before)) == (1 if question == "before" else 2)
    assert task.context_length == 4 * 32


def test_several_questions_of_a_context(tmp_path: Path) -> None:
    records = [
        {"context": f"{i} is first.", "question": ["First?", "Last?"][: 1 + i % 2], "answer": [i, "none"][: 1 + i % 2]}
        for i in range(200)
    ]
    task = TextConfig(train=written(tmp_path / "a.jsonl", records), **SMALL | {"question_tokens": 64}).build()
    batch = task.batch(16, seed=0, position=0)
    assert batch.answers is not None and batch.answers.max() == 1
    aligned = batch.aligned(SleepConfig(32), task.neutral_pad)
    plan_windows(aligned.labels, 32, aligned.tokens == task.neutral_pad)


def test_conversations(tmp_path: Path) -> None:
    chat = [
        ("system", "Be short."),
        ("user", "Hi, I am Ann."),
        ("assistant", "Hi."),
        ("user", "Who?"),
        ("assistant", "Ann."),
    ]
    records = [{"messages": [{"role": r, "content": f"{c} {i}"} for r, c in chat]} for i in range(10, 100)]
    path = written(tmp_path / "a.jsonl", records)
    task = TextConfig(train=path, **SMALL | {"context_windows": 4}).build()
    batch = task.batch(8, seed=0, position=0)
    text = texts(task, batch)[0]
    i = text.split()[3]
    assert text == (
        f"\nsystem: Be short. {i}\nuser: Hi, I am Ann. {i}\nassistant: Hi. {i}\nuser: Who? {i}\nassistant: Ann. {i}"
    )
    assert task.context_length == 64 and batch.answers is not None
    aligned = batch.aligned(SleepConfig(32), task.neutral_pad)
    assert [w.sleeps for w in plan_windows(aligned.labels, 32, aligned.tokens == 256)] == [True, False, True, False]
    templated = TextConfig(
        train=path,
        tokenizer=save("bpe", tmp_path),
        **SMALL | {"context_windows": 8, "window_tokens": 48, "question_tokens": 48},
    ).build()
    batch = templated.batch(8, seed=0, position=0)
    ids = [i for i in batch.tokens[0].tolist() if i != templated.neutral_pad]
    end, start = templated.tokenizer.eos, templated.vocab.index("<|start|>")
    assert ids.count(start) == 5 and ids.count(end) == 4  # the last answer's end is a label only
    labels = batch.labels[0][batch.labels[0] != IGNORE].tolist()
    assert labels.count(end) == 2 and "Ann." in templated.tokenizer.decode(labels)


def test_plain_text_is_predicted_behind_an_eviction(tmp_path: Path) -> None:
    words = " ".join(f"w{i}" for i in range(3000))
    records = [{"text": words}, *({"text": f"short {i}"} for i in range(60))]
    task = TextConfig(train=written(tmp_path / "a.jsonl", records), **SMALL).build()
    long = [
        (text, row, labels)
        for i in range(40)
        for batch in [task.batch(32, seed=0, position=i)]
        for text, row, labels in zip(texts(task, batch), batch.tokens, batch.labels, strict=True)
        if "short" not in text
    ]
    assert len({text for text, _, _ in long}) > 5  # pieces of it
    for text, row, labels in long:
        assert text in words
        assert (labels[:96] == IGNORE).all()
        behind = labels[96:][labels[96:] != IGNORE]
        assert torch.equal(behind[:-1], row[97 : 96 + len(behind)])  # the next token, aligned to the logits


def test_of_a_conversation_with_long_messages_all_but_the_end_sleeps(tmp_path: Path) -> None:
    record = {"messages": [{"role": "user", "content": "x" * 80 + " and?"}, {"role": "assistant", "content": "yes"}]}
    task = TextConfig(
        train=written(tmp_path / "a.jsonl", [record] * 50 + [{**record, "id": i} for i in range(3)]),
        validation=written(tmp_path / "b.jsonl", [record]),
        test=written(tmp_path / "c.jsonl", [record]),
        **SMALL,
    ).build()
    batch = task.batch(2, seed=0, position=0)
    assert texts(task, batch)[0] == "\nuser: " + "x" * 80 + " and?\nassistant: yes"
    assert (batch.tokens[:, 96:] != 256).sum(1).tolist() == [32, 32]


def test_an_experiment_names_it_and_files_are_found_from_anywhere(notes: str, tmp_path: Path) -> None:
    content = {
        "task": {"name": "text", "train": notes, "window_tokens": 32, "context_windows": 2, "question_tokens": 32},
        "model": {"d_model": 16, "n_heads": 2, "pattern": "AG"},
        "sleep": {"window_size": "${task.window_tokens}", "n_passes": 2},
    }
    experiment = load_experiment(content)
    assert isinstance(experiment.task, TextConfig)
    assert experiment.task.build() is load_experiment(experiment.to_dict()).task.build()
    with pytest.raises(ValueError, match=r"sleep\.window_size=48 puts evidence and answers into one window"):
        load_experiment(content, ["sleep.window_size=48"])
    relative = TextConfig(train="notes.jsonl", tokenizer="nobody/model").anchored()
    assert relative.train == str(Path("notes.jsonl").absolute()) and relative.tokenizer == "nobody/model"
    assert TextConfig(train="a", tokenizer="tests").anchored().tokenizer == str(Path("tests").absolute())
