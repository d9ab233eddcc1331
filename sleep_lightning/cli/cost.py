"""``cost``: what an experiment will take, before its first step."""

from sleep_lightning.cli.console import parameters_line, plain_console, print_facts, time_line
from sleep_lightning.config import Experiment
from sleep_lightning.cost.flops import sequence_cost
from sleep_lightning.cost.inference import inference_cost, state_bytes
from sleep_lightning.cost.run_flops import StepFlops
from sleep_lightning.cost.step_memory import predict_process_memory, predict_step_memory
from sleep_lightning.formatting import in_bytes, in_flop, with_unit
from sleep_lightning.model import WindowModel
from sleep_lightning.model.parameter_groups import counted_parameters
from sleep_lightning.tables import Column, FittingTable
from sleep_lightning.training.rate import training_rate


def cost(experiment: Experiment) -> int:
    """Print FLOPs of a training step by component, pass and kind of window, of the whole run, and of inference."""
    console = plain_console()
    t, task = experiment.training, experiment.task.build()
    model = experiment.build_model(task)
    each, step = sequence_cost(experiment), t.batch_size
    step_flops = StepFlops(experiment, model)
    muon = step_flops.optimizer
    whole = step * each.total + muon

    title = f"FLOPs of a training step: {step} sequences of {task.sequence_length} tokens"
    table = FittingTable(title, (Column("", label=True), Column("forward"), Column("backward"), Column("share")))
    for name in each.forward:
        ahead, back = step * each.forward[name], step * each.backward[name]
        table.add_row(name.replace("_", " "), in_flop(ahead), in_flop(back), f"{(ahead + back) / whole:.1%}")
    if t.uses_muon:
        table.add_row("Muon", in_flop(muon), "", f"{muon / whole:.1%}")
    table.add_section()
    groups = [
        [(f"pass {n}", flops) for n, flops in enumerate(each.by_pass, 1)],
        [("sleeping windows", each.sleeping), ("windows with answers", each.answering)],
    ]
    for group in groups:
        for name, (ahead, back) in group:
            table.add_row(
                name,
                in_flop(step * ahead),
                in_flop(step * back),
                f"{step * (ahead + back) / whole:.1%}",
            )
        table.add_section()
    console.print(table)

    inference = inference_cost(experiment)
    kinds = ", ".join(f"{kind} {in_bytes(n)}" for kind, n in state_bytes(experiment).items())
    print_facts(
        console,
        {
            "step": in_flop(whole),
            "run": f"{in_flop(step_flops.run())} in {t.max_steps} steps, "
            f"{with_unit(t.max_steps * step * task.sequence_length)} tokens",
            "parameters": parameters_line(*counted_parameters(model)),
            "awake": f"{in_flop(inference.wake_flops_per_token)} a token",
            "asleep": f"{in_flop(inference.sleep_flops_per_window)} a window of {experiment.sleep.window_size}",
            "time": time_line(step_flops.run(), training_rate(experiment)),
            "training": _memory(experiment, model),
            "measured": "fit records wall time, tokens/s, peak memory, and energy where the machine reports it",
            "memory": f"{in_bytes(inference.state_bytes)} a sequence" + (f" ({kinds})" if kinds else ""),
        },
    )
    return 0


def _memory(experiment: Experiment, model: WindowModel) -> str:
    step, t = predict_step_memory(experiment, model), experiment.training
    if step is None:
        return "peak memory cannot be predicted"
    process = in_bytes(predict_process_memory(experiment, model, step))
    grows = (
        ""
        if t.accelerator == "cuda"
        else f"; on the CPU the process grows by about {process}, code that loads included"
    )
    return f"{in_bytes(step)} of tensors at the peak of a step{grows}"
