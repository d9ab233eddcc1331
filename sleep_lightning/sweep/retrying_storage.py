"""Storages that retry while they cannot be reached or written: training continues, and no result is lost."""

import json
import os
import sys
import time
from collections.abc import Callable, Container
from functools import wraps
from itertools import islice
from typing import Any, Concatenate, ParamSpec, TypeVar

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, TimeoutError

from sleep_lightning.redaction import one_line
from sleep_lightning.runs.backoff import Backoff
from sleep_lightning.runs.infrastructure import FULL, PASSING
from sleep_lightning.runs.space import DiskFull

P = ParamSpec("P")
R = TypeVar("R")


def _wait(what: str, why: object, pauses: Backoff) -> None:
    """Say on stderr which storage cannot be used and why, and sleep."""
    seconds = pauses.next()
    print(
        f"{what} cannot be used for {pauses.waited:.0f} s ({one_line(why)}); running trials continue, none starts; "
        f"next attempt in {seconds:.3g} s",
        file=sys.stderr,
        flush=True,
    )
    time.sleep(seconds)


def _retrying(
    method: Callable[Concatenate[Any, P], R],
) -> Callable[Concatenate["RetryingStorage", P], R]:
    """The method, retried while the database is away; always as a whole, since it is one transaction."""

    @wraps(method)
    def call(self: "RetryingStorage", /, *args: P.args, **kwargs: P.kwargs) -> R:
        pauses: Backoff | None = None
        while True:
            try:
                return method(self, *args, **kwargs)
            except (StorageInternalError, DBAPIError, TimeoutError) as error:
                cause = error.__cause__ if isinstance(error, StorageInternalError) else error
                if not isinstance(cause, OperationalError | InterfaceError | TimeoutError):
                    raise
                pauses = pauses or Backoff()
                _wait(self.shown, getattr(cause, "orig", None) or cause, pauses)
            except UpdateFinishedTrialError:
                if pauses is None:
                    raise
                return True  # type: ignore[return-value]  # the earlier attempt was stored, its answer lost

    return call


class RetryingStorage(RDBStorage):
    """A database that may become unreachable for a while, after the first connection."""

    def __init__(self, url: str, shown: str, engine: dict[str, Any]) -> None:
        self.shown = shown
        super().__init__(url, engine)

    create_new_study = _retrying(RDBStorage.create_new_study)
    get_study_id_from_name = _retrying(RDBStorage.get_study_id_from_name)
    get_study_name_from_id = _retrying(RDBStorage.get_study_name_from_id)
    get_study_directions = _retrying(RDBStorage.get_study_directions)
    get_study_user_attrs = _retrying(RDBStorage.get_study_user_attrs)
    get_study_system_attrs = _retrying(RDBStorage.get_study_system_attrs)
    set_study_user_attr = _retrying(RDBStorage.set_study_user_attr)
    set_study_system_attr = _retrying(RDBStorage.set_study_system_attr)
    get_all_studies = _retrying(RDBStorage.get_all_studies)
    _create_new_trial = _retrying(RDBStorage._create_new_trial)
    _set_trial_param = _retrying(RDBStorage._set_trial_param)
    set_trial_state_values = _retrying(RDBStorage.set_trial_state_values)
    set_trial_user_attr = _retrying(RDBStorage.set_trial_user_attr)
    set_trial_system_attr = _retrying(RDBStorage.set_trial_system_attr)
    get_trial = _retrying(RDBStorage.get_trial)
    _get_trials = _retrying(RDBStorage._get_trials)


class SweepJournal(JournalStorage):
    """Finds the trials that have not ended, for which Optuna looks at each ask, behind those that have."""

    def __init__(self, backend: JournalFileBackend) -> None:
        super().__init__(backend)
        self._ended: dict[int, int] = {}  # by study: so many from the first on, for good

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        if deepcopy or states is None or any(state in states for state in TrialState if state.is_finished()):
            return super().get_all_trials(study_id, deepcopy, states)
        trials, ended = super().get_all_trials(study_id, deepcopy=False), self._ended.get(study_id, 0)
        while ended < len(trials) and trials[ended].state.is_finished():
            ended += 1
        self._ended[study_id] = ended
        return [trial for trial in islice(trials, ended, None) if trial.state in states]


class RetryingJournal(JournalFileBackend):
    """A journal file on a disk that may be full for a while: half a record is truncated before the next attempt."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        whole, pauses = os.path.getsize(self._file_path), Backoff()
        while True:
            try:
                super().append_logs(logs)
            except OSError as error:
                if error.errno not in PASSING:
                    raise
                os.truncate(self._file_path, whole)
                need = sum(len(json.dumps(log)) + 1 for log in logs)
                why = DiskFull(self._file_path, error, need).strerror if error.errno in FULL else error
                _wait(self._file_path, why, pauses)
            else:
                return
