"""Whether runs trained on the same data in the same order, by hashes of all batches so far."""

from collections.abc import Mapping


def first_difference(digests: Mapping[str, Mapping[str, str]]) -> tuple[int, str]:
    """Compare every run with the first that has a step, over the steps that they share.

    Args:
        digests: run -> step -> hash of the training data up to that step (``data_digests`` of a fit's summary).

    Returns:
        The number of hashes compared, and the first difference (``""`` if there is none).
    """
    compared, known = 0, dict[str, tuple[str, str]]()
    for run, by_step in digests.items():
        for step, digest in by_step.items():
            first, expected = known.setdefault(step, (run, digest))
            if expected != digest:
                return compared, f"{first} and {run} saw different data up to step {step}"
            compared += first != run
    return compared, ""
