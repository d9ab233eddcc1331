"""How far a run is, also between two validations: every few seconds it rewrites a small file for those that watch."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sleep_lightning.accuracy import Accuracy
from sleep_lightning.runs.damage import NUMBER, DamagedFile
from sleep_lightning.runs.files import JsonFile, write_json


@dataclass(frozen=True)
class Latest:
    """The last step of a run that is training: its number, its loss, training FLOPs so far, tokens/s so far."""

    step: int
    loss: float
    train_flops: float
    tokens_per_s: float

    def write(self, path: Path) -> None:
        """For ``LatestFile`` to read. On a full disk it is left: a run goes on without."""
        with suppress(OSError):
            write_json(path, asdict(self), patience=0)


LATEST = tuple(field.name for field in fields(Latest))


class LatestFile:
    """Reads what ``Latest.write`` wrote, again only if it has changed."""

    def __init__(self, path: Path) -> None:
        self._file = JsonFile(path, dict.fromkeys(LATEST, NUMBER), "remove it")

    def read(self) -> Latest | None:
        """None without the file; one that is damaged is rewritten in a moment."""
        try:
            content = self._file.read()
        except DamagedFile:
            return None
        if content is None:
            return None
        return Latest(**{name: content[name] for name in LATEST})


@dataclass(frozen=True)
class RunProgress:
    """Attributes:
    step: the last that is known.
    train_flops: up to there.
    accuracy: at the last validation; None before the first.
    loss: of that step; None if all that is known is a validation.
    tokens_per_s: of training so far; None as for ``loss``.
    """

    step: int = 0
    train_flops: float = 0.0
    accuracy: Accuracy | None = None
    loss: float | None = None
    tokens_per_s: float | None = None

    @classmethod
    def of(cls, history: Sequence[Mapping[str, float]], latest: Latest | None) -> "RunProgress":
        """What validations say, and the last step if it comes behind them."""
        if not history:
            found = cls()
        else:
            row = history[-1]
            found = cls(int(row["step"]), row["cost/train_flops"], Accuracy.of_validation(row))
        if latest is None or latest.step < found.step:
            return found
        return cls(int(latest.step), latest.train_flops, found.accuracy, latest.loss, latest.tokens_per_s)
