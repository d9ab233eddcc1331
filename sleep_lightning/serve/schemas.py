"""What goes over the wire, as JSON."""

import math
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from sleep_lightning.session import UNLABELLED, SleepSession, WindowLine

TokenId = Annotated[StrictInt, Field(ge=0, lt=2**31)]
Source = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Request(BaseModel):
    """A body; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class NewSession(Request):
    writes: dict[Source, Annotated[StrictInt, Field(ge=0)]] | None = Field(
        None, max_length=64, description="Passes over the tokens of each source label, 0: never slept on; null: all, N."
    )
    keep_texts: StrictBool = Field(False, description="Keep what is read beside the memory; forget needs it.")
    ttl: Annotated[float, Field(gt=0, le=1e9)] | None = Field(None, description="Seconds until it is deleted.")


class Tokens(Request):
    """Tokens by id, or as text: one of the two."""

    tokens: list[TokenId] | None = None
    text: str | None = None
    source: Source = Field(UNLABELLED, description="Where it comes from: a label of provenance.")

    def given(self) -> str | list[int]:
        """What is to be read. Raises ValueError for both, or neither."""
        if (self.tokens is None) == (self.text is None):
            raise ValueError("give tokens or text, and not both")
        return self.text if self.text is not None else self.tokens or []


class Append(Tokens):
    wait: StrictBool = Field(
        True, description="False: answer at once (202); it is read, and slept on, in the background."
    )


class Ask(Tokens):
    max_new_tokens: Annotated[StrictInt, Field(ge=0)] | None = Field(
        None, description="null: 32, or the limit if less."
    )
    temperature: Annotated[float, Field(ge=0, le=100)] = 0.0
    top_k: Annotated[StrictInt, Field(ge=1, lt=2**31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stop: list[TokenId | str] = Field([], max_length=16)
    seed: Annotated[StrictInt, Field(ge=0, lt=2**63)] | None = None
    keep: StrictBool = Field(True, description="False: the session is afterwards as before.")

    def options(self) -> dict[str, Any]:
        """Arguments of ``SleepSession.generate``, but for the number of tokens. Raises ValueError out of range."""
        if 0 < self.temperature < 0.01:
            raise ValueError(f"temperature={self.temperature} must be 0 (the likeliest token) or from 0.01 to 100")
        names = ("temperature", "top_k", "top_p", "stop", "seed", "keep", "source")
        return {name: getattr(self, name) for name in names}


class Sleep(Request):
    n_passes: Annotated[StrictInt, Field(ge=1)] | None = Field(None, description="In all; null: N.")
    wait: StrictBool = Field(False, description="True: answer once it has slept; false: at once (202).")


class Forget(Request):
    source: Source


class Error(BaseModel):
    """One sentence."""

    error: str


class Sessions(BaseModel):
    sessions: list[str]


class Created(BaseModel):
    id: str


class Line(BaseModel):
    tokens: int
    flops: int
    seconds: float


class Session(BaseModel):
    """How a session stands."""

    id: str
    tokens_seen: int
    window_fill: int
    window_size: int
    windows_closed: int
    n_passes: int
    bytes: int
    expires_at: float | None
    keep_texts: bool
    wake: Line
    sleep: Line
    queued: int = Field(description="Readings and sleeps in the background.")
    last_error: str | None = Field(description="Why the last of them failed.")

    @classmethod
    def of(cls, session: SleepSession, queued: int = 0, last_error: str | None = None) -> "Session":
        return cls(
            id=session.id,
            tokens_seen=session.tokens_seen,
            window_fill=session.window_fill,
            window_size=session.config.window_size,
            windows_closed=session.windows_closed,
            n_passes=session.config.n_passes,
            bytes=session.nbytes,
            expires_at=session.expires_at,
            keep_texts=session.keep_texts,
            wake=Line(**vars(session.cost.wake)),
            sleep=Line(**vars(session.cost.sleep)),
            queued=queued,
            last_error=last_error,
        )


class Queued(BaseModel):
    queued: int


class Answer(BaseModel):
    tokens: list[int]
    text: str
    complete: bool = Field(description="False: the server was told to end before the answer was at its end.")
    seconds: float


class Forgotten(BaseModel):
    tokens: int


class Window(BaseModel):
    """A line of provenance."""

    time: float
    sources: dict[str, int]
    left_out: dict[str, int]
    n_passes: int
    change: float | None
    hash: str

    @classmethod
    def of(cls, line: WindowLine) -> "Window":
        return cls(**(vars(line) | {"change": finite(line.change)}))


class Provenance(BaseModel):
    windows: list[Window]


class Head(BaseModel):
    block: int
    head: int
    rule: str
    norm: float | None
    effective_rank: float | None
    half_life: float | None
    change: float | None
    by_pass: list[float | None]


class Inspection(BaseModel):
    """Of every head; null: infinite, not a number, or not known."""

    tokens_seen: int
    heads: list[Head]

    @classmethod
    def of(cls, session: SleepSession) -> "Inspection":
        found = session.inspect()
        return cls(tokens_seen=found.tokens_seen, heads=[Head(**_finite_values(vars(h))) for h in found.heads])


def finite(x: float | None) -> float | None:
    """JSON has no other numbers."""
    return x if x is not None and math.isfinite(x) else None


def _finite_values(values: dict[str, Any]) -> dict[str, Any]:
    said = {k: finite(v) if isinstance(v, float) else v for k, v in values.items()}
    return said | {"by_pass": [finite(x) for x in values["by_pass"]]}
