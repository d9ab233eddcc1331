"""Numbers as people read them."""


def with_unit(value: float) -> str:
    """``1234567 -> '1.23M'``; for tokens, bytes and FLOPs."""
    for unit in ("", "k", "M", "G", "T", "P", "E"):
        if abs(value) < 1000:
            return f"{value:.3g}{unit}"
        value /= 1000
    return f"{value:.3g}Z"


def duration(seconds: float) -> str:
    """``95 -> '1 min 35 s'``, ``5400 -> '1 h 30 min'``: an estimate is no better."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{minutes} min"
