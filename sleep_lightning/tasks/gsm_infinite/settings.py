"""The three settings: the same grammar over different places, kinds and members."""

from dataclasses import dataclass
from itertools import product

PLACES, KINDS = 72, 48
"""Names of places and of kinds in every setting."""


@dataclass(frozen=True)
class Setting:
    """Names of one setting. The hierarchy is places > kinds > members: a park has otters, and an otter has young.

    Attributes:
        template: name of this setting in the published JSONL files.
        places: all places; a prefix of the list mixes first and second names evenly.
        kinds: all kinds, singular; the plural adds an s.
        preposition: how a kind is located at a place.
        group: what all kinds of a place are, together.
        members: what every one of a kind has.
    """

    template: str
    places: tuple[str, ...]
    kinds: tuple[str, ...]
    preposition: str
    group: str
    members: str


def _pairs(first: str, second: str) -> tuple[str, ...]:
    """All pairs, in an order whose every prefix uses both lists evenly."""
    a, b = first.split(", "), second.split(", ")
    order = sorted(product(range(len(a)), range(len(b))), key=lambda ij: ((ij[0] - ij[1]) % len(a), ij[0]))
    return tuple(f"{a[i]} {b[j]}" for i, j in order)


SETTINGS: dict[str, Setting] = {
    "zoo": Setting(
        template="crazy_zootopia",
        places=_pairs(
            "Fern, Willow, Granite, Marsh, Juniper, Copper, Heather, Lark, Thistle, Amber, Birch, Clover",
            "Park, Hollow, Reserve, Garden, Island, Sanctuary",
        ),
        kinds=_pairs(
            "grey, striped, dwarf, spotted, northern, crested",
            "otter, heron, lemur, tapir, badger, falcon, turtle, camel",
        ),
        preposition="at",
        group="animals",
        members="young",
    ),
    "schools": Setting(
        template="teachers_in_school",
        places=_pairs(
            "Upper, Lower, East, West, Old, New, Great, Little, Inner, Outer, Royal, Far",
            "Elmford, Ashby, Stonehaven, Millbrook, Ravenna, Kestrel",
        ),
        kinds=_pairs(
            "public, private, rural, coastal, technical, bilingual",
            "kindergarten, college, institute, lyceum, music school, trade school, sports school, night school",
        ),
        preposition="in",
        group="schools",
        members="teachers",
    ),
    "movies": Setting(
        template="movie_festival_awards",
        places=_pairs(
            "Lisbon, Turin, Bergen, Quito, Dakar, Osaka, Perth, Krakow, Tunis, Lima, Seoul, Porto",
            "Festival, Biennale, Showcase, Premiere, Film Week, Screen Days",
        ),
        kinds=_pairs(
            "silent, animated, independent, historical, musical, experimental",
            "western, thriller, drama, romance, satire, fable, epic, whodunit",
        ),
        preposition="at",
        group="movies",
        members="prizes",
    ),
}
"""Settings by the name that ``task.settings`` uses."""

assert all(len(s.places) == PLACES and len(s.kinds) == KINDS for s in SETTINGS.values())
