"""Whether runs saw the same training data in the same order: hashes of all batches so far, step by step."""

from collections.abc import Mapping


def first_difference(digests: Mapping[str, Mapping[str, str]]) -> tuple[int, str]:
    """Compare every run with the first that has a step, as far as both go.

    Args:
        digests: by run, by step: hash of the training data up to there (``data_digests`` of a fit's summary).

    Returns:
        hashes compared, and what differs first, or ``""``.
    """
    compared, known = 0, dict[str, tuple[str, str]]()
    for run, by_step in digests.items():
        for step, digest in by_step.items():
            first, expected = known.setdefault(step, (run, digest))
            if expected != digest:
                return compared, f"{first} and {run} saw different data up to step {step}"
            compared += first != run
    return compared, ""
