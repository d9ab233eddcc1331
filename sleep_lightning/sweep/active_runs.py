"""The runs of a sweep that are being trained now; several may be of one trial."""

from collections.abc import Iterator
from dataclasses import dataclass

from sleep_lightning.runs.process import FitProcess
from sleep_lightning.sweep.launchers import Launcher
from sleep_lightning.sweep.trial import Trial


@dataclass(eq=False)
class RunAtWork:
    """A run that is being trained.

    Attributes:
        trial: whose run.
        run: the run.
        began_flops: what it had taken when it was last started.
        failures: how often it has failed without getting further.
        judged: validations it had, and finished trials there were, when it was last judged whether to stop it.
    """

    trial: Trial
    run: FitProcess
    began_flops: float
    failures: int = 0
    judged: tuple[int, int] = (0, 0)


class RunsAtWork:
    """All of them, in the order in which they began.

    Args:
        launcher: what trains them.
    """

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._runs: list[RunAtWork] = []

    def __iter__(self) -> Iterator[RunAtWork]:
        """Those of now, whatever begins or ends meanwhile."""
        return iter(list(self._runs))

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, one: RunAtWork) -> bool:
        return one in self._runs

    def trials(self) -> list[Trial]:
        """Whose they are."""
        return list(dict.fromkeys(one.trial for one in self._runs))

    def of(self, trial: Trial) -> list[FitProcess]:
        """A trial's."""
        return [one.run for one in self._runs if one.trial is trial]

    def begin_next(self, trial: Trial) -> bool:
        """Train the trial's next seed; False if it has none left."""
        run = trial.next_run(self.of(trial))
        if run is not None:
            self._launcher.submit(run)
            self._runs.append(RunAtWork(trial, run, run.flops_spent))
        return run is not None

    def begin_again(self, one: RunAtWork) -> None:
        """Go on with one that has failed."""
        one.began_flops = one.run.flops_spent
        self._launcher.submit(one.run)

    def remove(self, one: RunAtWork) -> None:
        """It has ended."""
        self._runs.remove(one)

    def stop(self, trial: Trial) -> None:
        """End the trial's runs; they save."""
        self._launcher.stop(self.of(trial))
        self._runs = [one for one in self._runs if one.trial is not trial]
