"""What a session's file says, and which file is refused."""

from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

from sleep_lightning.model import HybridLM
from sleep_lightning.session.cost import Cost, Line
from sleep_lightning.session.fingerprint import fingerprint
from sleep_lightning.session.state import SessionState
from sleep_lightning.session.state_file import read_state, write_state
from sleep_lightning.sleep import SleepConfig


@dataclass(frozen=True)
class Saved:
    """What ``load_state`` found."""

    config: SleepConfig
    policy: str
    state: SessionState
    cost: Cost


def save_state(
    path: str | PathLike[str], model: HybridLM, config: SleepConfig, policy: str, state: SessionState, cost: Cost
) -> None:
    """Write all that is needed to go on. Raises OSError."""
    header = {
        "model": fingerprint(model),
        "dtype": str(state.window.h_out_BLE.dtype),
        "sleep": asdict(config),
        "policy": policy,
        "tokens_seen": state.tokens_seen,
        "windows_closed": state.windows_closed,
        "window_fill": state.window.fill,
        "window_whole": state.window.cache.whole,
        "cost": asdict(cost),
    }
    write_state(Path(path), header, state.named_tensors())


def load_state(path: str | PathLike[str], model: HybridLM) -> Saved:
    """Read what ``save_state`` wrote. Raises ValueError if it is not of this model, or not whole; OSError."""
    header, tensors = read_state(Path(path))
    mine = fingerprint(model)
    if header.get("model") != mine:
        raise ValueError(
            f"{path} belongs to a model with the fingerprint {str(header.get('model'))[:12]}, and this one has "
            f"{mine[:12]}; load the weights that it was written with"
        )
    try:
        config = SleepConfig(**header["sleep"])
        numbers = [header[key] for key in ("tokens_seen", "windows_closed", "window_fill")]
        if any(type(n) is not int or n < 0 for n in numbers) or numbers[2] > config.window_size:
            raise ValueError(f"tokens_seen, windows_closed and window_fill are {numbers}")
        cost = Cost(**{name: Line(**_line(header["cost"][name])) for name in ("wake", "sleep")})
        fresh = SessionState.fresh(model, config)
        state = fresh.filled(numbers[2], bool(header["window_whole"]), tensors)
        state = SessionState(state.window, *numbers[:2])
        return Saved(config, str(header["policy"]), state, cost)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _refuse(path, error)


def _line(said: dict[str, Any]) -> dict[str, Any]:
    if any(type(said[key]) not in (int, float) for key in said):
        raise ValueError(f"the cost is {said}")
    return said


def _refuse(path: str | PathLike[str], error: Exception) -> NoReturn:
    raise ValueError(f"{path} does not fit this model: {error}; give a file written by SleepSession.save") from error
