"""A whole experiment: five sections of dataclasses, merged defaults <- YAML <- ``key=value`` arguments.

Every mistake ends in one sentence (ValueError) that names the key, the value and the fix, before any compute.
"""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from sleep_lightning.layerwise import Executor
from sleep_lightning.model import MEMORY_MIXERS, ModelConfig
from sleep_lightning.sleep import Checkpoint, SleepConfig
from sleep_lightning.tasks import TASKS, TaskConfig


@dataclass
class TrainingConfig:
    max_steps: int = 1000
    """Optimiser steps."""
    batch_size: int = 64
    """Sequences of an optimiser step."""
    accumulate: int = 1
    """Micro-batches an optimiser step is cut into; divides batch_size."""
    seed: int = 0
    """Seed of the initial weights and of the data stream."""
    tbptt_windows: int | None = None
    """k: detach the memory every k windows; null: backpropagate through the whole sequence (the paper)."""
    checkpointing: Checkpoint = "none"
    """Recompute activations in the backward: per window (all its passes), per pass, or not at all."""
    executor: Executor = "auto"
    """auto runs all windows layer by layer where that is the same (N=1, pass_input=embed); windows never does."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Arithmetic of the forward: fp32, or bf16 autocast. The memory stays fp32."""
    fp32_matmul: Literal["auto", "torch"] = "auto"
    """auto sends fp32 products to oneDNN where a probe shows that they stay fp32; torch leaves torch's choice."""
    allocator: Literal["keep", "return", "libc"] = "keep"
    """glibc keeps freed memory for the next step (fast), returns it at once (smallest peak), or does as it likes."""
    compile: bool = False
    """torch.compile one pass: pays on long runs (the first step takes a minute)."""
    muon_lr: float = 2e-2
    """Learning rate of Muon, for the hidden matrices."""
    adamw_lr: float = 3e-3
    """Learning rate of AdamW, for embeddings, head, norms, gates and convolutions."""
    weight_decay: float = 1e-4
    """Decoupled weight decay of both; norms, gates and convolutions have none."""
    momentum: float = 0.95
    """Nesterov momentum of Muon."""
    warmup: float = 0.05
    """Share of max_steps in which the learning rate rises."""
    cooldown: float = 0.4
    """Share of max_steps in which it falls to zero at the end (warm-up, stable, decay)."""
    clip_norm: float = 1.0
    """Clip the gradient to this L2 norm; 0: don't."""
    val_every: int = 100
    """Steps between validations."""
    val_batches: int = 4
    """Batches of a validation."""
    val_batch_size: int = 256
    """Sequences of a validation batch."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    log_every: int = 10
    """Steps between logged training metrics."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Device: auto takes CUDA if there is one."""
    threads: int | None = None
    """CPU threads; null: torch's choice."""
    run_dir: str | None = None
    """Directory of the run; null: runs/<task>-<time>."""

    def __post_init__(self) -> None:
        at_least = {"max_steps": 1, "batch_size": 1, "accumulate": 1, "val_every": 1, "val_batches": 1}
        at_least |= {"val_batch_size": 1, "checkpoint_every": 1, "log_every": 1, "tbptt_windows": 1, "threads": 1}
        at_least |= {"seed": 0, "muon_lr": 0, "adamw_lr": 0, "weight_decay": 0, "clip_norm": 0}
        for key, low in at_least.items():
            if (value := getattr(self, key)) is not None and value < low:
                raise ValueError(f"training.{key}={value} must be at least {low}")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"training.accumulate={self.accumulate} does not divide training.batch_size={self.batch_size}"
            )
        if not 0 <= self.momentum < 1:
            raise ValueError(f"training.momentum={self.momentum} must be in [0, 1); try 0.95")
        if min(self.warmup, self.cooldown) < 0 or self.warmup + self.cooldown > 1:
            raise ValueError(
                f"training.warmup={self.warmup} and training.cooldown={self.cooldown} are shares of max_steps: "
                f"both >= 0, together at most 1"
            )


@dataclass
class TrackingConfig:
    enabled: bool = True
    """Record the run in MLflow."""
    uri: str = "sqlite:///mlflow.db"
    """MLflow tracking URI: a database or a server."""
    experiment: str = "sleep_lightning"
    """MLflow experiment."""
    run_name: str | None = None
    """MLflow run name; null: the name of the run directory."""
    flush_seconds: float = 10.0
    """Seconds between two writes of buffered metrics."""

    def __post_init__(self) -> None:
        if self.flush_seconds <= 0:
            raise ValueError(f"tracking.flush_seconds={self.flush_seconds} must be above 0; try 10")
        if self.enabled and (not self.uri or self.uri.startswith(("file:", "/", "./")) or "://" not in self.uri):
            raise ValueError(
                f"tracking.uri={self.uri!r} is not a database or server (MLflow no longer writes to plain folders); "
                f"use sqlite:///mlflow.db or http://127.0.0.1:5000"
            )


@dataclass
class Experiment:
    """All that is needed to repeat a run."""

    task: TaskConfig
    model: ModelConfig = field(default_factory=ModelConfig)
    sleep: SleepConfig = field(default_factory=SleepConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)

    def __post_init__(self) -> None:
        self._check_windows()
        self._check_truncation()
        if self.model.last_memory < 0 and self.sleep.n_passes > 1:
            raise ValueError(
                f"sleep.n_passes={self.sleep.n_passes} with model.pattern={self.model.pattern!r} sleeps for nothing: "
                f"no block holds memory; put a {' or '.join(MEMORY_MIXERS)} into the pattern or set sleep.n_passes=1"
            )
        if self.sleep.carry_conv_state and not self.model.conv_size:
            raise ValueError("sleep.carry_conv_state=true with model.conv_size=0 carries nothing; set one of the two")

    def _check_windows(self) -> None:
        task, L = self.task.build(), self.sleep.window_size
        if L < task.sequence_length and task.context_length % L:
            fits = [n for n in range(2, task.context_length + 1) if task.context_length % n == 0]
            raise ValueError(
                f"sleep.window_size={L} puts evidence and answers into one window: it does not divide the "
                f"{task.context_length} context tokens; use one of {fits} (or at least {task.sequence_length}: "
                f"no eviction)"
            )

    def _check_truncation(self) -> None:
        task, k, L = self.task.build(), self.training.tbptt_windows, self.sleep.window_size
        first, last = task.context_length // L, (task.sequence_length - 1) // L
        if k is None or first == 0 or any(i // k * k < first for i in range(first, last + 1)):
            return
        fits = [n for n in range(2, last + 1) if first // n * n < first]
        raise ValueError(
            f"training.tbptt_windows={k} cuts the loss off from every sleep: memory is detached every {k} windows, "
            f"the answers begin with window {first + 1}, so no gradient would reach a window that slept; "
            f"use null{f' or one of {fits}' if fits else ''}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain containers: what checkpoints, logs and ``config.yaml`` hold. Passwords are not among it."""
        sections = {
            name: cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(section)))
            for name, section in vars(self).items()
        }
        sections["tracking"]["uri"] = redact(self.tracking.uri)
        return sections

    def to_yaml(self) -> str:
        """The resolved experiment as YAML that ``load_experiment`` reads back."""
        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))


def redact(uri: str) -> str:
    """The URI without its password."""
    scheme, separator, rest = uri.partition("://")
    credentials, at, host = rest.rpartition("@")
    return f"{scheme}{separator}{credentials.partition(':')[0]}:***@{host}" if at and ":" in credentials else uri


SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "sleep": SleepConfig,
    "training": TrainingConfig,
    "tracking": TrackingConfig,
}


def load_experiment(config: str | Path | dict[str, Any] | None = None, overrides: Sequence[str] = ()) -> Experiment:
    """Merge defaults <- a YAML file (or nested dict) <- ``key=value`` arguments; interpolation sees the overrides.

    Raises:
        ValueError: one sentence naming the key, the value and the fix.
    """
    values: dict[str, Any] = {}
    if config is not None:
        values |= _flatten(config if isinstance(config, dict) else _read_yaml(Path(config)))
    for argument in overrides:
        key, equals, text = argument.partition("=")
        if not equals or not key:
            raise ValueError(f"argument {argument!r} is not key=value; write for example training.max_steps=500")
        values[key] = _parse(key, text)
    name = values.get("task.name", "rule110")
    if name not in TASKS:
        raise ValueError(f"task.name={name!r} is unknown; use one of {', '.join(TASKS)}")
    merged = _merge(OmegaConf.create({"task": OmegaConf.structured(TASKS[name])} | SECTIONS), values)
    try:
        sections = {section: OmegaConf.to_object(merged[section]) for section in merged}
    except OmegaConfBaseException as error:
        raise ValueError(f"{error.full_key}: {_first_line(error)}; fix the ${{...}} reference") from error
    return Experiment(**cast(dict[str, Any], sections))


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = OmegaConf.to_container(OmegaConf.load(path))
    except OSError as error:
        raise ValueError(f"--config {path}: {error.strerror}; shipped experiments lie in conf/") from error
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"--config {path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ValueError(
            f"--config {path} must hold sections (task, {', '.join(SECTIONS)}), not a {type(content).__name__}"
        )
    return cast(dict[str, Any], content)


def _parse(key: str, text: str) -> Any:
    try:
        return OmegaConf.to_container(OmegaConf.from_dotlist([f"value={text}"])).get("value")  # type: ignore[union-attr]
    except (YAMLError, OmegaConfBaseException) as error:
        raise ValueError(f"{key}={text} cannot be read: {_first_line(error)}; quote the value") from error


def _flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _merge(schema: DictConfig, values: dict[str, Any]) -> DictConfig:
    known = [f"{section}.{key}" for section in map(str, schema) for key in map(str, schema[section])]
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"{key}={value!r}: there is no key {key!r}; {_suggest(key, known)}")
        try:
            OmegaConf.update(schema, key, value)
        except OmegaConfBaseException as error:
            section, name = key.split(".")
            kind = get_type_hints(OmegaConf.get_type(schema[section]))[name]
            raise ValueError(f"{key}={value!r} is not {type_name(kind)}; {_first_line(error)}") from error
    return schema


def type_name(annotation: Any) -> str:
    """How a type is shown to users: ``int``, ``int or null``, ``one of none, window, pass``."""
    if getattr(annotation, "__origin__", None) is Literal:
        return "one of " + ", ".join(map(str, annotation.__args__))
    text = annotation.__name__ if isinstance(annotation, type) and "[" not in str(annotation) else str(annotation)
    return text.replace(" | None", " or null")


def _suggest(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1) or [k for k in known if k.endswith(f".{key.split('.')[-1]}")]
    return f"did you mean {close[0]}?" if close else "python -m sleep_lightning --help lists all keys"


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0].rstrip(".")
