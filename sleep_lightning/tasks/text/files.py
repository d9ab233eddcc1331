"""Rows from files: one for each split, or one that is dealt to all of them."""

import random
from collections.abc import Mapping
from dataclasses import replace

from sleep_lightning.refusals import UnusableRow
from sleep_lightning.tasks.task import SPLITS, Split
from sleep_lightning.tasks.text.index import Index, open_index
from sleep_lightning.tasks.text.records import Place, Records, open_records
from sleep_lightning.tasks.text.row import TextRow
from sleep_lightning.tasks.text.schema import Schema
from sleep_lightning.tasks.tokenizer import Tokenizer

_PROBED_TEXTS, _PROBED_CHARACTERS = 16, 4096
_MARGIN = 3
"""A piece of text has so many times the characters that its tokens take in the mean, and is cut to its tokens."""
_FAR = 200
"""Characters within which a piece begins behind a space."""


class FileRows:
    """A ``RowSource`` of files, streamed. A long plain text is read in pieces, which are drawn like rows.

    Args:
        files: by split. A split without a file gets a sixteenth of the one for training, by a hash of what the answers
            follow from; files that are given are not compared with each other.
        schema: of their records.
        tokenizer: by which pieces are measured.
        piece_tokens: tokens of a piece of text.

    Raises:
        ValueError: a file cannot be read, holds a record that cannot be used, or has none for a split.
    """

    def __init__(self, files: Mapping[Split, str], schema: Schema, tokenizer: Tokenizer, piece_tokens: int) -> None:
        self.schema, self.tokenizer, self.piece_tokens = schema, tokenizer, piece_tokens
        self.records: dict[Split, Records] = {}
        self.indices: dict[Split, Index] = {}
        for split in sorted(files, key=lambda one: one == "train"):
            records = open_records(files[split], f"task.{split}")
            dealt = {s: s if split == "train" and s not in files else split for s in SPLITS}
            found = open_index(records, schema.evidence, dealt, repr(schema.slices))
            for one in dict.fromkeys(dealt.values()):
                self.records[one], self.indices[one] = records, found[one]
                if not len(found[one]):
                    raise ValueError(self._empty(records, one, sum(map(len, found.values()))))
        self._density = self._characters_per_token()

    @staticmethod
    def _empty(records: Records, split: Split, n: int) -> str:
        if not n:
            return f"{records.key}={records.path} holds no records; give a file with one JSON object a line"
        return (
            f"{records.key}={records.path} has {n} records, none of which the hash deals to {split}; give a larger "
            f"file, or one of its own as task.{split}"
        )

    def draw(self, rng: random.Random, split: Split) -> TextRow:
        """See ``RowSource``: any record, and of a long text any piece."""
        return self._row(split, rng.randrange(len(self.indices[split])), rng)

    def ordered(self, split: Split, start: int, n: int) -> list[TextRow]:
        """``n`` records from number ``start`` on, in the order of the file, over and over."""
        count = len(self.indices[split])
        return [self._row(split, i % count, random.Random(i)) for i in range(start, start + n)]

    def _row(self, split: Split, i: int, rng: random.Random) -> TextRow:
        place, records = self.indices[split][i], self.records[split]
        row = self.schema.row(self._read(records, place), records.origin(place))
        if row.questions or not isinstance(text := row.parts[0], str):
            return row
        return replace(row, parts=(self._piece(text, rng),))

    def _read(self, records: Records, place: Place) -> object:
        try:
            record = records.read(place)
            self.schema.evidence(record)
        except ValueError as error:
            raise UnusableRow(f"{records.path} has changed since it was opened ({error}); run again") from error
        return record

    def _piece(self, text: str, rng: random.Random) -> str:
        length = self.piece_tokens * self._density
        n = max(1, round(len(text) / length))
        start = len(text) * rng.randrange(n) // n
        if start and (space := text.find(" ", start, start + _FAR)) >= 0:
            start = space
        return text[start : start + round(_MARGIN * length)]

    def _characters_per_token(self) -> float:
        characters = tokens = 0
        for i in range(min(_PROBED_TEXTS, len(self.indices["train"]))):
            place, records = self.indices["train"][i], self.records["train"]
            text = self.schema.row(records.read(place), "").context[:_PROBED_CHARACTERS]
            characters, tokens = characters + len(text), tokens + len(self.tokenizer.encode(text))
        return max(1.0, characters / max(1, tokens))
