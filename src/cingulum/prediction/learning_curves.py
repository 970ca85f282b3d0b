"""How good would it be with fewer patients? And so: are more worth their while?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cingulum.prediction.paired_evaluation import evaluate
from cingulum.prediction.permutation import Jobs, in_blocks
from cingulum.prediction.svm.products import inner_products
from cingulum.random_streams import Stream, generator


def compact(values: np.ndarray) -> np.ndarray:
    """Features (patient, visit, k) with k at most the number of scans and the same
    inner products: for linear machines the same data, without the voxels."""
    n, visits, features = values.shape
    if features <= n * visits:
        return values.astype(np.float64)
    gram = inner_products(values.reshape(n * visits, features))
    size, vectors = np.linalg.eigh(gram)
    return (vectors * np.sqrt(size.clip(0))).reshape(n, visits, -1)


def learning_curve(
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
    n, rng = len(patients), generator(seed, Stream.LEARNING_CURVE)
    small = {name: v if name in scale else compact(v) for name, v in modalities.items()}
    sizes = sizes or sorted(
        {10, 15, 20, 30, 40, 60, 80, 120, 200, n} & set(range(10, n + 1))
    )
    tasks = [(size, r) for size in sizes for r in range(1 if size == n else repeats)]
    subsets = [
        (np.sort(rng.choice(n, size, replace=False)), seed + r if size < n else seed)
        for size, r in tasks
    ]
    told = {"controls": controls, "scale": scale, **options}
    work = _Subsets(
        small, list(map(str, patients)), confounds or {}, folds, subsets, told
    )
    blocks = list(np.arange(len(tasks))[:, None])
    reached = np.concatenate(
        list(in_blocks(work, blocks, jobs, show_progress, "learning curve"))
    )
    rows = [(size, *figures) for (size, _), figures in zip(tasks, reached, strict=True)]
    table = pd.DataFrame(rows, columns=["patients", "accuracy", "auc"]).groupby(
        "patients"
    )
    return table.agg(
        accuracy=("accuracy", "mean"), sd=("accuracy", "std"), auc=("auc", "mean")
    ).reset_index()


@dataclass(frozen=True, eq=False)
class _Subsets:
    """Accuracy and AUC (subset, 2) of the evaluation of these subsets of patients."""

    values: dict[str, np.ndarray]
    patients: list[str]
    confounds: dict[str, np.ndarray]
    folds: int | None
    subsets: list[tuple[np.ndarray, int]]
    options: dict[str, Any]

    def __call__(self, places: np.ndarray) -> np.ndarray:
        return np.array([self._figures(*self.subsets[i]) for i in places])

    def _figures(self, taken: np.ndarray, seed: int) -> tuple[float, float]:
        found = evaluate(
            {name: v[taken] for name, v in self.values.items()},
            [self.patients[i] for i in taken],
            confounds={name: c[taken] for name, c in self.confounds.items()},
            folds=None if self.folds is None else min(self.folds, len(taken)),
            permutations=0,
            contributions=False,
            bootstrap=0,
            seed=seed,
            jobs=1,
            **self.options,
        )
        best = found.scores.get("fused") or found.scores[found.fused[0]]
        return best.accuracy, best.auc
