"""The Optuna study of a sweep, in the sweep's storage, and its sampler."""

import json
import shlex
import uuid
import warnings
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from sleep_lightning.config import load_experiment
from sleep_lightning.frontier import Point
from sleep_lightning.runs.damage import read_json, reading
from sleep_lightning.runs.files import write_json
from sleep_lightning.sweep.point import point_key
from sleep_lightning.sweep.space import Space
from sleep_lightning.sweep.spec import Sweep, SweepSpec
from sleep_lightning.sweep.storage import JOURNAL, REMEDY, is_sweep, open_storage, saved_name, saved_url

FINGERPRINT = "definition"
OWNER, OWNER_FILE = "owner", "study.json"
DIVERGED, AGAIN = "diverged", "again"
"""Of a trial that failed: no other try would end otherwise. Of one at a point where another failed: its number."""
DIVERGED_SEED = "diverged_seed"
"""Of a trial that failed because training diverged: with which seed."""


def open_study(sweep: Sweep, folder: Path, undo: ExitStack | None = None) -> optuna.Study:
    """The sweep's study, created or loaded.

    Args:
        sweep: whose it is.
        folder: of the sweep.
        undo: gets what deletes the study, if it is created here.

    Raises:
        ValueError: the folder or the storage holds a study of another search, is damaged, or cannot be used.
    """
    with reading(folder / JOURNAL, REMEDY):
        return _open_study(sweep, folder, undo or ExitStack())


def _open_study(sweep: Sweep, folder: Path, undo: ExitStack) -> optuna.Study:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        moved = _check_place(sweep.spec, folder)
        storage = open_storage(sweep.spec.storage, folder, to_write=True)
        known = optuna.get_all_study_names(storage)
        if moved and sweep.spec.name not in known:
            raise ValueError(f"storage={sweep.spec.storage!r} does not hold the sweep {sweep.spec.name} of {folder}")
        names = known if sweep.spec.storage is None else []
        if others := [name for name in names if name != sweep.spec.name]:
            raise ValueError(f"{folder} holds the sweep {others[0]}, not {sweep.spec.name}; choose another --output")
        study = _load_or_create(sweep.spec, storage, known, undo)
        study.sampler = build_sampler(sweep.spec, sweep.space, len(study.get_trials(deepcopy=False)))
        _check_owner(study, sweep.spec, folder)
        if not study.get_trials(deepcopy=False) and (runs := sorted(folder.glob("trials/*/config.yaml"))):
            raise ValueError(
                f"{folder}: the trials of {sweep.spec.storage or JOURNAL} are gone, though {runs[-1].parent} was "
                f"trained; restore it, or choose another --output"
            )
    except OSError as error:
        raise ValueError(f"{folder} cannot hold the sweep: {error.strerror}; choose another --output") from error
    wanted = definition(sweep)
    found = _comparable(_in_full(study.user_attrs.get(FINGERPRINT, wanted)))
    if found != (same := _comparable(wanted)):
        changed = next(key for key in same if found.get(key) != same[key])
        raise ValueError(
            f"{folder} holds a sweep named {sweep.spec.name} with another {changed}; resume that one as it is "
            f"(sweep resume {shlex.quote(str(folder))}), or give this one another name or --output"
        )
    if FINGERPRINT not in study.user_attrs:
        if sweep.spec.sampler == "grid":
            _enqueue(study, sweep.space.points())
        study.set_user_attr(FINGERPRINT, wanted)
    elif sweep.spec.sampler == "grid":
        _enqueue_failed(study)
    return study


def _load_or_create(spec: SweepSpec, storage: BaseStorage, known: Sequence[str], undo: ExitStack) -> optuna.Study:
    if spec.name not in known:
        directions = [StudyDirection[way.upper()] for way in spec.objectives.values()]
        with suppress(DuplicatedStudyError):  # another process has just created it
            study = optuna.create_study(storage=storage, study_name=spec.name, directions=directions)
            undo.callback(optuna.delete_study, study_name=spec.name, storage=storage)
            return study
    return optuna.load_study(study_name=spec.name, storage=storage)


def _enqueue(study: optuna.Study, points: Sequence[dict[str, Any]]) -> None:
    """Those that are not enqueued yet. Optuna's ``skip_if_exists`` compares each with all trials."""
    known = {point_key(t.system_attrs.get("fixed_params", t.params)) for t in study.get_trials(deepcopy=False)}
    for point in points:
        if point_key(point) not in known:
            study.enqueue_trial(point)


def _enqueue_failed(study: optuna.Study) -> None:
    """Points of a grid whose last trial failed are tried once more, unless training diverged: it would again."""
    last: dict[str, FrozenTrial | None] = {}
    for trial in study.get_trials(deepcopy=False):
        if (point := trial.user_attrs.get("values", trial.system_attrs.get("fixed_params"))) is None:
            continue
        over = "infeasible" in trial.user_attrs or has_diverged(trial)
        last[point_key(point)] = trial if trial.state == TrialState.FAIL and not over else None
    for failed in last.values():
        if failed is not None and (values := failed.user_attrs.get("values")) is not None:
            study.enqueue_trial(values, user_attrs={AGAIN: failed.number})


def has_diverged(trial: FrozenTrial) -> bool:
    """Whether it failed as any other try of its point would."""
    return DIVERGED in trial.user_attrs or DIVERGED in trial.user_attrs.get("failed", "")


def _check_place(spec: SweepSpec, folder: Path) -> bool:
    """A folder holds one sweep, in one storage. Returns whether that database has moved; ``_check_owner`` then asks
    whether it is the same one."""
    known, name = saved_url(folder), saved_name(folder)
    same_name = known is None or name == spec.name  # a journal says itself whose it is
    if not is_sweep(folder) or (known == spec.storage and same_name):
        return False
    if same_name and None not in (known, spec.storage) and (folder / OWNER_FILE).exists():
        return True
    raise ValueError(f"{folder} holds the sweep {name or ''} with storage {known or 'null'}; choose another --output")


def _check_owner(study: optuna.Study, spec: SweepSpec, folder: Path) -> None:
    """In a shared database a study belongs to one folder, even if that is moved: two supervisors must not run it."""
    if spec.storage is None:
        return
    file = folder / OWNER_FILE
    if not file.exists():
        write_json(file, {OWNER: uuid.uuid4().hex})
    ours = read_json(file, {OWNER: str}, "restore it, or start again under another name")[OWNER]
    theirs, where = study.user_attrs.get(OWNER, (ours, ""))
    if theirs != ours:
        raise ValueError(
            f"storage={spec.storage!r} holds a sweep named {spec.name} already, that of {where}; give this one another "
            f"name, or resume that one: sweep resume {shlex.quote(where)}"
        )
    if OWNER not in study.user_attrs:
        study.set_user_attr(OWNER, (ours, str(folder.absolute())))


def read_study(folder: Path) -> optuna.Study:
    """The study of a sweep's folder, read-only: a running supervisor is not disturbed.

    Raises:
        ValueError: there is none, or it cannot be read.
    """
    if not is_sweep(folder):
        raise ValueError(f"{folder} is not the folder of a sweep (no {JOURNAL}); sweeps are in runs/sweeps/")
    try:
        storage = open_storage(saved_url(folder), folder, to_write=False)
    except OSError as error:
        raise ValueError(f"{folder / JOURNAL} cannot be read: {error.strerror}; check its permissions") from error
    names = optuna.get_all_study_names(storage)
    name = saved_name(folder) or next(iter(names), "")
    if name in names and FINGERPRINT in (study := optuna.load_study(study_name=name, storage=storage)).user_attrs:
        return study
    raise ValueError(f"{folder} holds a sweep that ended before its first trial; run its YAML again")


def definition(sweep: Sweep) -> dict[str, Any]:
    """What must stay the same for trials to be comparable."""
    base = sweep.base.to_dict()
    del base["tracking"]
    content = {
        "space": {key: vars(parameter) for key, parameter in sweep.space.parameters.items()},
        "objectives": dict(sweep.spec.objectives),
        "seeds": list(sweep.spec.seeds),
        "base": base,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def _comparable(known: dict[str, Any]) -> dict[str, Any]:
    """A definition without the directories its modules were found in: a project may have moved."""
    base = known.get("base", {})
    training = {key: value for key, value in base.get("training", {}).items() if key != "search_path"}
    return known | {"base": base | {"training": training}}


def _in_full(known: dict[str, Any]) -> dict[str, Any]:
    """A definition, with keys added to experiments since it was recorded."""
    try:
        base = load_experiment(known["base"], saved=True).to_dict()
    except ValueError:  # a key was removed, or has another meaning
        return known
    del base["tracking"]
    plain: dict[str, Any] = json.loads(json.dumps(known | {"base": base}))
    return plain


def build_sampler(spec: SweepSpec, space: Space, asked: int = 0) -> BaseSampler:
    """Optuna's sampler of that name.

    Args:
        spec: of the sweep.
        space: to sample.
        asked: trials so far: with the same seed, a restarted sampler would propose their points again.
    """
    seed, samplers = spec.sampler_seed + asked, optuna.samplers
    conditional = any(parameter.when for parameter in space.parameters.values())
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # for group
    if spec.sampler == "tpe":
        return samplers.TPESampler(seed=seed, multivariate=True, group=conditional, constant_liar=True)
    if spec.sampler == "nsga2":
        return samplers.NSGAIISampler(seed=seed)
    if spec.sampler == "gp":
        return samplers.GPSampler(seed=seed)
    if spec.sampler == "qmc":
        return samplers.QMCSampler(seed=spec.sampler_seed, scramble=True)  # continues its sequence by itself
    return samplers.RandomSampler(seed=seed)  # the points of a grid are enqueued in the study


def exhausted(study: optuna.Study, spec: SweepSpec) -> bool:
    """Whether a grid has no points left."""
    return spec.sampler == "grid" and not enqueued(study)


def enqueued(study: optuna.Study) -> list[FrozenTrial]:
    """Trials that are to be asked for before the sampler's."""
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING,))


def finished(study: optuna.Study) -> list[FrozenTrial]:
    """Trials with a result."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def points(trials: Sequence[FrozenTrial]) -> list[Point]:
    """Training FLOPs and exact match of trials, means over their seeds."""
    return [Point(t.user_attrs["result"]["train_flops"], t.user_attrs["result"]["exact_match"]) for t in trials]


def learning_curve(trial: FrozenTrial) -> list[Point]:
    """Training FLOPs so far of one run and exact match at its validations, mean over seeds; to its end if it has a
    result. Earlier versions did not record the validation after the last step."""
    recorded = [Point(*point) for point in trial.user_attrs.get("curve", [])]
    if "result" not in trial.user_attrs:
        return recorded
    [end] = points([trial])
    return recorded if recorded and recorded[-1].cost >= end.cost else [*recorded, end]
