"""Random streams: which random numbers serve which purpose.

Each purpose draws from a stream of its own, so that its numbers do not change when
another purpose draws more, and no two purposes share numbers. The values are part of
published results: add to them, and never renumber.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Stream(IntEnum):
    """Streams of the evaluation of a prediction. None is 0: trailing zeros of a key
    add nothing to it."""

    PAIRED_PERMUTATION = 1
    INNER_FOLDS = 2
    WEIGHT_MAPS = 3
    REGRESSION_FOLDS = 4
    REGRESSION_PERMUTATION = 5
    DOSE_RESPONSE = 6
    PUBLISHED_REGRESSION = 7
    LEARNING_CURVE = 8
    AUDIT_NOISE = 9
    DIFFERENCE = 10
    AUDIT_RATINGS = 11
    CONFOUNDER_TEST = 12
    KEPT_ORDERS = 13


class CohortStream(IntEnum):
    """Streams of a synthetic cohort."""

    TRUTH = 0
    PERSON = 1
    VISIT = 2
    DEMOGRAPHICS = 3


def generator(seed: int, stream: Stream, *repetition: int) -> np.random.Generator:
    """The generator of one purpose; repetitions are numbered from 1."""
    # The 0 is part of the key of every published number, and must stay.
    return np.random.default_rng((seed, 0, int(stream), *repetition))


def cohort_generator(
    seed: int, stream: CohortStream, *member: int
) -> np.random.Generator:
    """The generator of one part of a synthetic cohort, or of one member of it."""
    return np.random.default_rng((seed, int(stream), *member))
