"""Numbers as people read them."""


def with_unit(value: float) -> str:
    """``1234567 -> '1.23M'``; for tokens, bytes and FLOPs."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}Z"
