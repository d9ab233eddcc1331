"""``validate`` and ``test``: scores of a checkpoint on held-out sequences; ``predict``: its answers."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from sleep_lightning.cli.console import arm_table, plain_console, print_facts, score_table, warning
from sleep_lightning.compare.beside import BESIDE, score_beside
from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.pass_count import PassCount
from sleep_lightning.formatting import in_flop
from sleep_lightning.model import WindowModel
from sleep_lightning.runs.files import write_json, write_text
from sleep_lightning.sleep import IGNORE
from sleep_lightning.tasks import Split, Task, TaskBatch
from sleep_lightning.training.evaluation import score_split
from sleep_lightning.training.metrics import Score
from sleep_lightning.training.prediction import decode
from sleep_lightning.training.published import published_scores


def evaluate(
    experiment: Experiment, model: WindowModel, split: Split, output: Path | None = None, *, of: str = ""
) -> int:
    """Print accuracy by slice beside the baselines; with ``output`` also write it as JSON."""
    N, tolerance, count, console = experiment.sleep.n_passes, experiment.sleep.tolerance, PassCount(), plain_console()
    scores = score_split(experiment, model, split, observe=None if tolerance is None else count.observe)
    passes = f"N={N}" if tolerance is None else f"N up to {N}"
    console.print(score_table(scores, ", ".join(filter(None, (split, passes, of)))))
    if facts := warning([scores["all"].accuracy]):
        print_facts(console, facts)
    content: dict[str, Any] = {"split": split, "n_passes": N}
    if (published := published_scores(experiment, model, split, scores)) is not None:
        content["published"] = published
        shown = {name: "none" if x is None else f"{x:.4g}" for name, x in published.items()}
        print_facts(console, {"published": ", ".join(f"{name.replace('_', ' ')} {x}" for name, x in shown.items())})
    if tolerance is not None:
        flops, whole = count.flops(experiment), sequence_cost(experiment).forward.total()
        content |= {"tolerance": tolerance, "passes": count.mean, "forward_flops": flops}
        spent = f"{in_flop(flops)} a sequence, {flops / whole:.0%} of N={N}"
        print_facts(console, {"passes": f"{count.mean:.2f} a window, mean", "forward": spent})
    if output is not None:
        write_json(output, content | {"slices": {name: _written(s) for name, s in scores.items()}})
    return 0


def evaluate_beside(
    model: WindowModel, changed: Mapping[str, Experiment], split: Split, output: Path | None = None, *, of: str = ""
) -> int:
    """Print the accuracy of every arm (``compare.beside``) by slice beside the baselines; also as JSON."""
    scores, console = score_beside(model, changed, split), plain_console()
    console.print(arm_table(scores, ", ".join(filter(None, (split, of)))))
    facts = {name: BESIDE[name].about for name in scores}
    print_facts(console, facts | warning(slices["all"].accuracy for slices in scores.values()))
    if output is not None:
        arms = {arm: {name: _written(s) for name, s in slices.items()} for arm, slices in scores.items()}
        write_json(output, {"split": split, "arms": arms})
    return 0


def _written(score: Score) -> dict[str, Any]:
    return asdict(score) | {"perplexity": score.perplexity}


def predict(experiment: Experiment, model: WindowModel, rows: int, output: Path | None = None) -> int:
    """Answer sequences of the test split, each token from the model's own answers before; JSON lines."""
    task = experiment.task.build()
    batch = task.batch(rows, seed=0, position=0, split="test").to(next(model.parameters()).device)
    answers = decode(model, batch, experiment.sleep)
    lines = [json.dumps(line) for line in _lines(task, batch, answers)]
    if output is None:
        print("\n".join(lines))
    else:
        write_text(output, "\n".join(lines) + "\n")
    return 0


def _lines(task: Task, batch: TaskBatch, answers: Tensor) -> Iterator[dict[str, Any]]:
    tokenizer: Any = getattr(task, "tokenizer", None)
    context, vocab = task.context_length, task.vocab

    def written(tokens: Tensor) -> str:
        return " ".join(vocab[i] for i in tokens) if tokenizer is None else tokenizer.decode(tokens.tolist())

    for tokens, labels, answer in zip(batch.tokens, batch.labels, answers, strict=True):
        spoken = labels != IGNORE
        asked = [t for t in range(context, len(tokens)) if not spoken[t - 1]]  # a token behind a label is an answer
        yield {
            "context": written(tokens[:context]),
            "questions": written(tokens[asked]),
            "answer": [vocab[i] for i in answer[spoken]],
            "label": [vocab[i] for i in labels[spoken]],
            "exact_match": bool((answer[spoken] == labels[spoken]).all()),
        }
