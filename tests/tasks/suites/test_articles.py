"""Articles: what their end mentions stands in their opening, and nowhere else."""

import random
import re

import pytest
import torch

from sleep_lightning.sleep import IGNORE, SleepConfig, plan_windows
from sleep_lightning.tasks.suites.articles import NAMES, ArticlesConfig, ArticlesSource
from sleep_lightning.tasks.task import SPLITS
from sleep_lightning.tasks.text.task import RowTask
from sleep_lightning.testing import TaskTestCase
from tests.tasks.suites.sources import WORD, in_words

OPENING = (
    r" (?P<person>\w+) the (?P<trade>\w+) was born in (?P<home>\w+)\.",
    r" In (?P<city>\w+) (?P<person>\w+) learned from (?P<teacher>\w+)\.",
    r" The (?P<work>\w+) was written against (?P<rival>\w+)\.",
    r" A house was built by the (?P<river>\w+)\.",
)
KNOWN = {name: role for role, names in NAMES.items() for name in names}


def told(opening: str) -> dict[str, str]:
    """Names by their role, from the opening's text alone."""
    found = [re.search(sentence, opening) for sentence in OPENING]
    return {role: name for one in found if one for role, name in one.groupdict().items()}


def halves(text: str) -> tuple[str, str]:
    """Opening and end: what begins with the first sentence that names something and does not introduce it."""
    sentences = re.findall(r"[^.]+\.", text)
    mentions = (bool(set(WORD.findall(one)) & KNOWN.keys()) for one in sentences)
    introduces = (any(re.fullmatch(opening, one) for opening in OPENING) for one in sentences)
    at = next(i for i, (named, new) in enumerate(zip(mentions, introduces, strict=True)) if named and not new)
    return "".join(sentences[:at]), "".join(sentences[at:])


@pytest.mark.parametrize("split", SPLITS)
def test_every_name_of_the_end_is_that_of_the_opening(split: str) -> None:
    keys, rng, roles = ArticlesConfig(), random.Random(0), set[str]()
    source = ArticlesSource(keys, in_words)
    for _ in range(50):
        text = source.draw(rng, split).context  # type: ignore[arg-type]
        opening, end = halves(text)
        names = told(opening)
        assert names.keys() == NAMES.keys()
        for word in set(WORD.findall(end)) & KNOWN.keys():
            assert names[KNOWN[word]] == word, text
            roles.add(KNOWN[word])
        assert keys.windows * keys.window_tokens - 12 < in_words(opening) <= keys.windows * keys.window_tokens
        assert keys.window_tokens < in_words(end) < keys.window_tokens + 12
    assert roles == NAMES.keys()


@pytest.mark.long
class TestArticles(TaskTestCase):
    config = ArticlesConfig()
    minimum_tokens_per_second = 20_000
    evidence_batches = 1
    baseline_rows = 400

    def evidence(self, tokens: torch.Tensor) -> set[tuple[int, ...]]:
        task = self.task
        assert isinstance(task, RowTask)
        ids = {name: i for i, name in enumerate(task.vocab)}
        found = [told(f" {task.tokenizer.decode(row.tolist())}") for row in tokens]
        return {tuple(ids[names[role]] for role in NAMES) for names in found}

    def test_the_end_is_predicted_in_a_window_that_does_not_sleep(self) -> None:
        task, c = self.task, ArticlesConfig()
        batch = task.batch(16, seed=0, position=0).aligned(SleepConfig(c.window_tokens), task.neutral_pad)
        windows = plan_windows(batch.labels, c.window_tokens, batch.tokens == task.neutral_pad)
        assert [window.sleeps for window in windows] == [True] * c.windows + [False]
        assert ((batch.labels != IGNORE).sum(1) == c.window_tokens).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"windows": 0}, r"^task\.windows=0 must be at least 1"),
        ({"windows": 1, "window_tokens": 16}, r"gives openings of 16 tokens, and they take up to \d+ without filler"),
    ],
)
def test_what_does_not_fit_is_refused(keys: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArticlesConfig(**keys).build()  # type: ignore[arg-type]
