"""Keys of the tasks of text."""

import json
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from sleep_lightning.tasks.stamp import Stamp, stamp
from sleep_lightning.tasks.task import SPLITS, Split
from sleep_lightning.tasks.text.files import FileRows
from sleep_lightning.tasks.text.kept import Kept, KeptRows
from sleep_lightning.tasks.text.layout import Overlong, Room
from sleep_lightning.tasks.text.schema import Schema
from sleep_lightning.tasks.text.task import Asked, RowTask
from sleep_lightning.tasks.tokenizer import BYTES, HuggingFaceTokenizer, anchored, load_tokenizer


@dataclass
class TextKeys:
    """Fields and their validation; ``TextConfig`` adds ``build``."""

    name: str = "text"
    """Name of the task."""
    train: str | None = None
    """File of JSON lines (or a JSON array, or Parquet). A record has messages; or text; or question and answer, or
    lists of them, and maybe context."""
    validation: str | None = None
    """Its file; null: a sixteenth of task.train's records, by a hash of what their answers follow from."""
    test: str | None = None
    """Likewise."""
    tokenizer: str = BYTES
    """bytes: a token for every byte; else the name or directory of a Hugging Face tokenizer."""
    window_tokens: int = field(default=64, metadata={"high": 2**17})
    """Tokens of a window (the L of sleep.window_size): what is asked begins a window."""
    context_windows: int = field(default=4, metadata={"high": 2**20})
    """Most windows before the last question; shorter rows are padded, and what is padding in all rows costs nothing."""
    question_tokens: int = field(default=64, metadata={"high": 2**20})
    """Most tokens of the last questions and their answers; of plain text, those that are predicted."""
    question: Asked = "behind"
    """behind the context, before it (a window more), or both: one of the two drawn for each row, scored apart."""
    overlong: Overlong = "refuse"
    """A longer context is refused, or cut: its end stays."""
    question_template: str = "\nQuestion: {question}"
    """What is asked."""
    cue: str = "\nAnswer:"
    """What stands before an answer, wherever the question stands."""
    answer_template: str = " {answer}"
    """What the labels are."""
    kept: Kept = "all"
    """Of the context: all; what bm25 finds for the questions; or an extractive summary (controls: no memory needed)."""
    kept_windows: int = field(default=1, metadata={"high": 2**16})
    """Windows that bm25 finds, or that a summary takes."""
    slices: list[str] = field(default_factory=list)
    """Whole numbers in every record by which scores are reported, [depth] for example."""

    def __post_init__(self) -> None:
        if self.window_tokens < 2 or self.question_tokens < 2:
            raise ValueError(
                f"task.window_tokens={self.window_tokens} and task.question_tokens={self.question_tokens} must be at "
                f"least 2"
            )
        for key in ("context_windows", "kept_windows"):
            if getattr(self, key) < 1:
                raise ValueError(f"task.{key}={getattr(self, key)} must be at least 1")
        for key in ("question", "answer"):
            if f"{{{key}}}" not in (template := getattr(self, f"{key}_template")):
                raise ValueError(f"task.{key}_template={template!r} must hold {{{key}}}")

    @property
    def files(self) -> dict[Split, str]:
        """Those that are named."""
        return {split: path for split in SPLITS if (path := getattr(self, split)) is not None}


@dataclass
class TextConfig(TextKeys):
    """The keys of section ``task``; ``build`` makes the task."""

    def build(self) -> RowTask:
        """The task; the same one for equal keys while its files stay as they are."""
        if self.train is None:
            raise ValueError("task.train is not set; name a file of JSON lines or Parquet")
        return _build(json.dumps(vars(self)), stamp([*self.files.values(), self.tokenizer]))

    def anchored(self) -> "TextConfig":
        """The same with absolute paths of files, and of the tokenizer's directory."""
        files = {split: str(Path(path).absolute()) for split, path in self.files.items()}
        return replace(self, **files, tokenizer=anchored(self.tokenizer))  # type: ignore[arg-type]


@lru_cache(maxsize=4)
def _build(keys: str, stamped: Stamp) -> RowTask:
    """An experiment builds its task several times, and a large file takes long to read."""
    c = TextKeys(**json.loads(keys))
    tokenizer = load_tokenizer(c.tokenizer)
    chat = tokenizer.chat if isinstance(tokenizer, HuggingFaceTokenizer) else None
    schema = Schema(c.question_template, c.cue, c.answer_template, tuple(c.slices), chat)
    room = Room(c.window_tokens, c.context_windows, c.question_tokens)
    rows = FileRows(c.files, schema, tokenizer, room.context_tokens + room.question_tokens + 1)
    if c.kept == "all":
        return RowTask(rows, tokenizer, room, question=c.question, overlong=c.overlong)

    def measure(text: str) -> int:
        return len(tokenizer.encode(text))

    less = KeptRows(rows, c.kept, c.kept_windows, c.window_tokens - len(tokenizer.bos), measure, together=True)
    room = replace(room, windows=c.kept_windows)
    return RowTask(less, tokenizer, room, question=c.question, overlong="cut")  # a sentence may be longer than a window
