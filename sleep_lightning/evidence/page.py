"""RESULTS.md: every number on it comes from the tables of scores and speeds."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from math import inf
from statistics import mean

from sleep_lightning.evidence.data_order import DataOrder
from sleep_lightning.evidence.findings import (
    DEEPER,
    DEPO,
    DEPO_PLAIN,
    LONGER,
    PASSES,
    RULE110,
    SIGNIFICANCE,
    SLEEP,
    STEPS,
    WANTED,
    Finding,
    Scores,
    hop_name,
    on_common_seeds,
)
from sleep_lightning.evidence.scores import ALL, RunScore, split_of
from sleep_lightning.evidence.statistics import Interval, difference
from sleep_lightning.evidence.throughput import Speed
from sleep_lightning.formatting import in_flop, with_unit
from sleep_lightning.sweep.solved import SOLVED, exact_text, wilson
from sleep_lightning.tables import markdown_table

PAPER = (
    ("Rule 110, N = 1", "accuracy falls steeply with t, from 4 to 16 (4 blocks, d = 256, 24 bits)", STEPS),
    ("Rule 110, N = 1 to 4", "t = 32: about .10, .20, above .30, above .30 after 5 billion tokens", RULE110),
    (
        "Depo, N = 1, 2, 4",
        "75 nodes, 10 blocks, d = 512: N = 1 stalls from 4 hops, N = 2 from 8, N = 4 begins at 16",
        DEPO,
    ),
)
"""What is compared, what the paper reports (arXiv:2605.26099, 6.1 and 6.2), and the sweep with ours."""
SCALES = {
    STEPS: "rings of 12 bits, t = 1 to 4, 4 blocks, d = 64",
    RULE110: "rings of 12 bits, t = 3, 4 blocks, d = 64",
    DEPO: "cycles of 8 nodes, 1 to 4 hops (the figures of an N, by hop), 4 blocks, d = 64",
}
"""Sizes, as in the sweeps' files."""
VARIES = {STEPS: "t = ", RULE110: "N = ", DEPO: "N = "}


def results_page(
    rows: Sequence[RunScore],
    findings: Sequence[Finding],
    speeds: Sequence[Speed],
    order: Sequence[DataOrder],
    pictures: Mapping[str, str],
    folder: str,
    *,
    planned: int,
) -> str:
    """The page as Markdown.

    Args:
        rows: all test scores.
        findings: from ``find``.
        speeds: all timed steps.
        order: whether the runs of a seed trained on the same data.
        pictures: file names by section.
        folder: where tables and pictures are, relative to the page.
        planned: number of runs when all are done.
    """
    s = Scores(rows)
    parts = [
        "# Results",
        "Written by `python -m sleep_lightning reproduce`; no number is typed by hand. Tables: "
        f"[scores.csv]({folder}/scores.csv)"
        + (f", [data_order.csv]({folder}/data_order.csv)" if order else "")
        + (f", [throughput.csv]({folder}/throughput.csv)" if speeds else "")
        + f". Scores are exact match on {split_of(rows)} with the final weights, means over seeds with 95% intervals "
        "(Student's t, clipped to possible values; Wilson's for shares of seeds). "
        f"{_pairing(order)} "
        "[How the sizes were found](docs/reproduction.md), and which seeds the search had seen, is a page of its own.",
        _spent(rows, planned),
        "## What holds",
        _findings(findings),
        "## At equal tokens, equal training FLOPs, equal cost of an answer",
        _bases(s, findings),
        "## Paper and ours",
        _against_the_paper(s),
    ]
    for title, section, tables in (
        ("## Rule 110", "rule110", [_table(s, STEPS, "t (N = 1)"), _table(s, RULE110, "t = 3")]),
        ("## Depo, by hops", "depo", [_table(s, DEPO, "trained as"), _losses(s), _gains(s)]),
        ("## Arms at their training FLOPs, and N at test against N at training", "controls", [_by_test_passes(s)]),
        ("## What a pass costs in time", "throughput", [_speeds(speeds)]),
    ):
        picture = f"![{title.removeprefix('## ')}]({folder}/{pictures[section]})" if section in pictures else ""
        parts += [title, *([part for part in (picture, *tables) if part] or ["Not run."])]
    return "\n\n".join(parts) + "\n"


def _spent(rows: Sequence[RunScore], planned: int) -> str:
    runs = {(row.sweep, row.level, row.seed): row for row in rows}.values()
    hours, flops = sum(row.wall_s for row in runs) / 3600, sum(row.train_flops for row in runs)
    count = f"{len(runs)} runs" if len(runs) >= planned else f"**Not finished: {len(runs)} of {planned} runs**"
    time = f"{hours:.1f} hours of run time, summed over runs, some of which shared the machine"
    return f"{count}, {in_flop(flops)}, {time}."


def _pairing(order: Sequence[DataOrder]) -> str:
    """What the paired tests assume."""
    differing = [f"{row.difference} (seed {row.seed})" for row in order if row.difference]
    if differing:
        return (
            "**Not all runs of a seed trained on the same data, which the tests below assume: "
            f"{'; '.join(differing)}.**"
        )
    compared, apart = sum(row.hashes for row in order), sum(row.apart > 0 for row in order)
    rest = f" Seeds whose runs on several machines are paired without such a comparison: {apart}." if apart else ""
    return (
        "Runs with the same task and seed trained on the same batches in the same order, over the steps they share: "
        f"{compared} hashes of the data were compared and agree.{rest}"
        if compared or apart
        else "No two runs share a task and a seed so far, so nothing is paired."
    )


def _findings(findings: Sequence[Finding]) -> str:
    lines = [[f.claim, f.source, f"**{f.verdict}**", f.figures, _p(f.p), _p(f.corrected)] for f in findings]
    after = (
        f"holds: as claimed, corrected p < {SIGNIFICANCE:g}; does not hold: the opposite, corrected p < "
        f"{SIGNIFICANCE:g}; not shown: neither, these seeds cannot decide. p is that of a permutation test within "
        "seeds, in both directions; with more than two levels, of a trend. Corrected: by Holm, for the "
        f"{len(findings)} claims, run or not. Most of those on one task share its runs of N = 4. A task is learned in "
        "jumps that come late or never, so that seeds form two clusters: look at the individual seeds, too."
    )
    return _markdown(["claim", "where", "verdict", "figures", "p", "corrected"], lines) + "\n\n" + after


def _bases(s: Scores, findings: Sequence[Finding]) -> str:
    """Verdicts by what is held equal."""
    verdicts = defaultdict(lambda: "**not run**", {f.claim: f"**{f.verdict}**" for f in findings})
    pass_ = "the same verdicts: an answer is one pass of the same blocks at every N"
    lines = [
        [f"{task}: more passes", verdicts[PASSES[sweep]], f"N = 4 against 1: {verdicts[LONGER[sweep]]}", pass_]
        for task, sweep in (("Rule 110, t = 3", RULE110), ("Depo", DEPO))
    ]
    deeper, own = s.select(RULE110, "deeper"), s.select(*SLEEP)
    if deeper and own:
        times = deeper[0].parameters / own[0].parameters
        cost = f"not equal: it has {times:.1f} times the parameters, and an answer runs them all"
        lines.append(["Rule 110, t = 3: N = 4 against a deeper net", "the same runs", verdicts[DEEPER], cost])
    header = ["claim", "equal tokens", "equal training FLOPs", "equal cost of an answer"]
    return "\n\n".join(part for part in (_markdown(header, lines), _cpus(s.rows)) if part)


def _cpus(rows: Sequence[RunScore]) -> str:
    """Levels of a sweep that were trained on different CPUs: seeds pair data, not the rounding of sums."""
    parts = []
    for sweep in dict.fromkeys(row.sweep for row in rows):
        by_level: dict[str, dict[int, str]] = {}
        for row in rows:
            if row.sweep == sweep and row.cpu:
                by_level.setdefault(row.level, {})[row.seed] = row.cpu
        counts = {level: Counter(cpus.values()) for level, cpus in by_level.items()}
        if len(set().union(*counts.values())) > 1:
            found = (f"{level} {' and '.join(f'{n} on {cpu}' for cpu, n in c.items())}" for level, c in counts.items())
            parts.append(f"{sweep}: {', '.join(found)}")
    said = "Arms trained on different CPUs, where sums in another order make another run of the same seed"
    return f"{said}: {'; '.join(parts)}." if parts else ""


def _p(p: float | None) -> str:
    return "-" if p is None else f"{p:.2g}"


def _against_the_paper(s: Scores) -> str:
    lines = []
    for what, paper, sweep in PAPER:
        levels = [level for level in s.levels(sweep) if level in WANTED[sweep]]
        ours = (
            "; ".join(f"{VARIES[sweep]}{level.removeprefix('n')}: {_means(s, sweep, level)}" for level in levels)
            or "not run"
        )
        lines.append([what, paper, ours, _scale(s, sweep)])
    return _markdown(["what", "paper", "ours (exact match)", "our scale"], lines)


def _means(s: Scores, sweep: str, level: str) -> str:
    """One mean, or one for each number of hops."""
    return ", ".join(f"{mean(s.of(sweep, level, part)):.3f}" for part in s.slices(sweep) or [ALL])


def _scale(s: Scores, sweep: str) -> str:
    found = [row for row in s.rows if row.sweep == sweep]
    if not found:
        return "-"
    parameters, tokens = {row.parameters for row in found}, {row.tokens for row in found}
    seeds = len({row.seed for row in found})
    counts = f"{with_unit(min(parameters))} parameters, {with_unit(min(tokens))} tokens, {seeds} seeds"
    return f"{SCALES[sweep]}; {counts}"


def _table(s: Scores, sweep: str, title: str) -> str:
    return _levels(s, sweep, title) if s.levels(sweep) else ""


def _levels(s: Scores, sweep: str, title: str) -> str:
    """A table of levels, with a column for each slice of the answers."""
    parts, lines = [ALL, *s.slices(sweep)], []
    for level in s.levels(sweep):
        rows, exact = s.select(sweep, level), s.of(sweep, level)
        cells = [str(Interval.of(s.of(sweep, level, part)).within(0, 1)) for part in parts]
        memory = with_unit(rows[0].memory_bytes, "B") if rows[0].memory_bytes else "-"
        size = [with_unit(rows[0].parameters), memory, in_flop(mean(row.train_flops for row in rows))]
        seeds = " ".join(map(exact_text, exact))
        lines.append([level, *size, *cells, _solved(exact), seeds, _baselines(rows)])
    shown = ["exact match", *(hop_name(part) for part in parts[1:]), f"seeds at {SOLVED} or above"]
    return _markdown(
        [title, "parameters", "fast weights", "training FLOPs", *shown, "by seed", "majority / uniform"], lines
    )


def _solved(exact: Sequence[float]) -> str:
    """Seeds that solve the task, and Wilson's interval of their share."""
    solved = sum(x >= SOLVED for x in exact)
    low, high = wilson(solved, len(exact))
    return f"{solved} of {len(exact)} [{low:.2f}, {high:.2f}]"


def _losses(s: Scores) -> str:
    """The loss by hops, as in the paper's Fig. 3."""
    parts = s.slices(DEPO)
    lines = [
        [level, *(str(Interval.of([row.loss for row in s.select(DEPO, level, part)]).within(0, inf)) for part in parts)]
        for level in s.levels(DEPO)
    ]
    return _markdown(["held-out loss, nats per label", *map(hop_name, parts)], lines)


def _gains(s: Scores) -> str:
    """Exact match over N = 1, paired by seed."""
    lines, parts = [], [ALL, *s.slices(DEPO)]
    for level in s.levels(DEPO):
        pairs = [on_common_seeds(s.by_seed(DEPO, level, part), s.by_seed(*DEPO_PLAIN, part)) for part in parts]
        if level != DEPO_PLAIN[1] and all(ours for ours, _ in pairs):
            lines.append([f"{level} - {DEPO_PLAIN[1]}", *(str(difference(*pair)) for pair in pairs)])
    return _markdown(["difference, seed by seed", "exact match", *map(hop_name, parts[1:])], lines)


def _by_test_passes(s: Scores) -> str:
    """The levels that were tested with several N."""
    lines = []
    for task, sweep in (("Rule 110, t = 3", RULE110), ("Depo", DEPO)):
        for level in s.levels(sweep):
            tested = sorted({row.test_passes for row in s.rows if (row.sweep, row.level) == (sweep, level)})
            for n in tested if len(tested) > 1 else ():
                rows = s.select(sweep, level, ALL, n)
                interval = Interval.of([row.exact_match for row in rows]).within(0, 1)
                lines.append([task, str(rows[0].train_passes), str(n), str(interval), _baselines(rows)])
    return _markdown(["task", "N at training", "N at test", "exact match", "majority / uniform"], lines)


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


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table; an empty string without lines."""
    return markdown_table(header, lines) if lines else ""
