"""Numbers as people read them."""


def with_unit(value: float, unit: str = "") -> str:
    """Three digits: ``1234567 -> '1.23M'``, with a unit ``'1.23 MFLOP'``; many seconds as a ``duration``."""
    if unit == "s" and value >= 1000:
        return duration(value)
    space = " " if unit else ""
    for prefix in ("", "k", "M", "G", "T", "P", "E"):
        if abs(float(f"{value:.3g}")) < 1000:
            return f"{value:.3g}{space}{prefix}{unit}"
        value /= 1000
    return f"{value:.3g}{space}Z{unit}"


def score(value: float) -> str:
    """An accuracy or a loss: ``0.74213 -> '0.742'``, ``0.000123 -> '0.000123'``."""
    return f"{value:.3f}" if not value or abs(value) >= 5e-3 else f"{value:.3g}"


def in_flop(value: float) -> str:
    """``8.52e9 -> '8.52 GFLOP'``."""
    return with_unit(value, "FLOP")


def in_flop_of(part: float, whole: float) -> str:
    """``3.41e12, 1.03e13 -> '3.41/10.3 TFLOP'``."""
    shown = in_flop(whole)
    prefix = shown.split()[1].removesuffix("FLOP")
    return f"{part / 1000 ** ' kMGTPEZ'.index(prefix or ' '):.3g}/{shown}"


def in_bytes(value: float) -> str:
    """``8192 -> '8.19 kB'``."""
    return with_unit(value, "B")


def duration(seconds: float) -> str:
    """``95 -> '1 min 35 s'``, ``5400 -> '1 h 30 min'``: an estimate is no better."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 1 else "< 1 s"
    if seconds < 600:
        return f"{int(seconds) // 60} min {int(seconds) % 60:02} s"
    return in_minutes(seconds)


def in_minutes(seconds: float) -> str:
    """``360 -> '6 min'``, ``5400 -> '1 h 30 min'``, ``4e5 -> '4.6 days'``."""
    minutes = round(seconds / 60)
    if minutes >= 72 * 60:
        days = minutes / (24 * 60)
        return f"{days:.1f} days" if days < 10 else f"{days:,.0f} days"
    if minutes < 60:
        return f"{minutes} min" if minutes else "< 1 min"
    return f"{minutes // 60} h {minutes % 60:02} min"
