"""Keys of the GSM-Infinite task."""

from dataclasses import dataclass, field
from typing import Literal

from sleep_lightning.tasks.gsm_infinite.settings import KINDS, PLACES, SETTINGS

MODES = ("forward", "reverse")
MAX_OP = 40


@dataclass
class GSMInfiniteKeys:
    """Fields and their validation; ``GSMInfiniteConfig`` adds ``build``."""

    name: str = "gsm_infinite"
    """Name of the task."""
    ops: list[int] = field(default_factory=lambda: list(range(1, 9)), metadata={"high": 2**16})
    """Operations of a problem; each problem draws one (those read from a file: of those the file has)."""
    settings: list[str] = field(default_factory=lambda: ["zoo", "zoo", "schools", "movies"])
    """Settings, of zoo, schools and movies; each problem draws one, so a name listed twice is twice as likely."""
    modes: list[str] = field(default_factory=lambda: ["forward"])
    """forward asks for what follows from the facts; reverse gives a total and asks for an unknown below it."""
    min_tokens: int = field(default=2000, metadata={"high": 2**24})
    """Fewest tokens of question and context; distractors fill up to it."""
    max_tokens: int = field(default=3300, metadata={"high": 2**24})
    """Most tokens of question and context; rows are padded to it."""
    depth: int = field(default=3, metadata={"high": 2**16})
    """Levels of the hierarchy: 2 counts the kinds of a place, 3 also the members of every kind (the hard subset)."""
    max_constant: int = field(default=4, metadata={"high": 2**16})
    """Constants are drawn from 1 to this."""
    max_value: int = field(default=1000, metadata={"high": 2**16})
    """No quantity is larger; the word tokenizer has a token for every number up to it."""
    n_places: int = field(default=PLACES, metadata={"high": 2**16})
    """Names of places in use, of every setting; with few, validation and test have few problems of one operation."""
    n_kinds: int = field(default=KINDS, metadata={"high": 2**16})
    """Names of kinds in use, of every setting."""
    jsonl: str | None = None
    """File in the published format (JSON lines, an array or Parquet), or a directory of such files, to read problems
    from; null: generate them."""
    validation_file: str | None = None
    """A whole file for validation, each problem once and in its order; null: a sixteenth of jsonl's by a hash, or
    generated ones."""
    test_file: str | None = None
    """Likewise for the test."""
    per_op: int | None = field(default=None, metadata={"high": 2**24})
    """Of each number of operations in validation_file and test_file so many, in the published mix (four fifths zoo, a
    tenth movies and schools each, both modes alike; published: 200, and 100 of symbolic ones); null: all."""
    tokenizer: str = "words"
    """words: a token for every word of the settings; else the name or directory of a Hugging Face tokenizer."""
    question: Literal["before", "behind"] = "before"
    """Where the question stands: before the facts, as published, so that the model reads knowing what it will be asked;
    or behind them. With pad_side=left it ends the last window that sleeps, with right it is in that of the answer."""
    pad_side: Literal["left", "right"] = "left"
    """left: the answer is at the same place in every row. right: windows are counted from the start of the text; all
    answers must fall into one window, so min_tokens is a multiple of the window and max_tokens less than one above."""
    pad: Literal["token", "neutral"] = "token"
    """token: padding is read like any token; neutral: the model ignores it."""

    def __post_init__(self) -> None:
        if not self.ops or min(self.ops) < 1 or len(set(self.ops)) < len(self.ops):
            raise ValueError(f"task.ops={self.ops} must list different numbers from 1, for example [2, 4]")
        if max(self.ops) > MAX_OP and self.jsonl is None:
            raise ValueError(
                f"task.ops={self.ops}: generated problems have 1 to {MAX_OP} operations; only those of a file "
                f"(task.jsonl) may have more"
            )
        if self.per_op is not None and self.per_op < 1:
            raise ValueError(f"task.per_op={self.per_op} must be at least 1, or null")
        if not self.settings or set(self.settings) - set(SETTINGS):
            raise ValueError(f"task.settings={self.settings} must list one or more of {', '.join(SETTINGS)}")
        if not self.modes or set(self.modes) - set(MODES) or len(set(self.modes)) < len(self.modes):
            raise ValueError(f"task.modes={self.modes} must list one or both of {', '.join(MODES)}")
        if "reverse" in self.modes and min(self.ops) < 2 and self.jsonl is None:
            raise ValueError(
                f"task.ops={self.ops} with task.modes={self.modes}: a reverse problem takes at least 2 operations; "
                f"leave 1 out or use modes [forward]"
            )
        if self.depth not in (2, 3):
            raise ValueError(f"task.depth={self.depth} must be 2 (medium) or 3 (hard)")
        for key, low, high in (("n_places", 3, PLACES), ("n_kinds", 2, KINDS), ("max_constant", 2, 100)):
            if not low <= (value := getattr(self, key)) <= high:
                raise ValueError(f"task.{key}={value} must be from {low} to {high}")
        if not self.max_constant <= self.max_value <= 1000:
            raise ValueError(
                f"task.max_value={self.max_value} must be from task.max_constant={self.max_constant} to 1000"
            )
        if not 1 <= self.min_tokens <= self.max_tokens:
            raise ValueError(
                f"task.min_tokens={self.min_tokens} must be from 1 to task.max_tokens={self.max_tokens}, the longest"
            )
