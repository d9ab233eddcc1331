"""The text suites as tasks: tokens and labels under every layout, read back by the solvers."""

import re
import time
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch

from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks import by_answer
from sleep_lightning.tasks.suites import NeedleConfig, StoriesConfig, TranscriptsConfig, VariableTrackingConfig
from sleep_lightning.tasks.suites.source import SuiteKeys
from sleep_lightning.tasks.text.task import RowTask
from sleep_lightning.testing import TaskTestCase
from tests.tasks.suites import test_needle, test_stories, test_transcripts, test_variable_tracking
from tests.tasks.suites.sources import SuiteTestCase

pytestmark = pytest.mark.long
BYTES = 6
"""Windows of bytes are so much longer than windows of words."""


def read(text: str) -> tuple[str, list[tuple[str, str]]]:
    """Context, and the questions with their answers, from the whole text of a row."""
    questions, answers = re.findall(r"Question: (.*\?)\n", text), re.findall(r"\nAnswer: ([^\n]*)", text)
    context = re.sub(r"\nQuestion: .*\?(?=\n)|\nAnswer: [^\n]*", "", f"\n{text}").removeprefix("\n")
    return context, [(f"\nQuestion: {q}", a) for q, a in zip(questions, answers, strict=True)]


class SuiteTaskTestCase(TaskTestCase):
    config: SuiteKeys
    solver: ClassVar[SuiteTestCase]
    evidence_batches = 1
    baseline_rows = 400

    def in_bytes(self, **changes: Any) -> RowTask:
        c = self.config
        longer = {"window_tokens": c.window_tokens * BYTES, "question_tokens": c.question_tokens * 8}
        return replace(c, tokenizer="bytes", **longer | changes).build()  # type: ignore[no-any-return, attr-defined]

    @pytest.mark.parametrize("question", ["behind", "before"])
    def test_a_solver_that_reads_the_tokens_gives_the_labels(self, question: str) -> None:
        task = self.in_bytes(question=question)
        batch = task.batch(40, seed=0, position=3, split="test")
        (labels,), slices = by_answer(batch, batch.labels)
        said = iter(labels)
        for row in batch.tokens:
            text = task.tokenizer.decode(row.tolist())
            assert text.lstrip().startswith("Question") == (question == "before")
            context, asked = read(text)
            for ask, shown in asked:
                answer, _ = self.solver.solve(context, ask)
                label = next(said)
                assert task.tokenizer.decode(label[label != IGNORE].tolist()) == f" {answer}", text
                assert int(label[label != IGNORE][-1]) == task.tokenizer.eos
                assert shown == answer
        assert next(said, None) is None
        assert all(len(x) == len(labels) for x in slices.values())

    def test_every_context_leaves_the_window_before_its_question(self) -> None:
        task = self.task
        assert isinstance(task, RowTask)
        L = self.config.window_tokens
        batch = task.batch(64, seed=0, position=0).aligned(SleepConfig(L), task.neutral_pad)
        windows = plan_windows(batch.labels, L, batch.tokens == task.neutral_pad)
        assert [w.sleeps for w in windows][: max(self.config.windows)] == [True] * max(self.config.windows)
        assert not windows[-1].sleeps

    def test_rows_have_all_their_windows_and_hardly_a_pad_more(self) -> None:
        batch = self.task.batch(64, seed=0, position=0)
        pads = (batch.tokens[:, : self.task.context_length] == self.task.neutral_pad).sum(1)
        asleep = self.task.context_length - batch.slices["windows"] * self.config.window_tokens
        assert ((pads - asleep >= 0) & (pads - asleep < 20)).all()

    def test_both_layouts_occur_if_both_are_asked_for(self) -> None:
        batch = replace(self.config, question="both").build().batch(64, seed=0, position=0)
        assert set(batch.slices["before"].tolist()) == {0, 1}

    def test_what_is_kept_fits_one_window(self) -> None:
        for kept in ("bm25", "summary"):
            if kept == "bm25":
                pytest.importorskip("bm25s")
            task = replace(self.config, kept=kept).build()
            assert task.context_length == self.config.window_tokens
            whole, less = (x.batch(16, seed=0, position=0) for x in (self.task, task))
            assert less.tokens.shape[1] < whole.tokens.shape[1]
            (one,), (other,) = (by_answer(x, x.labels)[0] for x in (whole, less))
            assert torch.equal(one, other)

    def test_sampling_is_fast(self) -> None:
        """Far more than any CPU trainer takes."""
        task, started = self.task, time.process_time()
        task.batch(200, seed=0, position=1)
        rate = 200 * task.sequence_length / (time.process_time() - started)
        assert rate > 20_000, f"{rate:.3g} tokens/s"


class TestNeedleTask(SuiteTaskTestCase):
    config = NeedleConfig(windows=[1, 2], window_tokens=64)
    solver = test_needle.TestNeedle()

    def test_numbers_without_a_token_are_refused(self) -> None:
        with pytest.raises(ValueError, match=r"here up to 9999999; use numbers of at most 4 digits"):
            NeedleConfig(digits=7).build()
        assert NeedleConfig(digits=7, tokenizer="bytes", window_tokens=256, question_tokens=250).build()


class TestVariableTrackingTask(SuiteTaskTestCase):
    config = VariableTrackingConfig(windows=[2, 3], window_tokens=48)
    solver = test_variable_tracking.TestVariableTracking()


class TestStoriesTask(SuiteTaskTestCase):
    config = StoriesConfig(windows=[2], window_tokens=48)
    solver = test_stories.TestStories()


class TestTranscriptsTask(SuiteTaskTestCase):
    config = TranscriptsConfig(windows=[2], window_tokens=128, n_questions=2, question_tokens=64, n_rules=2)
    solver = test_transcripts.TestTranscripts()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"question_tokens": 10}, r"task\.question_tokens=10 is too few: .* take up to \d+, none more than a window"),
        ({"question_tokens": 400, "window_tokens": 16, "windows": [20]}, r"task\.question_tokens=400 is too few"),
    ],
)
def test_what_does_not_fit_is_refused(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NeedleConfig(), **overrides).build()
