"""A trained model for streaming: what it was trained in, and the text that it speaks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from sleep_lightning.config import Experiment
from sleep_lightning.model import HybridLM, ModelConfig
from sleep_lightning.serve.overrides import check_overrides
from sleep_lightning.session import Codec, Tokenizer
from sleep_lightning.session.core import check_session
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Task
from sleep_lightning.tasks.tokenizer import HuggingFaceTokenizer, load_tokenizer
from sleep_lightning.tasks.words import Words
from sleep_lightning.training.evaluation import load_trained


@dataclass(frozen=True)
class OpenedModel:
    """A trained hybrid.

    Attributes:
        experiment: that it was trained in.
        model: with its weights, for inference.
        tokenizer: that of the task or the pretrained model, or the task's vocabulary, word by word.
        answer_tokens: tokens of the longest answer in a sequence of the task.
        example: a sequence of the task's test split: what is read, then what is asked, as text.
    """

    experiment: Experiment
    model: HybridLM
    tokenizer: Codec
    answer_tokens: int
    example: tuple[str, str]


def open_model(checkpoint: str, overrides: Sequence[str] = ()) -> OpenedModel:
    """Load what ``--checkpoint`` names: a run, a checkpoint, or what ``export`` wrote.

    Args:
        checkpoint: as of ``load_trained``.
        overrides: ``key=value`` changes of its experiment.

    Raises:
        ValueError: there is none, it cannot be read token by token, or a change would change nothing here.
    """
    check_overrides(overrides)
    experiment, model = load_trained(checkpoint, list(overrides))
    if not isinstance(model, HybridLM):
        raise ValueError(
            f"--checkpoint {checkpoint} holds a {type(model).__name__}; only the hybrid reads by the token"
        )
    check_session(model, experiment.sleep, "on_full", None)
    task = experiment.task.build()
    tokenizer = _tokenizer(experiment, task)
    codec = Codec.of(tokenizer.wrapped if isinstance(tokenizer, HuggingFaceTokenizer) else tokenizer)
    answer_tokens, example = _example(task, codec)
    return OpenedModel(experiment, model, codec, answer_tokens, example)


def _tokenizer(experiment: Experiment, task: Task) -> Tokenizer:
    own: Tokenizer | None = getattr(task, "tokenizer", None)
    if own is not None:
        return own
    if isinstance(experiment.model, ModelConfig) and experiment.model.pretrained is not None:
        return load_tokenizer(experiment.model.pretrained)
    return Words(task.vocab)


def _example(task: Task, codec: Codec) -> tuple[int, tuple[str, str]]:
    batch = task.batch(1, seed=0, position=0, split="test")
    spoken_T = batch.labels[0] != IGNORE
    of_T = torch.zeros_like(batch.labels[0]) if batch.answers is None else batch.answers[0]
    longest = int(of_T[spoken_T].bincount().max())
    first = int(spoken_T.nonzero()[0])
    tokens = batch.tokens[0].tolist()
    cut = min(task.context_length, first + 1)
    return longest, (codec.decode(tokens[:cut]), codec.decode(tokens[cut : first + 1]))
