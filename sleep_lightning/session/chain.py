"""A list that grows at its end and is never changed: states that share a past share its beginning."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Chain(Generic[T]):
    """The last item and what came before it; ``Chain()`` is empty. Growing costs the same however long it is."""

    last: T | None = None
    before: "Chain[T] | None" = None
    length: int = 0

    def plus(self, item: T) -> "Chain[T]":
        """The chain with one more item."""
        return Chain(item, self, self.length + 1)

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[T]:
        """First to last."""
        items, chain = [], self
        while chain.before is not None:
            items.append(chain.last)
            chain = chain.before
        return reversed(items)  # type: ignore[arg-type]
