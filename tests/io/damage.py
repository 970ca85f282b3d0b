"""Files damaged at random, for readers of untrusted formats."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from cingulum.errors import InputError


def number_refused(read: Callable[[], object], path: Path, times: int) -> int:
    """How often `read` refuses the file with an InputError after up to 19 random bytes
    of it were changed and its end was cut off; any other exception comes through."""
    original = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(times):
        damaged = bytearray(original)
        for place in rng.integers(0, len(damaged), rng.integers(1, 20)):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged[: rng.integers(1, len(damaged) + 1)])
        try:
            read()
        except InputError:
            refused += 1
    return refused
