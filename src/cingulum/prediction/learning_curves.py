"""Would more patients help? Performance with random subsets of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cingulum.prediction.paired_evaluation import evaluate
from cingulum.prediction.permutation import Jobs, in_blocks
from cingulum.prediction.scores import Evaluation
from cingulum.prediction.svm.products import inner_products
from cingulum.random_streams import Stream, generator

SIZES = (10, 15, 20, 30, 40, 60, 80, 120, 200)
"""Numbers of patients by default, and the number of all."""


def compact(values: np.ndarray) -> np.ndarray:
    """Features (patient, visit, k) with k at most the number of scans and the same
    inner products: for linear models the same data, without the voxels."""
    n, visits, features = values.shape
    if features <= n * visits:
        return values.astype(np.float64)
    gram = inner_products(values.reshape(-1, features))
    return _square_root(gram).reshape(n, visits, -1)


def _square_root(gram: np.ndarray) -> np.ndarray:
    """Rows (row, column) with these inner products."""
    size, vectors = np.linalg.eigh(gram)
    # Rounding may leave eigenvalues just below 0.
    return vectors * np.sqrt(size.clip(0))


# Keywords instead of settings: it is called as `evaluate` is.
def learning_curve(  # noqa: PLR0913
    modalities: dict[str, np.ndarray],
    patients: Sequence[str],
    *,
    sizes: Sequence[int] | None = None,
    repeats: int = 20,
    controls: tuple[str, ...] = (),
    confounds: dict[str, np.ndarray] | None = None,
    folds: int | None = None,
    scale: tuple[str, ...] = (),
    seed: int = 0,
    jobs: Jobs = 1,
    show_progress: bool = False,
    **options: object,
) -> pd.DataFrame:
    """Accuracy of the fused model (or the only one) evaluated on random subsets of
    patients.

    Columns: patients, accuracy, sd (over subsets), auc. options: of `evaluate`. Subsets
    overlap, so sd is too small for an interval at large sizes.
    """
    evaluation = _SubsetEvaluation(
        values=_compacted(modalities, scale),
        patients=[str(patient) for patient in patients],
        confounds=confounds or {},
        folds=folds,
        subsets=_subsets(len(patients), sizes, repeats, seed),
        options={"controls": controls, "scale": scale, **options},
    )
    blocks = list(np.arange(len(evaluation.subsets))[:, None])
    results = in_blocks(evaluation, blocks, jobs, show_progress, "learning curve")
    return _table(evaluation.subsets, np.concatenate(list(results)))


def _compacted(
    modalities: dict[str, np.ndarray], scale: tuple[str, ...]
) -> dict[str, np.ndarray]:
    """Modalities with few columns, where that does not change the evaluation."""
    values = {}
    for name, v in modalities.items():
        # Scaling needs the features themselves, not only their inner products.
        values[name] = v if name in scale else compact(v)
    return values


@dataclass(frozen=True, eq=False)
class _Subset:
    """rows: of the patients, ascending; seed: of the evaluation."""

    rows: np.ndarray
    seed: int


def _subsets(
    n: int, sizes: Sequence[int] | None, repeats: int, seed: int
) -> list[_Subset]:
    """Random subsets of each size; of all n patients there is only one."""
    rng = generator(seed, Stream.LEARNING_CURVE)
    subsets = []
    for size in sizes or _default_sizes(n):
        times = 1 if size == n else repeats
        for repeat in range(times):
            # Other folds in every subset, too; all patients keep those of `evaluate`,
            # since their only repeat is 0.
            subsets.append(_Subset(_drawn(n, size, rng), seed + repeat))
    return subsets


def _drawn(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Rows of so many of n patients, in the order of the table."""
    return np.sort(rng.choice(n, size, replace=False))


def _default_sizes(n: int) -> list[int]:
    return sorted({size for size in (*SIZES, n) if 10 <= size <= n})


@dataclass(frozen=True, eq=False)
class _SubsetEvaluation:
    """Accuracy and AUC (subset, 2) of the subsets with these numbers."""

    values: dict[str, np.ndarray]
    patients: list[str]
    confounds: dict[str, np.ndarray]
    folds: int | None
    subsets: list[_Subset]
    options: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        return np.array([self._accuracy_and_auc(self.subsets[i]) for i in numbers])

    def _accuracy_and_auc(self, subset: _Subset) -> tuple[float, float]:
        evaluation = self._evaluated(subset)
        score = evaluation.scores[evaluation.best]
        return score.accuracy, score.auc

    def _evaluated(self, subset: _Subset) -> Evaluation:
        rows = subset.rows
        return evaluate(
            _rows_of(self.values, rows),
            [self.patients[i] for i in rows],
            confounds=_rows_of(self.confounds, rows),
            folds=self._folds(len(rows)),
            # A curve needs the scores only.
            permutations=0,
            contributions=False,
            seed=subset.seed,
            # Subsets are the parallel work already.
            jobs=1,
            **self.options,
        )

    def _folds(self, patients: int) -> int | None:
        # A small subset may have fewer patients than the study has folds.
        return None if self.folds is None else min(self.folds, patients)


def _rows_of(tables: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: table[rows] for name, table in tables.items()}


def _table(subsets: list[_Subset], results: np.ndarray) -> pd.DataFrame:
    """One row per size; results (subset, 2): accuracy and AUC."""
    # By size, since sizes may be repeated and in any order.
    table = pd.DataFrame(results, columns=["accuracy", "auc"])
    table["patients"] = [len(subset.rows) for subset in subsets]
    means = table.groupby("patients").agg(
        accuracy=("accuracy", "mean"), sd=("accuracy", "std"), auc=("auc", "mean")
    )
    return means.reset_index()
