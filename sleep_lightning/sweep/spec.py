"""A sweep as a YAML: what varies, the objectives, the budget. All of it is validated before the first trial."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import inf
from pathlib import Path
from typing import Any, Literal, cast

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sleep_lightning.compare.arms import build_arms
from sleep_lightning.config import Experiment, Override, WrongValue, key_types, load_experiment, read_yaml
from sleep_lightning.config.checks import check_numbers, check_type
from sleep_lightning.config.reading import Argument, as_meant, first_line, literal
from sleep_lightning.config.references import References, refers
from sleep_lightning.cost.inference import inference_cost
from sleep_lightning.names import check_name
from sleep_lightning.sweep.launchers import RayOptions, SlurmOptions
from sleep_lightning.sweep.measures import BOUNDS, check_measure
from sleep_lightning.sweep.point import ARM, PASSES, STEPS, TRAIN_FLOPS, apply_point
from sleep_lightning.sweep.space import Parameter, Space, read_parameters
from sleep_lightning.sweep.storage import check_url

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


@dataclass
class Budget:
    trials: int = field(default=30, metadata={"high": 2**31 - 1})
    """Finished or pruned trials; failed and infeasible ones are replaced."""
    flops: float | None = None
    """Training FLOPs of all trials, failed ones included; null: no limit."""
    hours: float | None = None
    """Wall time in hours; null: no limit."""


@dataclass
class Reseed:
    seeds: int = field(default=0, metadata={"low": 0, "high": 2**16})
    """Most seeds of a point, those of the sweep included; 0: none are added."""
    confidence: float = field(default=0.95, metadata={"low": 0.5, "high": 1})
    """A point is decided if it is on the frontier, or off it, in this share of the resamples of the seeds."""
    flops: float | None = None
    """Training FLOPs of all further seeds; null: no limit of their own."""


@dataclass
class SweepSpec:
    name: str
    """Name of the sweep, its study and its MLflow parent run."""
    base: str
    """Experiment YAML that the points change; relative to the spec's folder."""
    space: dict[str, Parameter]
    """Keys that vary. arm: arms of compare, each a change of the base with the other values. train_flops: budgets
    of training FLOPs; max_steps is what they buy."""
    overrides: list[str] = field(default_factory=list)
    """key=value changes for all points."""
    objectives: dict[str, str] = field(default_factory=lambda: {"exact_match": "maximize", "train_flops": "minimize"})
    """Measures and their directions, maximize or minimize: exact_match, token_accuracy, loss, train_flops, wall_s,
    tokens_per_s, peak_memory_bytes, energy_j, or any logged metric by its whole name (val/hop_3/exact_match)."""
    sampler: Literal["tpe", "nsga2", "gp", "qmc", "random", "grid"] = "tpe"
    """Optuna's sampler, which proposes points."""
    sampler_seed: int = field(default=0, metadata={"low": 0, "high": 2**31 - 1})
    """Seed of the sampler."""
    seeds: list[int] = field(default_factory=lambda: [0], metadata={"low": 0, "high": 2**32 - 1})
    """Training seeds of every trial, a run for each; the result of the trial is their mean."""
    budget: Budget = field(default_factory=Budget)
    """When to stop."""
    reseed: Reseed = field(default_factory=Reseed)
    """Once no more points are tried: further seeds for those that decide the frontier."""
    constraints: dict[str, float] = field(default_factory=dict)
    """Upper bounds. A point above one that is known before step 0 (state_bytes, wake_flops_per_token,
    sleep_flops_per_window, train_flops) is not run; a trial above one on a measure counts, but not for the frontier."""
    pruner: Literal["none", "median", "frontier"] = "frontier"
    """Which trials are stopped early: by exact match over training FLOPs, so none with objectives of another kind."""
    workers: int = field(default=1, metadata={"high": 4096})
    """Runs at a time, each of another trial; with pruner: none also other seeds, once no trial is left to start."""
    threads: int = field(default=1, metadata={"high": 4096})
    """CPU threads of each run."""
    devices: list[int] | None = field(default=None, metadata={"high": 4096})
    """Indices of visible GPUs, from 0: each run sees one, that with the fewest runs; with more workers than GPUs, runs
    share them. null: no GPU is assigned, a run sees the same GPUs as the sweep."""
    retries: int = field(default=1, metadata={"high": 2**31 - 1})
    """How often a failed run is resumed from its last checkpoint. Failures after progress since the last start do not
    count, nor do those of the machine (a full disk, no memory, a lost node), which are waited for."""
    storage: str | None = None
    """Where trials are kept: null, a journal in the sweep's folder; postgresql+psycopg://user@host/database, its
    password in PGPASSWORD or ~/.pgpass; or sqlite:///file.db."""
    launcher: Literal["local", "slurm", "ray"] = "local"
    """Where runs are trained: as processes of this machine, as SLURM jobs, or on a Ray cluster (docs/ray.md)."""
    slurm: SlurmOptions = field(default_factory=SlurmOptions)
    """What a SLURM job asks for."""
    ray: RayOptions = field(default_factory=RayOptions)
    """The Ray cluster, and what a run asks of it."""

    def __post_init__(self) -> None:
        if self.storage is not None:
            self.storage = check_url(self.storage)
        for name, direction in self.objectives.items():
            if direction not in ("maximize", "minimize"):
                raise ValueError(f"objectives.{name}={direction!r} must be maximize or minimize")
        if not self.objectives:
            raise ValueError("objectives is empty; use {exact_match: maximize, train_flops: minimize}")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds={self.seeds} must be different numbers from 0")
        if (gpus := self.devices) is not None and (not gpus or len(set(gpus)) < len(gpus) or min(gpus) < 0):
            raise ValueError(f"devices={gpus} must be different numbers from 0, or null")
        if gpus is not None and self.launcher != "local":
            raise ValueError(f"devices={gpus} is for launcher: local; set slurm.gpus_per_node or ray.num_gpus instead")
        at_least = {"workers": (self.workers, 1), "threads": (self.threads, 1), "retries": (self.retries, 0)}
        at_least["budget.trials"] = (self.budget.trials, 1)
        for key, (value, low) in at_least.items():
            if value < low:
                raise ValueError(f"{key}={value} must be at least {low}")
        bounds = {f"budget.{key}": getattr(self.budget, key) for key in ("flops", "hours")}
        for key, bound in (bounds | {"reseed.flops": self.reseed.flops}).items():
            if bound is not None and not bound > 0:
                raise ValueError(f"{key}={bound} must be above 0, or null")


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
        broken = (f"{name} {known[name]:.4g} is above {most:.4g}" for name, most in bounds if known.get(name, 0) > most)
        return next(broken, None)


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
        _check_near_misses(content)
        check_type(SweepSpec, content)
        if missing := [key for key in ("name", "base", "space") if key not in content]:
            raise ValueError(f"{missing[0]} is missing")
        _check_base(content["base"], path.parent)
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


_MEANT = {"values": "choices", "options": "choices", "choice": "choices", "min": "low", "max": "high"}
"""Words of other tools for the keys of a parameter."""


def _check_near_misses(content: dict[str, Any]) -> None:
    """What is written as other tools have it. Raises ValueError, with what it is here."""
    space = content.get("space")
    for key, parameter in space.items() if isinstance(space, dict) else ():
        if isinstance(parameter, list):
            raise ValueError(f"space.{key}={parameter} must be a mapping; write {{choices: {parameter}}}")
        for name in parameter if isinstance(parameter, dict) else ():
            if (meant := _MEANT.get(name)) is not None:
                raise ValueError(f"space.{key}.{name}: there is no such key; did you mean {meant}?")


def _check_base(base: str, folder: Path) -> None:
    if "${" not in base and not (folder / base).exists():
        raise ValueError(f"base={base!r}: there is no {folder / base}; base is relative to the folder of this file")


def _plain(spec: SweepSpec) -> dict[str, Any]:
    plain: dict[str, Any] = literal(OmegaConf.to_container(OmegaConf.structured(spec)))
    return plain


def _change(content: dict[Any, Any], written: Any, overrides: Sequence[str]) -> None:
    for one in overrides:
        key, equals, text = one.partition("=")
        if not equals:
            raise ValueError(f"{one!r} is not key=value; write for example launcher=local")
        argument = Argument.of(text)
        *parents, name = key.split(".")
        for tree, value in ((content, argument.value), (written, argument)):
            for parent in parents:
                tree[parent] = tree[parent] if isinstance(tree.get(parent), dict) else {}
                tree = tree[parent]
            tree[name] = value


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
