"""``plan`` for people: a table, and what to change."""

from sleep_lightning.cli.console import parameters_line, plain_console, print_facts
from sleep_lightning.config import Experiment
from sleep_lightning.cost.plan import Plan, Way, own_passes
from sleep_lightning.formatting import duration, in_bytes, in_flop
from sleep_lightning.tables import Column, FittingTable


def show(
    experiment: Experiment, plan: Plan, memory: int, flops_per_s: float, where: str, tokenizer: str | None = None
) -> int:
    """Print it. Returns 0 if each N of the experiment's own fits somehow, else 1.

    Args:
        experiment: what was planned.
        plan: of it.
        memory: bytes of a GPU.
        flops_per_s: of all GPUs.
        where: GPUs and utilisation, for the title.
        tokenizer: what stands for the model's own, which is not there.
    """
    console, t = plain_console(), experiment.training
    columns = (
        *(Column("N"), Column("checkpointing", label=True), Column("per GPU"), Column("fits", label=True)),
        *(Column("run", 1), Column("time", 1)),
    )
    title = f"{experiment.model.described}, windows of {experiment.sleep.window_size}, batch {t.batch_size}, {where}"
    table = FittingTable(title, columns)
    for i, way in enumerate(plan.ways):
        if i and plan.ways[i - 1].n_passes != way.n_passes:
            table.add_section()
        fits = "yes" if way.nbytes <= memory else "no"
        seconds = duration(way.flops / flops_per_s)
        table.add_row(str(way.n_passes), way.checkpointing, in_bytes(way.nbytes), fits, in_flop(way.flops), seconds)
    console.print(table)
    facts = {
        "parameters": parameters_line(plan.parameters, plan.learning),
        "memory": f"{in_bytes(plan.state_bytes)} a sequence",
        "time": "at an assumed utilisation: give a measured one as --utilization (tokens/s and FLOPs are in MLflow)",
        "activations": "of torch's operations and the chunked rule; a GPU kernel of the rule keeps less",
    }
    if tokenizer is not None:
        whose = getattr(experiment.model, "pretrained", None) or "the model"
        facts["tokenizer"] = f"task.tokenizer={tokenizer} stands for that of {whose}, not there"
    for n, fitting in plan.fitting.items():
        facts[f"N = {n}"] = _advice(experiment, fitting, memory)
    print_facts(console, facts)
    return 1 if any(n in plan.fitting and plan.fitting[n] is None for n in own_passes(experiment)) else 0


def _advice(experiment: Experiment, way: Way | None, memory: int) -> str:
    if way is None:
        return (
            f"fits {in_bytes(memory)} in no way: more GPUs (training.sharding=full), a smaller sleep.window_size or "
            f"training.tbptt_windows"
        )
    t = experiment.training
    changed = [key for key in way.arguments() if key != f"training.checkpointing={t.checkpointing}"]
    changed += ["training.sampled_passes=[]"] if t.sampled_passes else []
    same = (way.checkpointing, way.accumulate) == (t.checkpointing, t.accumulate) and way.sharding in (
        t.sharding,
        "none",
    )
    return (
        f"fits as it is, {in_bytes(way.nbytes)}" if same else f"fits with {' '.join(changed)}, {in_bytes(way.nbytes)}"
    )
