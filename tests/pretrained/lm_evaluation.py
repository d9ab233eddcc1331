"""lm-evaluation-harness on a model and on its export: ``python -m tests.pretrained.lm_evaluation [MODEL [LIMIT]]``.

Writes local tasks (last words, choices, generation; short contexts and long ones), exports MODEL (a directory; without
it a tiny random llama) with new memory in one window, in windows and, its weights moved, in windows, and compares what
the harness's ``hf`` makes of them, batch 1 and 4. It takes ``lm_eval`` and no network.
"""

import json
import logging
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

import sleep_lightning.pretrained.auto  # noqa: F401
from sleep_lightning.pretrained import export, load_pretrained
from sleep_lightning.sleep import SleepConfig

NAMES = ["Anna", "Ben", "Clara", "David", "Emma", "Frank", "Greta", "Henry"]
PLACES = ["garden", "kitchen", "library", "market", "office", "park", "school", "station"]
ROWS = 8
LONGEST, WINDOW = 4096, 128
SENTENCES = {"short": (0, 1), "long": (5, 12)}
"""Of a context: short ones fit one window."""
_SCORED = "metric_list:\n  - metric: {}\n    aggregation: mean\n    higher_is_better: true\n"
KINDS = {
    "last_word": "output_type: loglikelihood\ndoc_to_target: ' {{answer}}'\n" + _SCORED.format("acc"),
    "choice": "output_type: multiple_choice\ndoc_to_choice: '{{choices}}'\ndoc_to_target: gold\n"
    + _SCORED.format("acc"),
    "generate": "output_type: generate_until\ndoc_to_target: '{{answer}}'\n"
    "generation_kwargs: {until: ['.', '\\n'], max_gen_toks: 12, do_sample: false}\n" + _SCORED.format("exact_match"),
}
Answers = dict[tuple[str, int], list[Any]]


def write_tasks(folder: Path) -> None:
    """A YAML and its JSON lines for each kind and length."""
    rng = random.Random(0)
    for length, (least, most) in SENTENCES.items():
        rows = list(_rows(rng, least, most))
        for kind, body in KINDS.items():
            data = folder / f"{kind}_{length}.jsonl"
            data.write_text("".join(json.dumps(row) + "\n" for row in rows))
            head = f"task: {kind}_{length}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\n"
            frame = "test_split: test\ndoc_to_text: '{{context}}'\nmetadata: {version: 1.0}\n"
            (folder / f"{kind}_{length}.yaml").write_text(head + frame + body)


def _rows(rng: random.Random, least: int, most: int) -> Iterator[dict[str, Any]]:
    for _ in range(ROWS):
        who, where = rng.choice(NAMES), rng.choice(PLACES)
        texts = [f"{rng.choice(NAMES)} read about the {rng.choice(PLACES)}." for _ in range(rng.randint(least, most))]
        texts.insert(len(texts) // 3, f"{who} lost a key in the {where}.")
        context = " ".join(texts) + f" The key of {who} is in the"
        yield {"context": context, "answer": where, "choices": PLACES, "gold": PLACES.index(where)}


def write_tiny(folder: Path) -> None:
    """A random llama with a byte-level tokenizer."""
    from tests.pretrained.snapshots import write
    from tests.tasks.text.tokenizers import save

    write("llama", folder, vocab_size=400, max_position_embeddings=LONGEST)
    shutil.copytree(save("bpe", folder.parent / "tokenizer"), folder, dirs_exist_ok=True)


def write_exports(base: Path, folder: Path, every: int) -> None:
    """``one``: all in a window; ``new``: in windows; ``moved``: in windows, with a memory that says something."""
    model = load_pretrained(base, {"every": every})
    export(model, folder / "one", SleepConfig(LONGEST, 2))
    export(model, folder / "new", SleepConfig(WINDOW, 2))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("mixer.out_proj.weight") and not parameter.any():
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)), alpha=0.02)
    export(model, folder / "moved", SleepConfig(WINDOW, 2))


def answers(model: Path, tasks: Path, length: str, batch: int) -> Answers:
    """What the harness was given for every document: log-likelihoods, or a text."""
    harness, manager = import_module("lm_eval"), import_module("lm_eval.tasks").TaskManager(include_path=str(tasks))
    names = [f"{kind}_{length}" for kind in KINDS]
    found = harness.simple_evaluate(
        model="hf", model_args={"pretrained": str(model), "dtype": "float32", "max_length": LONGEST}, tasks=names,
        batch_size=batch, device="cpu", task_manager=manager, bootstrap_iters=0,
    )  # fmt: skip
    return {(name, one["doc_id"]): [x[0] for x in one["resps"]] for name in names for one in found["samples"][name]}


def differ(some: Answers, others: Answers) -> tuple[float, int]:
    """Largest difference of log-likelihoods, as a share, and the number of texts and greedy flags that differ."""
    worst, texts = 0.0, 0
    for key, mine in some.items():
        for x, y in zip(mine, others[key], strict=True):
            if isinstance(x, str):
                texts += x != y
                continue
            worst = max(worst, abs(float(x[0]) - float(y[0])) / max(1.0, abs(float(x[0]))))
            texts += str(x[1]) != str(y[1])
    return worst, texts


def compare(folder: Path, base: Path | None) -> Iterator[tuple[str, tuple[float, int]]]:
    """What was compared, and ``differ`` of it."""
    tasks, every = folder / "tasks", 4
    tasks.mkdir()
    write_tasks(tasks)
    if base is None:
        base, every = folder / "base", 2
        write_tiny(base)
    write_exports(base, folder, every)
    for batch in (1, 4):
        for length, name in (("short", "one"), ("short", "new"), ("long", "one")):
            both = (answers(path, tasks, length, batch) for path in (base, folder / name / "sleep"))
            yield f"base and {name}, {length}, batch {batch}", differ(*both)
    windows = [answers(folder / "moved" / "sleep", tasks, "long", batch) for batch in (1, 4)]
    yield "moved, long, batch 1 and 4", differ(*windows)
    yield "base and moved, long, batch 1", differ(answers(base, tasks, "long", 1), windows[0])


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    if len(sys.argv) > 2:
        ROWS = int(sys.argv[2])
    with tempfile.TemporaryDirectory() as place:
        for what, (worst, texts) in compare(Path(place), Path(sys.argv[1]) if len(sys.argv) > 1 else None):
            print(f"{what}: {worst:.1e} of a log-likelihood at most, {texts} texts differ", flush=True)
