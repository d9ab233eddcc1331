"""Lengths and texts under tokenizers of both common kinds, trained here."""

import random
import string
from typing import Any

import pytest

from sleep_lightning.tasks.suites.needle import NeedleConfig, NeedleSource
from sleep_lightning.tasks.suites.source import SuiteSource
from sleep_lightning.tasks.suites.stories import StoriesConfig, StoriesSource
from sleep_lightning.tasks.suites.transcripts import TranscriptsConfig, TranscriptsSource
from sleep_lightning.tasks.suites.variable_tracking import VariableTrackingConfig, VariableTrackingSource

pytestmark = pytest.mark.slow

tokenizers = pytest.importorskip("tokenizers")
SUITES: list[tuple[type[SuiteSource[Any]], Any]] = [
    (NeedleSource, NeedleConfig(windows=[3], window_tokens=200, question_tokens=160)),
    (VariableTrackingSource, VariableTrackingConfig(windows=[3], window_tokens=200, question_tokens=160)),
    (StoriesSource, StoriesConfig(windows=[3], window_tokens=200, question_tokens=160)),
    (TranscriptsSource, TranscriptsConfig(windows=[3], window_tokens=400, question_tokens=160)),
]


def texts() -> list[str]:
    rng = random.Random(9)
    drawn = [source(keys, len).draw(rng, "train") for source, keys in SUITES for _ in range(20)]
    return [row.context + "".join(q.text + q.cue + q.answer for q in row.questions) for row in drawn]


def byte_level() -> Any:
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


def sentence_piece() -> Any:
    """A unigram model that begins every text with a mark, as SentencePiece does."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.Unigram())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = tokenizers.decoders.Metaspace(prepend_scheme="always")
    options = {"unk_token": "<unk>", "special_tokens": ["<unk>"], "show_progress": False}
    trainer = tokenizers.trainers.UnigramTrainer(vocab_size=600, initial_alphabet=list(string.printable), **options)
    tokenizer.train_from_iterator(texts(), trainer)
    return tokenizer


@pytest.mark.long
@pytest.mark.parametrize("tokenizer", [byte_level, sentence_piece])
def test_contexts_have_their_length_and_come_back_from_their_tokens(tokenizer: Any) -> None:
    trained = tokenizer()

    def measure(text: str) -> int:
        return len(trained.encode(text, add_special_tokens=False).ids)

    for source, keys in SUITES:
        suite, rng = source(keys, measure), random.Random(0)
        for _ in range(20):
            row = suite.draw(rng, "validation")
            ids = trained.encode(row.context, add_special_tokens=False).ids
            assert keys.window_tokens * 3 - 40 < len(ids) <= keys.window_tokens * 3
            for text in (row.context, *(q.answer for q in row.questions)):
                assert trained.decode(trained.encode(text, add_special_tokens=False).ids).strip() == text.strip()
