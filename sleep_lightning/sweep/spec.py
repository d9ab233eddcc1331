"""A sweep, read from its YAML. All of it is checked before the first trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sleep_lightning.compare.arms import build_arms
from sleep_lightning.config import Experiment, Override, WrongValue, key_types, load_experiment, read_yaml
from sleep_lightning.config.checks import check_numbers, check_type
from sleep_lightning.config.reading import Argument, as_meant, first_line, literal
from sleep_lightning.config.references import References, refers
from sleep_lightning.cost.inference import inference_cost
from sleep_lightning.names import check_name
from sleep_lightning.sweep.keys import Budget as Budget
from sleep_lightning.sweep.keys import Reseed as Reseed
from sleep_lightning.sweep.keys import SweepSpec as SweepSpec
from sleep_lightning.sweep.measures import BOUNDS, check_measure, text_of
from sleep_lightning.sweep.near_misses import EXAMPLE, check_base, check_near_misses, looks_like_experiment
from sleep_lightning.sweep.point import ARM, PASSES, STEPS, TRAIN_FLOPS, apply_point
from sleep_lightning.sweep.space import Parameter, Space, read_parameters

OWN = {
    "training.seed": "list seeds in seeds",
    "training.run_dir": "give the sweep another name or --output",
    "training.threads": "set threads",
    "tracking.uri": "set it in overrides",
    "tracking.parent_run_id": "drop it",
}
"""Keys of a run that the sweep sets, with what to do instead of varying them."""
_RESOLVED = ("name", "base", "storage", "space", "overrides")
"""Keys that are saved with their values: they find the sweep's folder, storage and points again."""


@dataclass(frozen=True)
class Sweep:
    """A checked spec: its space, and its base experiment; of the spec, what was written as references."""

    spec: SweepSpec
    space: Space
    base: Experiment
    references: References = field(default_factory=References, repr=False, compare=False)

    def written_spec(self) -> dict[str, Any]:
        """The spec as plain containers: what is saved and logged. References to the environment are as they were
        written."""
        written: dict[str, Any] = self.references.put(_plain(self.spec))
        return written

    def experiment(self, values: dict[str, Any], *more: Override) -> Experiment:
        """The experiment of a point. Raises ValueError if its values do not go together."""
        experiment = apply_point(self.base, values, *more)
        if self.spec.launcher == "slurm":
            self.spec.slurm.check(experiment.training)
        elif self.spec.launcher == "ray":
            self.spec.ray.check(experiment.training)
        return experiment

    def varying(self) -> dict[str, list[object]]:
        """The keys that vary, each with its choices or bounds, and the base's value if it is conditional."""
        found: dict[str, list[object]] = {}
        base = self.base.flat()
        for key, p in self.space.parameters.items():
            if key == ARM:  # not a key of a run; most arms differ in this one
                found.setdefault(PASSES, [self.base.sleep.n_passes])
                continue
            if key == TRAIN_FLOPS:
                found.setdefault(STEPS, [self.base.training.max_steps])
                continue
            found[key] = [p.low, p.high] if p.choices is None else list(p.choices)
            found[key] += [base.get(key)] if p.when else []
        return found

    def why_infeasible(self, experiment: Experiment, train_flops: float) -> str | None:
        """The bound that the experiment violates; None if none."""
        return self._why_above(vars(inference_cost(experiment)) | {"train_flops": train_flops})

    def why_excluded(self, result: Mapping[str, float]) -> str | None:
        """The bound that a finished trial violates, or an unknown measure of it; None if none."""
        for name in self.spec.constraints.keys() - result.keys() - set(BOUNDS):
            return f"{name}, which constraints bound, was not logged"
        return self._why_above(result)

    def _why_above(self, known: Mapping[str, float]) -> str | None:
        bounds = self.spec.constraints.items()
        broken = next((one for one in bounds if known.get(one[0], 0) > one[1]), None)
        if broken is None:
            return None
        name, most = broken
        return f"{name} {text_of(name, known[name])} is above {text_of(name, most)}"


def load_sweep(path: str | Path, overrides: Sequence[str] = (), *, saved: bool = False) -> Sweep:
    """Read and check a sweep.

    Args:
        path: of its YAML.
        overrides: ``key=value`` changes of the YAML.
        saved: it is the copy in a sweep's folder, with the base of its time (``load_experiment``), and is taken as it
            stands: it was checked then, maybe less strictly than a new one is today.

    Raises:
        ValueError: one sentence naming the file, the key, the value and the fix.
    """
    path = Path(path)
    content, written = read_yaml(path, f"sweep {path}", "shipped sweeps are in sweeps/")
    if isinstance(content, dict) and overrides:
        _change(content, written, overrides)
    if not isinstance(content, dict):
        raise ValueError(f"sweep {path}, no keys in it; the keys are {', '.join(f.name for f in fields(SweepSpec))}")
    if content.get("launcher") == "workers":
        raise ValueError(
            f"sweep {path}: launcher=workers was removed, with sweep work; set launcher: ray, slurm or local (a sweep "
            f"that has begun: sweep resume NAME launcher=ray)"
        )
    content = as_meant(SweepSpec, content, written)
    try:
        missing = [key for key in ("name", "base", "space") if key not in content]
        if missing and looks_like_experiment(content):
            raise ValueError(
                f"it is an experiment, no sweep; train it: fit --config {path}, or name it as the base of a sweep"
            )
        check_near_misses(content)
        check_type(SweepSpec, content)
        if missing:
            raise ValueError(f"{missing[0]} is missing; write for example {missing[0]}: {EXAMPLE[missing[0]]}")
        check_base(content["base"], path.parent)
        check_numbers("", content, SweepSpec)
        if isinstance(changes := content.get("overrides"), list):  # they refer to the environment in the experiment
            content["overrides"] = [literal(one) if refers(str(one)) else one for one in changes]
        spec = cast(SweepSpec, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(SweepSpec), content)))
        references = References.of({key: x for key, x in content.items() if key not in _RESOLVED}, _plain(spec))
        base = load_experiment(path.parent / spec.base, spec.overrides, saved=saved).anchored()
        if not saved:
            check_name("name", spec.name)
            logs_more = bool(base.training.callbacks) or any(key.startswith("training.callbacks") for key in spec.space)
            for key in ("objectives", "constraints"):
                for name in getattr(spec, key):
                    check_measure(key, name, logs_more=logs_more)
            if own := [key for key in OWN if key in spec.space]:
                raise ValueError(f"space.{own[0]} cannot vary: the sweep sets it itself; {OWN[own[0]]}")
            types = key_types(base, spec.space) | {TRAIN_FLOPS: float}
            spec.space = read_parameters(types, spec.space, written["space"])
        sweep = Sweep(spec, Space(spec.space), base, references)
        if not {"training.devices", "training.num_nodes"} & spec.space.keys():
            sweep.experiment({})
        if not saved:
            _check_values(sweep)
    except OmegaConfBaseException as error:
        raise ValueError(f"sweep {path}, {error.full_key}: {first_line(error)}") from error
    except ValueError as error:
        raise ValueError(f"sweep {path}: {error}") from error
    return sweep


def _plain(spec: SweepSpec) -> dict[str, Any]:
    content: dict[str, Any] = literal(OmegaConf.to_container(OmegaConf.structured(spec)))
    return content


def _change(content: dict[Any, Any], written: Any, overrides: Sequence[str]) -> None:
    for one in overrides:
        key, equals, text = one.partition("=")
        if not equals:
            raise ValueError(f"{one!r} is not key=value; write for example launcher=local")
        argument = Argument.of(text)
        *parents, name = _place(content, key)
        for tree, value in ((content, argument.value), (written, argument)):
            for parent in parents:
                tree[parent] = tree[parent] if isinstance(tree.get(parent), dict) else {}
                tree = tree[parent]
            tree[name] = value


def _place(content: Mapping[Any, Any], key: str) -> list[str]:
    """The keys that lead to one: those of the space have dots, and may be new."""
    section, _, rest = key.partition(".")
    if section != "space" or not rest:
        return key.split(".")
    space = content.get("space")
    known = [name for name in space if f"{rest}.".startswith(f"{name}.")] if isinstance(space, dict) else []
    new, _, last = rest.rpartition(".")
    varied = max(known, key=len, default=new if last in {f.name for f in fields(Parameter)} else rest)
    return list(filter(None, (section, varied, *rest.removeprefix(varied).removeprefix(".").split(".", 1))))


def _check_values(sweep: Sweep) -> None:
    """Each key must exist and accept its choices or bounds; whether they are compatible depends on the point."""
    sweep.space.check_conditions()
    if sweep.spec.sampler == "grid":
        sweep.space.grid()
    for key, parameter in sweep.space.parameters.items():
        if key == ARM:
            if parameter.choices is None or not all(isinstance(name, str) for name in parameter.choices):
                raise ValueError(f"space.{ARM} must be choices of arms, for example {{choices: [n1, n4, re-embed]}}")
            build_arms(sweep.base, parameter.choices, f"space.{ARM}")
            continue
        ends = parameter.choices if parameter.choices is not None else [parameter.low, parameter.high]
        if key == TRAIN_FLOPS:
            for value in ends:
                if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < inf:
                    raise ValueError(f"space.{key}={value!r} must be a number of FLOPs above 0, for example 1.0e+12")
        refused = []
        for value in ends:
            try:
                sweep.experiment({key: value})
            except WrongValue as error:
                raise ValueError(f"space.{error}") from error
            except ValueError as error:
                refused.append(str(error))
        if len(refused) == len(ends) and not parameter.when and len(sweep.space.parameters) == 1:
            raise ValueError(f"space.{key}: no value can be used: {refused[0]}")
