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


def test_padding_changes_no_row(tuned: tuple[Path, HybridLM]) -> None:
    """On the left for generation, on the right for likelihoods."""
    model, x, lengths = loaded(tuned[0]), tokens(4, 20), (20, 13, 13, 4)
    for side in ("left", "right"):
        rows = [slice(20 - n, 20) if side == "left" else slice(0, n) for n in lengths]
        mask = torch.stack([torch.zeros(20, dtype=torch.int64).index_fill(0, torch.arange(20)[r], 1) for r in rows])
        with torch.no_grad():
            logits = model(x * mask, attention_mask=mask).logits
            for row, of, alone in zip(logits, rows, x, strict=True):
                torch.testing.assert_close(row[of], model(alone[None, of]).logits[0], rtol=1e-5, atol=1e-5)


def test_padded_prompts_generate_what_they_do_alone(tuned: tuple[Path, HybridLM]) -> None:
    """Windows end at different steps in each row."""
    model, x, pads = loaded(tuned[0]), tokens(3, 15), (0, 3, 8)
    mask = torch.stack([(torch.arange(15) >= pad).long() for pad in pads])
    options = {"max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    together = model.generate(x * mask, attention_mask=mask, **options)
    for row, alone, pad in zip(together, x, pads, strict=True):
        assert torch.equal(row[15:], loaded(tuned[0]).generate(alone[None, pad:], **options)[0, 15 - pad :])


@pytest.mark.parametrize(
    ("given", "expected"),
    [("bfloat16", torch.bfloat16), (torch.bfloat16, torch.bfloat16), ("auto", torch.float32), (None, torch.float32)],
)
def test_a_dtype_may_be_named(given: object, expected: torch.dtype, tuned: tuple[Path, HybridLM]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(tuned[0], dtype=given)
    assert model.dtype == expected and model(tokens(1, 12)).logits.isfinite().all()


def test_what_it_cannot_do_is_refused(tuned: tuple[Path, HybridLM]) -> None:
    own = sleep_lightning.pretrained.auto
    with pytest.raises(ValueError, match=r"^dtype='int8' is no dtype of weights; use bfloat16"):
        own.SleepingForCausalLM.from_pretrained(tuned[0], dtype="int8")
    config = own.SleepingConfig(sleep={"window_size": 8, "retrieved_windows": 1})
    with pytest.raises(ValueError, match=r"^sleep\.retrieved_windows=1: .* would answer without retrieval"):
        own.SleepingForCausalLM(config, tuned[1])


def test_memories_of_earlier_prompts_are_dropped(tuned: tuple[Path, HybridLM]) -> None:
    model, options = loaded(tuned[0]), {"max_new_tokens": 2, "do_sample": False, "pad_token_id": 0}
    for pad in range(4):
        model.generate(tokens(1, 15), attention_mask=(torch.arange(15) >= pad).long()[None], **options)
    assert [*model._slept] == [3]


def test_a_row_masked_throughout_has_logits_of_zero(tuned: tuple[Path, HybridLM]) -> None:
    model, x, mask = loaded(tuned[0]), tokens(2, 12), torch.ones(2, 12, dtype=torch.int64)
    mask[1] = 0
    with torch.no_grad():
        logits = model(x, attention_mask=mask).logits
        assert torch.equal(logits[0], model(x[:1]).logits[0]) and not logits[1].any()
        assert model(x, attention_mask=0 * mask, last_window=True).logits.shape == (2, 1, 61)
    model.generate(x, attention_mask=mask, max_new_tokens=2, do_sample=False, pad_token_id=0)


def test_the_calls_of_lm_evaluation_harness(tuned: tuple[Path, HybridLM]) -> None:
    """Those of its ``hf`` model (0.4): it is not installed here."""
    config = transformers.AutoConfig.from_pretrained(tuned[0], revision="main", trust_remote_code=False)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        tuned[0], revision="main", dtype="auto", trust_remote_code=False, device_map={"": "cpu"}, gguf_file=None
    )
    model.eval()
    model.tie_weights()
    assert config.model_type == model.config.model_type == "sleep_lightning" and model.device.type == "cpu"
    requests = [(tokens(1, 11)[0], tokens(1, 4)[0]), (tokens(1, 6)[0], tokens(1, 3)[0])]
    inputs = [torch.cat(pair)[:-1] for pair in requests]
    batch = torch.nn.utils.rnn.pad_sequence(inputs, batch_first=True)  # padded on the right, without a mask
    with torch.no_grad():
        scores = model(batch).logits.log_softmax(-1)
    for score, (context, continuation), x in zip(scores, requests, inputs, strict=True):
        logits = logits_of(tuned[1], torch.cat((x, x.new_zeros(-len(x) % 8)))[None], SLEEP)[0]
        at = torch.arange(len(context) - 1, len(x))
        expected = logits.log_softmax(-1)[at, continuation].sum()
        torch.testing.assert_close(score[at, continuation].sum(), expected, rtol=1e-4, atol=1e-4)

    class Stop(transformers.StoppingCriteria):  # type: ignore[misc]
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: object) -> torch.Tensor:
            return torch.full((len(input_ids),), input_ids.shape[1] >= 18)

    mask = torch.ones(2, 15, dtype=torch.int64)
    mask[1, :4] = 0
    generated = model.generate(
        input_ids=tokens(2, 15), attention_mask=mask, max_length=40, pad_token_id=0, use_cache=True, do_sample=False,
        stopping_criteria=transformers.StoppingCriteriaList([Stop()]),
    )  # fmt: skip
    plain = model.generate(tokens(2, 15), attention_mask=mask, max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert generated.shape[1] == 18 and torch.equal(generated, plain)
