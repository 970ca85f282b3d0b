"""How good would it be with fewer patients? And so: are more worth their while?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cingulum.prediction.evaluate import evaluate
from cingulum.prediction.prepare import inner_products
from cingulum.progress import track


def compact(values: np.ndarray) -> np.ndarray:
    """Features (patient, visit, k) with k at most the number of scans and the same inner products: for linear machines
    the same data, without the voxels."""
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
    show_progress: bool = False,
    **options: object,
) -> pd.DataFrame:
    """Accuracy of the fused model (or the only one) evaluated on random subsets of patients.

    Columns: patients, accuracy, sd (over subsets), auc. options: of `evaluate`. Subsets overlap, so sd is too small
    for an interval at large sizes.
    """
    n, rng = len(patients), np.random.default_rng((seed, 0, 8))
    small = {name: v if name in scale else compact(v) for name, v in modalities.items()}
    sizes = sizes or sorted({10, 15, 20, 30, 40, 60, 80, 120, 200, n} & set(range(10, n + 1)))
    rows = []
    tasks = [(size, r) for size in sizes for r in range(1 if size == n else repeats)]
    for size, r in track(tasks, "learning curve", total=len(tasks), show=show_progress):
        taken = np.sort(rng.choice(n, size, replace=False))
        part = {name: v[taken] for name, v in small.items()}
        regressed = {name: c[taken] for name, c in (confounds or {}).items()}
        found = evaluate(
            part,
            [patients[i] for i in taken],
            controls=controls,
            confounds=regressed,
            scale=scale,
            folds=None if folds is None else min(folds, size),
            permutations=0,
            contributions=False,
            bootstrap=0,
            seed=seed + r if size < n else seed,
            jobs=1,
            **options,  # type: ignore[arg-type]
        )
        best = found.scores.get("fused") or found.scores[found.fused[0]]
        rows.append((size, best.accuracy, best.auc))
    table = pd.DataFrame(rows, columns=["patients", "accuracy", "auc"]).groupby("patients")
    return table.agg(accuracy=("accuracy", "mean"), sd=("accuracy", "std"), auc=("auc", "mean")).reset_index()
