"""How GSM-Infinite is scored by those who publish it, written from the code of Infini-AI-Lab/gsm_infinite (caa5388).

* ``pred/eval_realistic.py``: an answer to a medium or hard problem is right if its integer is that between "Answer: "
  and the full stop behind it in ``solution``. Here the answer is nothing but the integer, so exact match is the same.
* ``pred/eval_symbolic.py``: right if the set of names V... in the answer is that of ``answer_list``. There a language
  model finds the names in a reply that reasons; here the answer is the list.
* ``pred/pred.py`` and ``config.sh`` say which problems are taken (``published.published_mix``).
* ``app.py`` and ``docs/LEADERBOARDS.md``: the figures.
"""

import re
from collections.abc import Mapping
from itertools import pairwise

MEAN_TO = 30
"""Most operations that the published mean counts."""
_VARIABLE = re.compile(r"\bV\d+\b")


def same_answer(said: str, answer: str) -> bool:
    """The published judgement: the same variables in any order; where the answer has none, the same words."""
    if names := set(_VARIABLE.findall(answer)):
        return set(_VARIABLE.findall(said)) == names
    return _words(said) == _words(answer)


def _words(text: str) -> set[str]:
    return set(re.split(r"[\s,]+", text.strip(" .\n")))


def published_metrics(accuracy: Mapping[int, float]) -> dict[str, float | None]:
    """The published figures of accuracies (0 to 1) by number of operations (arXiv:2502.05252).

    ``auc``: 100 times the area under accuracy over operations, by trapezoids; ``mean_accuracy_to_30``: over operations
    up to 30; ``first_op_below_50`` and ``_10``: the fewest operations that are solved less often than that; None: there
    are none.
    """
    points = sorted(accuracy.items())
    area = 100 * sum((a + b) / 2 * (right - left) for (left, a), (right, b) in pairwise(points))
    below = {share: next((op for op, one in points if one < share / 100), None) for share in (50, 10)}
    counted = [one for op, one in points if op <= MEAN_TO]
    mean = sum(counted) / len(counted) if counted else None
    return {"auc": area, f"mean_accuracy_to_{MEAN_TO}": mean} | {f"first_op_below_{s}": op for s, op in below.items()}
