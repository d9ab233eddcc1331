"""Articles whose end depends on their beginning: language modelling across an eviction.

The opening introduces a person with names, places and works, spread among filler over whole windows. The end, one more
window, mentions them again in sentences of its own. Its tokens are predicted, each from those before it: all that is
new in it is which sentence follows, and every name can be known only from windows that have been evicted.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache

from sleep_lightning.tasks.dealing import split_of
from sleep_lightning.tasks.gsm_infinite.draw import pick, shuffled
from sleep_lightning.tasks.stamp import Stamp, stamp
from sleep_lightning.tasks.suites.filler import Haystack, all_filler, draw_filler, named
from sleep_lightning.tasks.suites.stretch import Measure, Plot, Stretch
from sleep_lightning.tasks.task import Split
from sleep_lightning.tasks.text.layout import Room
from sleep_lightning.tasks.text.row import TextRow
from sleep_lightning.tasks.text.task import RowTask
from sleep_lightning.tasks.tokenizer import Tokenizer, anchored, load_tokenizer
from sleep_lightning.tasks.word_tokenizer import WORDS, WordTokenizer

NAMES = {
    "person": named("Aldane, Brennick, Corvell, Dastrow, Elmhart, Fenwick, Garrow, Holmstead, Ivarsen, Jarrold"),
    "home": named("Ashby, Birkvale, Crowmere, Dunholt, Eastwick, Farlow, Greyford, Harnby, Ilsdale, Kelmoor"),
    "city": named("Lorvik, Marlent, Norstad, Ostrava, Pallen, Quinby, Roswell, Sarnath, Tolmin, Ulverton"),
    "teacher": named("Vance, Wexler, Yardley, Zoller, Abbott, Barlow, Conrad, Draper, Emmett, Forster"),
    "rival": named("Gibbon, Harker, Isham, Jessop, Kemble, Lathrop, Mercer, Norris, Oakley, Pelham"),
    "trade": named("botanist, cellist, chemist, geologist, linguist, naturalist, painter, sailor, sculptor, surgeon"),
    "work": named("Atlas, Ballads, Chronicle, Dialogues, Elegies, Fables, Letters, Memoirs, Portraits, Sketches"),
    "river": named("Tarn, Severn, Ouse, Medway, Lune, Kennet, Isis, Humber, Dart, Avon"),
}
"""What an article is about, and what it may be called."""
_OPENING = (
    " {person} the {trade} was born in {home}.",
    " In {city} {person} learned from {teacher}.",
    " The {work} was written against {rival}.",
    " A house was built by the {river}.",
)
_END = (
    (" The child of {home} was never forgotten there.", " Old people in {home} tell of it."),
    (" The university of {city} keeps the papers.", " There is a statue in {city}."),
    (" It was {teacher} who found the first drawings.", " The notes of {teacher} say little."),
    (" Even {rival} came to the funeral.", " A reply by {rival} was lost."),
    (" Today the {work} is read in schools.", " The first print of the {work} was small."),
    (" The garden by the {river} is open in summer.", " The ashes were given to the {river}."),
    (" So ended the life of {person}.", " A prize is named after {person}."),
    (" Few lived so well as a {trade}.", " No {trade} was more admired."),
)


@dataclass
class ArticlesConfig:
    name: str = "articles"
    """Name of the task."""
    windows: int = field(default=2, metadata={"high": 2**16})
    """Windows of the opening, all evicted before the end; filler fills them up."""
    window_tokens: int = field(default=64, metadata={"high": 2**24})
    """Tokens of a window (the L of sleep.window_size), and of the end, which is predicted."""
    haystack: Haystack = "prose"
    """Filler: five short sentences over and over (noise), or sentences that hardly return (prose)."""
    tokenizer: str = WORDS
    """words: a token for every word of the articles; bytes; else the name or directory of a Hugging Face tokenizer."""

    def __post_init__(self) -> None:
        for key, least in (("windows", 1), ("window_tokens", 2)):
            if getattr(self, key) < least:
                raise ValueError(f"task.{key}={getattr(self, key)} must be at least {least}")

    def build(self) -> RowTask:
        """The task; the same one for equal keys and files of a tokenizer."""
        return _built(json.dumps(vars(self)), stamp([self.tokenizer]))

    def anchored(self) -> "ArticlesConfig":
        """The same with an absolute path of a tokenizer's directory."""
        return self if self.tokenizer == WORDS else replace(self, tokenizer=anchored(self.tokenizer))


class ArticlesSource:
    """A ``RowSource`` of articles. Splits share none about the same person with the same names around them.

    Args:
        keys: of the task.
        measure: tokens of a text.
        reserved: tokens that the tokenizer puts before a text.

    Raises:
        ValueError: the opening does not fit its windows.
    """

    def __init__(self, keys: ArticlesConfig, measure: Measure, reserved: int = 0) -> None:
        self.keys, self._measure, self._stretch = keys, measure, Stretch(measure)
        self._tokens = keys.windows * keys.window_tokens - reserved
        longest = max(self._stretch.shortest(self._plot(random.Random(i))[0]) for i in range(32))
        if longest > self._tokens:
            raise ValueError(
                f"task.windows={keys.windows} with task.window_tokens={keys.window_tokens} gives openings of "
                f"{self._tokens} tokens, and they take up to {longest} without filler; use more or longer windows"
            )

    def draw(self, rng: random.Random, split: Split) -> TextRow:
        """See ``RowSource``."""
        while True:
            plot, names = self._plot(rng)
            if split_of(plot.key) == split and self._stretch.shortest(plot) <= self._tokens:
                opening = self._stretch(rng, plot, self._tokens).context
                return TextRow((opening + self._end(rng, names),))

    def _plot(self, rng: random.Random) -> tuple[Plot, dict[str, str]]:
        names = {role: pick(rng, of_role) for role, of_role in NAMES.items()}
        events = [text.format(**names) for text in _OPENING]
        return Plot(repr(names), events, [], lambda: draw_filler(rng, self.keys.haystack)), names

    def _end(self, rng: random.Random, names: dict[str, str]) -> str:
        """Every name once in any order, and then again, until the window is full."""
        text, left, rest = "", self.keys.window_tokens + 1, list[tuple[str, str]]()
        while left > 0:
            rest = rest or shuffled(rng, _END)
            said = pick(rng, rest.pop()).format(**names)
            text, left = text + said, left - self._measure(said)
        return text


def texts(haystack: Haystack) -> Iterator[str]:
    """Texts that hold every word of the articles."""
    yield from all_filler(haystack)
    yield from (name for of_role in NAMES.values() for name in of_role)
    yield from (text.replace("{", "").replace("}", "") for text in (*_OPENING, *(x for pair in _END for x in pair)))


@lru_cache(maxsize=8)
def _built(values: str, stamped: Stamp) -> RowTask:
    keys = ArticlesConfig(**json.loads(values))
    tokenizer: Tokenizer = (
        WordTokenizer(texts(keys.haystack), 0) if keys.tokenizer == WORDS else load_tokenizer(keys.tokenizer)
    )
    source = ArticlesSource(keys, lambda text: len(tokenizer.encode(text)), len(tokenizer.bos))
    return RowTask(source, tokenizer, Room(keys.window_tokens, keys.windows, keys.window_tokens), probe=False)
