"""A tuned model under transformers' Auto classes: windows and sleep included."""

from pathlib import Path

import pytest
import torch
import transformers

import sleep_lightning.pretrained.auto
from sleep_lightning.model import HybridLM
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig
from tests.pretrained.snapshots import tokens, write
from tests.pretrained.test_families import logits_of

SLEEP = SleepConfig(8, 3)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, HybridLM]:
    folder = tmp_path_factory.mktemp("auto")
    write("llama", folder / "base")
    model = load_pretrained(folder / "base", {"every": 2})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.1)
    export(model, folder / "tuned", SLEEP)
    return folder / "tuned" / "sleep", model


def loaded(folder: Path) -> "sleep_lightning.pretrained.auto.SleepingForCausalLM":
    return transformers.AutoModelForCausalLM.from_pretrained(folder)  # type: ignore[no-any-return]


def test_logits_are_those_of_windows_that_sleep_once_they_are_full(tuned: tuple[Path, HybridLM]) -> None:
    x, model = tokens(2, 24), loaded(tuned[0])
    assert isinstance(model, sleep_lightning.pretrained.auto.SleepingForCausalLM)
    with torch.no_grad():
        assert torch.equal(model(x).logits, logits_of(tuned[1], x, SLEEP))
    expected = torch.nn.functional.cross_entropy(model(x).logits[:, :-1].flatten(0, 1), x[:, 1:].flatten())
    assert torch.equal(model(x, labels=x).loss, expected)


@pytest.mark.parametrize("length", [5, 8, 13, 16])
def test_greedy_generation_is_the_argmax_of_the_whole(length: int, tuned: tuple[Path, HybridLM]) -> None:
    model, x = loaded(tuned[0]), tokens(2, length)
    actual = model.generate(x, max_new_tokens=12, do_sample=False, pad_token_id=0)
    for _ in range(12):
        with torch.no_grad():
            x = torch.cat((x, model(x).logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(actual, x)


def test_one_model_generates_for_one_prompt_after_the_other(tuned: tuple[Path, HybridLM]) -> None:
    model = loaded(tuned[0])
    for seed in range(3):
        x = torch.randint(0, 61, (1, 20), generator=torch.Generator().manual_seed(seed))
        again = loaded(tuned[0])
        both = [m.generate(x, max_new_tokens=9, do_sample=False, pad_token_id=0) for m in (model, again)]
        assert torch.equal(*both)


def test_padding_on_the_left_is_refused(tuned: tuple[Path, HybridLM]) -> None:
    mask = torch.ones(2, 8, dtype=torch.int64)
    mask[1, 0] = 0
    with pytest.raises(ValueError, match="padding on the left"):
        loaded(tuned[0])(tokens(2, 8), attention_mask=mask)
