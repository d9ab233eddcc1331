"""Whether what the blocks in front of the loop compute depends on their tokens alone, in the whole run."""

from typing import TYPE_CHECKING

from sleep_lightning.config.stages import sleeps_of
from sleep_lightning.model import ModelConfig
from sleep_lightning.pretrained.lora import Lora

if TYPE_CHECKING:
    from sleep_lightning.config.experiment import Experiment


def why_not_frozen(experiment: "Experiment") -> str | None:
    """The first reason why a window's prelude gives anything else than a fixed function of its tokens, and what to do.

    None: it has one (``sleep.loop``), nothing in it learns, it neither reads nor writes memory, and every rank may run
    it or not as it likes.
    """
    m, s, t = experiment.model, experiment.sleep, experiment.training
    if not isinstance(m, ModelConfig):
        return f"the hybrid model, not {m.described}; drop it"
    prelude = s.parts(m.n_blocks)[0]
    if not prelude:
        return f"blocks in front of the loop, and sleep.loop={s.loop} has none; set sleep.loop=4/2/0, for example"
    lora = Lora.of(m)
    adapted = set() if lora is None else {int(name.split(".")[1]) for name in lora.modules(m)}
    if "all" in t.trained and (lora is None or adapted & set(prelude)):
        fix = "set model.lora.layers_to_transform" if lora else "set training.train=after_prelude, in stages too"
        return f"a prelude that does not learn; {fix}"
    for where, one in sleeps_of(experiment):
        if writers := [i for i in m.writers(cached=one.eviction == "sliding") if i in prelude]:
            sliding = one.eviction == "sliding"
            fix = "set training.prelude_cache=null" if sliding else "set sleep.loop so that it is looped"
            return (
                f"a prelude without memory, and block {writers[0]} ({m.pattern[writers[0]]}, "
                f"{where}.eviction={one.eviction}) leaves some for later windows; {fix}"
            )
    for key, value in (("model.summary_tokens", m.summary_tokens), ("sleep.retrieved_windows", s.retrieved_windows)):
        if value:
            return f"windows that stand alone, and there are {key}={value}; set {key}=0"
    for key in ("compile", "cuda_graph"):
        if getattr(t, key):
            return f"training.{key}=false: looking up is not a part of a graph; set it"
    return "training.sharding=none: ranks gather blocks together; set it" if t.sharding != "none" else None
