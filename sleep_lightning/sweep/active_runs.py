"""The runs of a sweep that are training now; several may belong to one trial."""

from collections.abc import Iterator
from dataclasses import dataclass

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
        failures: failures in a row without progress.
        judged: its validations and the number of finished trials when the pruner last judged it.
    """

    trial: Trial
    run: FitProcess
    began_flops: float
    failures: int = 0
    judged: tuple[int, int] = (0, 0)


class ActiveRuns:
    """All of them, in the order in which they started.

    Args:
        launcher: trains them.
    """

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
            self._launcher.submit(run)
            self._runs.append(ActiveRun(trial, run, run.flops_spent))
        return run is not None

    def restart(self, one: ActiveRun) -> None:
        """Resume a run that has failed."""
        one.began_flops = one.run.flops_spent
        self._launcher.submit(one.run)

    def remove(self, one: ActiveRun) -> None:
        """A run has ended."""
        self._runs.remove(one)

    def stop(self, trial: Trial) -> None:
        """Stop the trial's runs; they save."""
        self._launcher.stop(self.of(trial))
        self._runs = [one for one in self._runs if one.trial is not trial]
