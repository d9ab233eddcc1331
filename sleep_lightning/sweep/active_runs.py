"""The runs of a sweep that are training now; several may belong to one trial."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from sleep_lightning.runs.infrastructure import Ended, Retry
from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import Launcher
from sleep_lightning.sweep.trial import Trial


@dataclass(eq=False)
class ActiveRun:
    """A run that is training.

    Attributes:
        trial: it belongs to.
        run: the run.
        began_flops: training FLOPs it had spent when it was last started.
        failures: failures of its own in a row without progress.
        retry: when to start it again, if the machine failed it.
        unstarted: why it could not be started; None: it was.
        judged: its validations and the number of finished trials when the pruner last judged it.
    """

    trial: Trial
    run: FitProcess
    began_flops: float
    failures: int = 0
    retry: Retry = field(default_factory=Retry)
    unstarted: Ended | None = None
    judged: tuple[int, int] = (0, 0)

    @property
    def at_work(self) -> bool:
        """Whether the launcher has it: it does not wait to be started again."""
        return self.retry.at is None and self.unstarted is None


class ActiveRuns:
    """All of them, in the order in which they started."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._runs: list[ActiveRun] = []

    def __iter__(self) -> Iterator[ActiveRun]:
        """A copy: runs may start or end during the iteration."""
        return iter(list(self._runs))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, one: ActiveRun) -> bool:
        return one in self._runs

    def trials(self) -> list[Trial]:
        """The trials they belong to."""
        return list(dict.fromkeys(one.trial for one in self._runs))

    def of(self, trial: Trial) -> list[FitProcess]:
        """The runs of a trial."""
        return [one.run for one in self._runs if one.trial is trial]

    def start_next(self, trial: Trial) -> bool:
        """Train the trial's next seed; False if none is left."""
        run = trial.next_run(self.of(trial))
        if run is not None:
            self._runs.append(one := ActiveRun(trial, run, run.flops_spent))
            self._start(one)
        return run is not None

    def restart(self, one: ActiveRun) -> None:
        """Resume a run that has failed."""
        one.began_flops, one.retry.at = one.run.flops_spent, None
        self._start(one)

    def _start(self, one: ActiveRun) -> None:
        """Submit it; what the machine has no means for is an end like others, to be tried again."""
        try:
            self._launcher.submit(one.run)
            one.unstarted = None
        except (OSError, MemoryError) as error:
            one.unstarted = Ended.by(error)

    def remove(self, one: ActiveRun) -> None:
        """A run has ended."""
        self._runs.remove(one)

    def stop(self, trial: Trial) -> None:
        """Stop the trial's runs; they save."""
        self._launcher.stop([one.run for one in self._runs if one.trial is trial and one.at_work])
        self._runs = [one for one in self._runs if one.trial is not trial]
