"""Small tokenizers of every kind, trained on the spot, in directories as pretrained models have them."""

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

TEXT = "the a cat dog garden house key box red blue where who is in of Question Answer user assistant 0 1 2 3 4 5"
WORDS = TEXT.split(" ")
CHAT = (
    "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
KINDS = ("bytes", "bpe", "bpe_bos", "bpe_one_special", "sentencepiece", "sentencepiece_bos")


def corpus() -> Iterator[str]:
    for i in range(200):
        yield " ".join(WORDS[(i * 7 + j * j) % len(WORDS)] for j in range(20)) + ".\nQuestion: who?\nAnswer: a cat"


def save(kind: str, folder: Path, texts: Iterable[str] = (), vocab_size: int = 400) -> str:
    """A tokenizer of a kind; its ``task.tokenizer``. One of ``bpe`` knows the words of further texts."""
    if kind == "bytes":
        return kind
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

    tokenizer: Any
    options: Any = {"show_progress": False}
    if kind.startswith("bpe"):
        specials = ["<|end|>"] if kind == "bpe_one_special" else ["<|start|>", "<|end|>", "<unk>"]
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer: Any = trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=specials, initial_alphabet=alphabet, **options
        )
    else:  # as Llama's: bytes for what is unknown, a mark before every text
        specials = ["<unk>", "<s>", "</s>"]
        tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        tokenizer.decoder = decoders.Sequence(steps)
        specials += [f"<0x{i:02X}>" for i in range(256)]
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, **options)
    tokenizer.train_from_iterator((text.replace("\n", " ") for text in chain(corpus(), texts)), trainer)
    names = {"eos_token": "</s>" if "piece" in kind else "<|end|>"}
    if kind != "bpe_one_special":
        names |= {"unk_token": "<unk>", "bos_token": "<s>" if "piece" in kind else "<|start|>"}
    if kind.endswith("_bos"):
        bos = names["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)
    if kind == "bpe":
        fast.chat_template = CHAT
    fast.save_pretrained(folder / kind)
    return str(folder / kind)
