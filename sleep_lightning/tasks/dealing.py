"""Which split a sequence belongs to: by a hash of what its answers follow from, so that splits share no evidence."""

from hashlib import blake2b

import torch
from torch import Tensor

from sleep_lightning.tasks.task import Split

SHARES = 16
"""Validation and test get one share each, train the rest."""
FEWEST = 2**10
"""Different evidence that there must be, so that every split has some."""


def scrambled(x: Tensor) -> Tensor:
    """A bijective hash of int64 (splitmix64's steps, multiplications wrap)."""
    x = (x ^ x >> 30) * -0x40A7B892E31B1A47
    x = (x ^ x >> 27) * -0x6B2FB644ECCEEE15
    return x ^ x >> 31


def share_of_set(items_BN: Tensor, absent_BN: Tensor) -> Tensor:
    """Share ``[B]``, 0 to 15, of each row's set of numbers (int64, the absent ones not counted), in any order."""
    return scrambled(scrambled(items_BN).masked_fill(absent_BN, 0).sum(1)) >> 7 & SHARES - 1


def in_split(share_B: Tensor, split: Split) -> Tensor:
    """Which shares belong to a split: 0 to validation, 1 to test."""
    held_out = {"validation": 0, "test": 1}
    return torch.ge(share_B, 2) if split == "train" else share_B == held_out[split]


def split_of(content: str) -> Split:
    """The split of a text (halves of surrogate pairs, which JSON may hold, included)."""
    dealt = int.from_bytes(blake2b(content.encode(errors="surrogatepass"), digest_size=8).digest()) % SHARES
    return "validation" if dealt == 0 else "test" if dealt == 1 else "train"
