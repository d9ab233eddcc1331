"""A whole experiment: its sections, and the constraints between them."""

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from sleep_lightning.config.outline import outline
from sleep_lightning.config.plugin_kinds import KindName
from sleep_lightning.config.plugin_model import PluginModel
from sleep_lightning.config.plugin_task import PluginTask
from sleep_lightning.config.plugins import (
    Plugin,
    checked_plugin,
    import_path,
    is_registered,
    load_plugin,
    read_spec,
)
from sleep_lightning.config.prelude import why_not_frozen
from sleep_lightning.config.reading import literal
from sleep_lightning.config.references import References, refers
from sleep_lightning.config.schema import check_init_args
from sleep_lightning.config.stages import sleeps_of
from sleep_lightning.config.tracking import TrackingConfig, anchored_uri
from sleep_lightning.config.training import TrainingConfig
from sleep_lightning.config.values import Override, flatten
from sleep_lightning.model import MEMORY_MIXERS, HybridLM, ModelConfig, WindowModel
from sleep_lightning.model.config import divisors
from sleep_lightning.model.parameter_groups import Trained, set_trained, trained_parameters
from sleep_lightning.ops import Rule
from sleep_lightning.pretrained.lora import Lora, add_adapters
from sleep_lightning.redaction import is_redacted, redact_uri
from sleep_lightning.sleep import SleepConfig
from sleep_lightning.sleep.schedule import Stack, check_checkpointing, check_looped
from sleep_lightning.tasks import Anchored, Task, TaskConfig

SHOWN = 16
"""Values that a message lists at most."""


@dataclass
class Experiment:
    """All that is needed to repeat a run."""

    task: TaskConfig
    model: ModelConfig | PluginModel = field(default_factory=ModelConfig)
    sleep: SleepConfig = field(default_factory=SleepConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    references: References = field(default_factory=References, repr=False, compare=False)
    """No section: values that were written as references to the environment."""

    def __post_init__(self) -> None:
        for kind, spec, key in self.plugins():
            if (plugin := checked_plugin(kind, spec, key, self.training.search_path)) is not None:
                check_init_args(plugin)
        self._check_windows()
        self._check_truncation()
        if isinstance(self.model, ModelConfig):
            self._check_hybrid(self.model)
        else:
            self._check_plugin_model()
        for where, sleep in sleeps_of(self):
            try:
                self._check_sleep(sleep)
            except ValueError as error:
                raise ValueError(f"{error}" if where == "sleep" else f"{where}: {error}") from error
        if self.training.prelude_cache is not None and (reason := why_not_frozen(self)) is not None:
            raise ValueError(f"training.prelude_cache={self.training.prelude_cache} needs {reason}")

    def _check_hybrid(self, m: ModelConfig) -> None:
        s = self.sleep
        Lora.of(m)
        if "memory" in self.training.trained and not m.writers():
            raise ValueError(
                f"training.train=memory (or that of training.stages) leaves nothing that learns: no block of "
                f"model.pattern={m.pattern!r} holds memory; use train=all"
            )
        if "after_prelude" in self.training.trained and not s.parts(m.n_blocks)[0]:
            raise ValueError(
                f"training.train=after_prelude (or that of training.stages) needs a prelude, and sleep.loop={s.loop} "
                f"has none; set sleep.loop=4/2/0, for example"
            )
        if s.carry_conv_state and not m.conv_size:
            raise ValueError("sleep.carry_conv_state=true with model.conv_size=0 carries nothing; set one of the two")

    def _check_plugin_model(self) -> None:
        """What only the hybrid model can do is refused before anything is computed."""
        t, model, name = self.training, outline(self), self.model.described
        check_checkpointing(model, t.checkpointing)
        if t.sharding != "none":
            raise ValueError(f"training.sharding={t.sharding} shards the hybrid model only, not {name}; use none")
        if t.compile and not hasattr(model, "compile_passes"):
            raise ValueError(
                f"training.compile=true needs a model with compile_passes, which {name} lacks; set it false"
            )
        if train := next((one for one in self.training.trained if one != "all"), None):
            raise ValueError(
                f"training.train={train} (or that of training.stages) is for the hybrid model; which parameters of "
                f"{name} hold memory is not known: use train=all"
            )

    def _check_sleep(self, s: SleepConfig) -> None:
        """Of each sleep that the run may have."""
        if isinstance(self.model, ModelConfig):
            self._check_eviction(self.model, s)
        m = self.stack
        _, core, coda = s.parts(m.n_blocks)
        looped = range(core.start, coda.stop)
        writers = [i for i in m.writers(cached=s.eviction == "sliding") if i in looped]
        if s.n_passes > 1 and not m.summary_tokens and not writers:
            if isinstance(self.model, ModelConfig):
                blocks, letters = f"model.pattern={self.model.pattern!r}", [*MEMORY_MIXERS, *self.model.memory_rules]
                fix = f"put a {' or '.join(letters)} into the pattern or set"
            else:
                blocks, fix = f"model.class_path={self.model.class_path!r}", "set"
            loop = f" and sleep.loop={s.loop!r}" if s.loop != "all" else ""
            raise ValueError(
                f"sleep.n_passes={s.n_passes} with {blocks}{loop} has no effect: no looped block holds memory; {fix} "
                f"sleep.n_passes=1"
            )
        check_looped(m, s)

    @staticmethod
    def _check_eviction(m: ModelConfig, s: SleepConfig) -> None:
        if s.eviction == "sliding" and not m.attends:
            raise ValueError(
                f"sleep.eviction=sliding with model.pattern={m.pattern!r} keeps nothing: no block attends; use hard"
            )
        for key, value in (
            ("model.summary_tokens", m.summary_tokens),
            ("sleep.retrieved_windows", s.retrieved_windows),
        ):
            if value and (s.eviction == "sliding" or s.carry_conv_state or not m.attends):
                raise ValueError(
                    f"{key}={value} needs attention and windows that stand alone: use a model.pattern with an A, "
                    f"sleep.eviction=hard and sleep.carry_conv_state=false, or {key}=0"
                )

    def _check_windows(self) -> None:
        task, L = self.task.build(), self.sleep.window_size
        if L < task.sequence_length and task.context_length % L:
            fits = divisors(task.context_length)[1:]
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
        fits = list(islice((n for n in range(2, last + 1) if first // n * n < first), SHOWN))
        raise ValueError(
            f"training.tbptt_windows={k} cuts the loss off from every sleep: memory is detached every {k} windows, "
            f"the answers begin with window {first + 1}, so no gradient would reach a window that slept; "
            f"use null{f' or one of {fits}' if fits else ''}"
        )

    def plugins(self) -> Iterator[tuple[KindName, Any, str]]:
        """What it names by ``class_path`` or registered name besides the task: kind, spec, key."""
        if isinstance(self.model, ModelConfig):
            for letter, spec in self.model.memory_rules.items():
                yield "memory_rule", spec, f"model.memory_rules.{letter}"
        yield "optimizer", self.training.optimizer, "training.optimizer"
        yield "schedule", self.training.schedule, "training.schedule"
        for i, spec in enumerate(self.training.callbacks):
            yield "callback", spec, f"training.callbacks[{i}]"
        for i, spec in enumerate(self.tracking.loggers):
            yield "logger", spec, f"tracking.loggers[{i}]"

    def class_paths(self) -> Iterator[tuple[str, str]]:
        """Keys and values of all that is named by an import path."""
        if isinstance(self.task, PluginTask):
            yield "task.class_path", self.task.class_path
        elif not is_registered("task", self.task.name, type(self.task)):
            yield "task.class_path", import_path(type(self.task))
        if isinstance(self.model, PluginModel):
            yield "model.class_path", self.model.class_path
        for _, spec, key in self.plugins():
            if "." in (path := read_spec(spec, key)[0]):
                yield key, path

    def flat(self) -> dict[str, Any]:
        """Every key with its value, those of plug-ins included (``task.init_args.length``)."""
        return flatten(self.to_dict())

    @property
    def stack(self) -> Stack:
        """The model's blocks: which of them write memory."""
        return self.model if isinstance(self.model, ModelConfig) else outline(self)

    @property
    def memory_rules(self) -> list[Rule]:
        """The memory rules that the model uses, as far as they are known: each once."""
        if isinstance(self.model, PluginModel):
            return []
        own = [plugin.target.rule for plugin in self._memory_plugins().values()]  # type: ignore[attr-defined]
        return list({rule.name: rule for rule in [*self.model.rules, *own]}.values())

    def _memory_plugins(self) -> dict[str, Plugin]:
        if isinstance(self.model, PluginModel):
            return {}
        return {
            letter: load_plugin("memory_rule", spec, f"model.memory_rules.{letter}", self.training.search_path)
            for letter, spec in self.model.memory_rules.items()
        }

    def build_model(self, task: Task | None = None) -> WindowModel:
        """A new model for the experiment's task (built here unless it is given), initialised from torch's RNG."""
        task = task or self.task.build()
        if isinstance(self.model, PluginModel):
            return self.model.build(len(task.vocab), task.neutral_pad)
        rules = {letter: plugin.build for letter, plugin in self._memory_plugins().items()}
        config = self.pinned().model
        assert isinstance(config, ModelConfig)
        if config.vocab_size is not None and config.vocab_size < len(task.vocab):
            raise ValueError(
                f"model.vocab_size={config.vocab_size} is less than the {len(task.vocab)} tokens of the task; give the "
                f"task the tokenizer of the model, or drop the key"
            )
        model = HybridLM(config, len(task.vocab), task.neutral_pad, rules)
        add_adapters(model)
        self.let_learn(model, self.training.trained)
        return model

    def let_learn(self, model: WindowModel, trained: Iterable[Trained]) -> None:
        """Freeze what none of these values of ``training.train`` trains; the optimizer is given the rest."""
        prelude = self.sleep.parts(model.n_blocks)[0]
        set_trained(model, set().union(*(trained_parameters(model, one, prelude) for one in trained)))

    def pinned(self) -> "Experiment":
        """The same with what follows from N written out: ``model.residual_scale``.

        A model that was trained keeps it when it is tested with another N.
        """
        if isinstance(self.model, PluginModel) or self.model.residual_scale is not None:
            return self
        return replace(self, model=replace(self.model, residual_scale=1 / self.sleep.n_passes))

    def anchored(self) -> "Experiment":
        """The same with absolute paths of the files it names (SQLite database, a task's JSONL), for any directory."""
        tracking, task, model = self.tracking, self.task, self.model
        tracking = replace(tracking, uri=anchored_uri(tracking.uri))
        if isinstance(model, ModelConfig) and model.pretrained is not None:
            model = replace(model, pretrained=str(Path(model.pretrained).absolute()))
        if isinstance(task, Anchored):
            task = task.anchored()
        training = self.training
        if training.prelude_cache is not None:
            training = replace(training, prelude_cache=str(Path(training.prelude_cache).absolute()))
        return replace(self, tracking=tracking, task=task, model=model, training=training)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers: what checkpoints, logs and ``config.yaml`` hold. References to the environment are as they
        were written, and passwords are removed."""
        sections: dict[str, Any] = self.references.put(self.values())
        sections["tracking"]["uri"] = redact_uri(sections["tracking"]["uri"])
        return sections

    def values(self) -> dict[str, Any]:
        """Plain containers with all values, secrets included: never to be written."""
        return {name: _plain(section) for name, section in self.sections.items()}

    @property
    def sections(self) -> dict[str, Any]:
        """Its five sections by name."""
        return {name: section for name, section in vars(self).items() if name != "references"}

    def uri_override(self) -> Override:
        """The change that gives ``to_dict`` its tracking URI back: a reference, if the user wrote one, or the URI."""
        written = self.to_dict()["tracking"]["uri"]
        if refers(written) and not is_redacted(written):
            return f"tracking.uri={written}"
        return "tracking.uri", self.tracking.uri

    def check_tracking(self, again: str = "give it again") -> None:
        """Raises ValueError if it is to be recorded, and what that takes was not saved and is not in the environment.

        Args:
            again: the end of the sentence: how to give a key again.
        """
        t = self.tracking
        if not t.enabled:
            return
        for key, name in self.references.missing.items():
            if key.startswith("tracking."):
                raise ValueError(f"{key} was saved as a reference to the variable {name}; set that, or {again}")
        if t.mlflow and is_redacted(t.uri):
            raise ValueError(f"tracking.uri={t.uri!r} was saved without its password; {again}")

    def to_yaml(self) -> str:
        """The resolved experiment as YAML that ``load_experiment`` reads back."""
        return OmegaConf.to_yaml(OmegaConf.create(self.to_dict()))


def _plain(section: Any) -> dict[str, Any]:
    """A task whose name is not registered is written by its ``class_path``."""
    if isinstance(section, PluginTask | PluginModel):
        return {"class_path": section.class_path, "init_args": literal(section.init_args)}
    section = copy.copy(section)
    for name, value in vars(section).items():
        object.__setattr__(section, name, literal(value))
    values = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.structured(section)))
    if isinstance(section, ModelConfig | SleepConfig | TrainingConfig | TrackingConfig):
        return values
    if is_registered("task", section.name, type(section)):
        return values
    return {"class_path": import_path(type(section)), "init_args": values}
