"""``--seconds``, of several commands."""

MOST_SECONDS = 1_000_000


def check_seconds(seconds: float) -> None:
    """Raises ValueError for a time that nothing can be measured in, or that never ends."""
    if not 0 < seconds <= MOST_SECONDS:
        raise ValueError(f"--seconds {seconds:g} must be a number above 0, at most {MOST_SECONDS}")
