"""What may be exchanged under the null hypothesis, and the p-values that follow.

Within patients: a patient's two visits may be swapped (a sign of the difference), all
modalities together. Between patients: whole patients may exchange their ratings, both
visits at once, inside their site. scikit-learn's `permutation_test_score(groups=…)`
shuffles inside a group only, which with one label per patient changes nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import joblib
import numpy as np
from scipy.stats import false_discovery_control

from cingulum.errors import InputError
from cingulum.progress import track

T = TypeVar("T")

Jobs = (
    int
    | None
    | Callable[[Callable[[np.ndarray], Any], Sequence[np.ndarray]], Iterator[Any]]
)
"""How blocks of permutations are run: by so many threads (None: one per core), or by a
function of the work and its blocks that gives the results in order, from an earlier run
or a cluster. Blocks are independent, so the results are the same."""

Side = Literal["greater", "less", "two-sided"]

ALIKE = 1e-12
"""Statistics closer than this are ties, and count against the effect."""


def sign_flips(
    times: int,
    patients: int,
    rng: np.random.Generator,
    blocks: np.ndarray | None = None,
) -> np.ndarray:
    """Signs (times, patient); patients of one block (a family, say) flip together."""
    if blocks is None:
        return _random_signs(times, patients, rng)
    names, member = np.unique(blocks, return_inverse=True)
    return _random_signs(times, len(names), rng)[:, member]


def _random_signs(times: int, number: int, rng: np.random.Generator) -> np.ndarray:
    return rng.choice([-1.0, 1.0], size=(times, number))


def dealt_into_folds(
    units: int, folds: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Fold of each patient, or block of patients (unit,); with None, one is left out at
    a time.

    Raises InputError for fewer than two folds, or more than units.
    """
    if folds is None:
        return np.arange(units)
    if not 2 <= folds <= units:
        raise InputError(
            f"folds is between 2 and the number of patients, {units}; got {folds}."
        )
    # Fold sizes differ by at most one.
    return rng.permutation(units) % folds


def row_blocks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    """Blocks of so many rows; the last may be shorter."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def stopped_p(
    observed: float, null: np.ndarray, stop_after: int | None
) -> tuple[float, int]:
    """One-sided p, and the number of permutations that it needed."""
    if stop_after is None:
        return p_value(observed, null), len(null)
    return sequential_p(observed, null, stop_after)


def exchanges(
    times: int, patients: int, rng: np.random.Generator, sites: np.ndarray | None = None
) -> np.ndarray:
    """Orders (times, patient): whose ratings each patient gets; patients exchange
    ratings within their site only."""
    # Without sites, everybody is of one.
    site = np.zeros(patients) if sites is None else np.asarray(sites)
    orders = np.tile(np.arange(patients), (times, 1))
    for value in np.unique(site):
        rows = np.flatnonzero(site == value)
        orders[:, rows] = rng.permuted(np.tile(rows, (times, 1)), axis=1)
    return orders


def in_blocks(
    work: Callable[[np.ndarray], T],
    blocks: Sequence[np.ndarray],
    jobs: Jobs,
    show_progress: bool,
    label: str = "permutations",
) -> Iterator[T]:
    """Results of work(block), in order, by threads or by the function `jobs`. The
    caller may stop iterating early."""
    number = len(blocks)
    if callable(jobs):
        yield from track(jobs(work, blocks), label, total=number, show=show_progress)
        return
    results = _by_threads(work, blocks, jobs)
    with _closed_in_silence(results):
        yield from track(results, label, total=number, show=show_progress)


@contextmanager
def _closed_in_silence(results: Generator[T]) -> Iterator[None]:
    with warnings.catch_warnings():
        # joblib warns when the caller stops early, which is meant.
        warnings.filterwarnings(
            "ignore", "[0-9]+ tasks have been successfully executed"
        )
        try:
            yield
        finally:
            results.close()


def _by_threads(
    work: Callable[[np.ndarray], T], blocks: Sequence[np.ndarray], jobs: int | None
) -> Generator[T]:
    # Threads, since the compiled code releases Python's lock.
    workers = joblib.Parallel(
        n_jobs=jobs or joblib.cpu_count(), prefer="threads", return_as="generator"
    )
    return workers(joblib.delayed(work)(block) for block in blocks)


def p_value(observed: float, null: np.ndarray, side: Side = "greater") -> float:
    """(b + 1) / (m + 1) of m permuted statistics, of which b are at least as extreme;
    two-sided: twice the smaller."""
    null = np.asarray(null)
    above = _share_reached(null >= observed - ALIKE)
    below = _share_reached(null <= observed + ALIKE)
    if side == "greater":
        return above
    if side == "less":
        return below
    if side == "two-sided":
        return min(1.0, 2 * min(above, below))
    raise InputError(f"side is greater, less or two-sided; got {side!r}.")


def _share_reached(is_extreme: np.ndarray) -> float:
    # The observed statistic is one of those exchanged, so p is never 0.
    return (1 + int(is_extreme.sum())) / (1 + len(is_extreme))


def sequential_p(observed: float, null: np.ndarray, enough: int) -> tuple[float, int]:
    """One-sided p of Besag and Clifford (1991, doi:10.1093/biomet/78.2.301) and how
    many permutations it took.

    Permutations are looked at in order until `enough` are at least as extreme: p =
    enough / looked at. If that never happens, p = (b + 1) / (m + 1). Both are exact.
    """
    check_enough(enough)
    is_extreme = np.asarray(null) >= observed - ALIKE
    hits = np.flatnonzero(is_extreme)
    if len(hits) < enough:
        return _share_reached(is_extreme), len(null)
    examined = int(hits[enough - 1]) + 1
    return enough / examined, examined


def check_enough(enough: int | None) -> None:
    """Raises InputError for an early stop that would not look at anything."""
    if enough is not None and enough < 1:
        raise InputError(
            "stop_after is at least 1 permutation as good as what was found; got "
            f"{enough}."
        )


def max_statistic_p(observed: np.ndarray, largest: np.ndarray) -> np.ndarray:
    """Family-wise p of many statistics (feature,) against the largest of each
    permutation (m,)."""
    m = len(largest)
    smaller = np.searchsorted(np.sort(largest), np.asarray(observed) - ALIKE)
    return (1 + m - smaller) / (1 + m)


def fdr(p: np.ndarray) -> np.ndarray:
    """False discovery rates by Benjamini and Hochberg (scipy's); NaN is kept and does
    not count."""
    q = np.full(np.shape(p), np.nan)
    known = np.isfinite(p)
    if known.any():
        q[known] = false_discovery_control(np.asarray(p)[known])
    return q
