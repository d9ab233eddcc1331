"""Rows of the table, picked out."""

from collections.abc import Iterable

from sleep_lightning.cli.doctor.finding import Finding


def sole(findings: Iterable[Finding]) -> Finding:
    """The only one."""
    (one,) = findings
    return one


def by_check(findings: Iterable[Finding]) -> dict[str, Finding]:
    return {one.check: one for one in findings}
