"""Many short strings in one block, which workers share after a fork.

As every use of a Python object writes its count of references, each worker would come to hold a copy of a list.
"""

from collections.abc import Iterable

import numpy as np


class PackedBytes:
    """Strings of bytes by index, in one block."""

    def __init__(self, items: Iterable[bytes]) -> None:
        blocks = list(items)
        self._ends = np.cumsum([0, *map(len, blocks)])
        self._block = b"".join(blocks)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self._block[self._ends[index] : self._ends[index + 1]]
