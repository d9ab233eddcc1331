"""RESULTS.md: every figure on it comes from the tables of scores and speeds."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean

from sleep_lightning.evidence.findings import CONTROLS, DEPO, LEVEL_OF_DOUBT, PASSES, STEPS, Finding, Scores
from sleep_lightning.evidence.scores import ALL, RunScore
from sleep_lightning.evidence.statistics import Interval
from sleep_lightning.evidence.throughput import Speed
from sleep_lightning.training.progress import with_unit

PAPER = (
    ("Rule 110, N = 1", "accuracy falls steeply with t, from 4 to 16 (4 blocks, d = 256, 24 bits)", STEPS),
    ("Rule 110, N = 1 to 4", "t = 32: about .10, .20, above .30, above .30 after 5 billion tokens", PASSES),
    (
        "Depo, N = 1, 2, 4",
        "75 nodes, 10 blocks, d = 512: N = 1 stalls from 4 hops, N = 2 from 8, N = 4 begins at 16",
        DEPO,
    ),
)
"""What is compared, what the paper prints (arXiv:2605.26099, 6.1 and 6.2), and where ours is."""


def results_page(
    rows: Sequence[RunScore],
    findings: Sequence[Finding],
    speeds: Sequence[Speed],
    pictures: Mapping[str, str],
    folder: str,
    *,
    planned: int,
) -> str:
    """The page as Markdown.

    Args:
        rows: all test scores.
        findings: what ``find`` says of them.
        speeds: all timed steps.
        pictures: file names by section.
        folder: where tables and pictures lie, as seen from the page.
        planned: runs there are when all is done.
    """
    s = Scores(rows)
    parts = [
        "# Results",
        "Written by `python -m sleep_lightning reproduce` from its runs; no figure is typed by hand. Tables: "
        f"[scores.csv]({folder}/scores.csv), [throughput.csv]({folder}/throughput.csv). Scores are exact match on the "
        "test split with the final weights, means over seeds with 95% intervals (Student's t, cut to 0 and 1); p is of "
        "a one-sided permutation test within seeds, not corrected for their number. The runs of a seed have the same "
        "data in the same order.",
        _spent(rows, planned),
        "## What holds",
        _findings(findings),
        "## Paper and ours",
        _against_the_paper(s),
    ]
    for title, section, tables in (
        ("## Rule 110", "rule110", [_table(s, STEPS, "t (N = 1)"), _table(s, PASSES, "N (hardest t)")]),
        ("## Depo, by hops", "depo", [_table(s, DEPO, "trained as", slices=True)]),
        (
            "## Controls, and N at test against N at training",
            "controls",
            [_table(s, CONTROLS, "trained as", slices=True), _by_test_passes(s)],
        ),
        ("## What a pass costs in time", "throughput", [_speeds(speeds)]),
    ):
        picture = f"![{title.removeprefix('## ')}]({folder}/{pictures[section]})" if section in pictures else "Not run."
        parts += [title, picture, *(table for table in tables if table)]
    return "\n\n".join(parts) + "\n"


def _spent(rows: Sequence[RunScore], planned: int) -> str:
    runs = {(row.sweep, row.level, row.seed): row for row in rows}.values()
    hours, flops = sum(row.wall_s for row in runs) / 3600, sum(row.train_flops for row in runs)
    count = f"{len(runs)} runs" if len(runs) >= planned else f"**Not finished: {len(runs)} of {planned} runs**"
    return f"{count}, {with_unit(flops)}FLOP, {hours:.1f} hours of single runs (two at a time: half as long)."


def _findings(findings: Sequence[Finding]) -> str:
    lines = [[f.claim, f.source, f"**{f.verdict}**", f.figures] for f in findings]
    after = (
        f"holds: as claimed, with p < {LEVEL_OF_DOUBT:g}; not shown: in that direction, but these seeds cannot tell; "
        "does not hold: not in that direction."
    )
    return _markdown(["claim", "where", "verdict", "figures"], lines) + "\n\n" + after


def _against_the_paper(s: Scores) -> str:
    lines = []
    for what, paper, sweep in PAPER:
        levels = [level for level in s.levels(sweep) if sweep != DEPO or level in ("n1", "n2", "n4")]
        ours = ", ".join(f"{level}: {mean(s.of(sweep, level)):.3f}" for level in levels) or "not run"
        lines.append([what, paper, ours, _scale(s, sweep)])
    return _markdown(["what", "paper", "ours (exact match)", "our scale"], lines)


def _scale(s: Scores, sweep: str) -> str:
    found = [row for row in s.rows if row.sweep == sweep]
    if not found:
        return "-"
    parameters, tokens = {row.parameters for row in found}, {row.tokens for row in found}
    seeds = len({row.seed for row in found})
    return f"{with_unit(min(parameters))} parameters, {with_unit(min(tokens))} tokens, {seeds} seeds"


def _table(s: Scores, sweep: str, name: str, *, slices: bool = False) -> str:
    lines, parts = [], [ALL, *(s.slices(sweep) if slices else [])]
    for level in s.levels(sweep):
        rows = s.select(sweep, level)
        seeds = " ".join(f"{x:.3f}" for x in s.of(sweep, level))
        cells = [str(Interval.of(s.of(sweep, level, part)).within(0, 1)) for part in parts]
        lines.append([level, with_unit(rows[0].train_flops), *cells, seeds, _baselines(rows)])
    shown = ["exact match", *(part.replace("_", " ") for part in parts[1:])]
    return _markdown([name, "training FLOPs", *shown, "by seed", "majority / uniform"], lines) if lines else ""


def _by_test_passes(s: Scores) -> str:
    lines = []
    for level in s.levels(DEPO):
        for n in sorted({row.test_passes for row in s.rows if (row.sweep, row.level) == (DEPO, level)}):
            rows = s.select(DEPO, level, ALL, n)
            interval = Interval.of([row.exact_match for row in rows]).within(0, 1)
            lines.append([level, str(rows[0].train_passes), str(n), str(interval), _baselines(rows)])
    return (
        _markdown(["trained as", "N at training", "N at test", "exact match", "majority / uniform"], lines)
        if lines
        else ""
    )


def _baselines(rows: Sequence[RunScore]) -> str:
    return f"{mean(row.majority for row in rows):.3f} / {mean(row.uniform for row in rows):.3f}"


def _speeds(speeds: Sequence[Speed]) -> str:
    if not speeds:
        return ""
    lines = [
        [
            x.question,
            str(x.n_passes),
            str(x.window_size),
            f"{x.tokens_per_s:.0f}",
            f"{x.times_slower:.2f}",
            f"{x.flops_ratio:.2f}",
        ]
        for x in speeds
    ]
    header = ["question", "N", "tokens in a window", "tokens/s", "times the time of the first", "times its FLOPs"]
    conditions = f"Training steps, fp32, batch 32, d = 128, {speeds[0].threads} threads; medians of at least "
    return _markdown(header, lines) + f"\n\n{conditions}{min(x.rounds for x in speeds)} interleaved rounds."


def _markdown(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
