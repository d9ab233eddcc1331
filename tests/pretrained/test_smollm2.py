"""SmolLM2-135M-Instruct, 4-bit weights dequantised (``make weights``): here, in transformers, and exported."""

from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

import sleep_lightning.pretrained.auto
from sleep_lightning.model import HybridLM
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig
from tests.cli.cli import ROOT
from tests.pretrained.test_families import logits_of

WEIGHTS = ROOT / "weights" / "SmolLM2-135M-Instruct"
PROMPTS = ("The capital of France is", "Once upon a time, there was a")
NEW, SLEEP = 16, SleepConfig(64, 2)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not WEIGHTS.exists(), reason="make weights fetches them")]


@pytest.fixture(scope="module")
def model() -> HybridLM:
    return load_pretrained(WEIGHTS, {"every": 4})


@pytest.fixture(scope="module")
def exported(model: HybridLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("smollm2") / "tuned"
    export(model, folder, SLEEP)
    return folder


def greedy(model: HybridLM, tokens_1T: Tensor) -> Tensor:
    for _ in range(NEW):
        with torch.no_grad():
            tokens_1T = torch.cat((tokens_1T, logits_of(model, tokens_1T)[:, -1:].argmax(-1)), 1)
    return tokens_1T


def generate(folder: Path, tokens_1T: Tensor) -> Tensor:
    loaded = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    found: Tensor = loaded.generate(tokens_1T, max_new_tokens=NEW, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return found


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_same_tokens_everywhere(prompt: str, model: HybridLM, exported: Path) -> None:
    """Original and export in transformers, our greedy decoding, and the export with windows and sleep."""
    assert sleep_lightning.pretrained.auto.SleepingForCausalLM is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    tokens = tokenizer(prompt, return_tensors="pt").input_ids
    expected = generate(WEIGHTS, tokens)
    assert torch.equal(greedy(model, tokens), expected)
    assert torch.equal(generate(exported, tokens), expected)
    assert torch.equal(generate(exported / "sleep", tokens), expected)
    print(repr(tokenizer.decode(expected[0])))


def test_logits_are_those_of_transformers(model: HybridLM) -> None:
    x = torch.randint(0, 49152, (1, 300), generator=torch.Generator().manual_seed(0))
    theirs = transformers.AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=torch.float32)
    with torch.no_grad():
        expected, actual = theirs(x).logits, logits_of(model, x)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
