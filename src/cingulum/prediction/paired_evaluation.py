"""Which of two visits hurt more? Evaluation of paired classifiers, one a modality and
one that fuses them.

Nothing that is tested was seen in training: a patient's two visits leave together, and
the decisions on which the fusion is trained come from models that saw neither the
patient they judge nor the patient under test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.permutation import (
    ALIKE,
    Jobs,
    check_enough,
    in_blocks,
    p_value,
    sequential_p,
    sign_flips,
)
from cingulum.prediction.scores import Contribution, Difference, Evaluation, Score
from cingulum.prediction.statistics import (
    exact_interval,
    mcnemar,
    percentile,
    resamples,
    right,
    rounded,
)
from cingulum.prediction.svm import solver
from cingulum.prediction.svm.fusion import Decided, Model, decide, fuse, one_flipped
from cingulum.prediction.svm.nested import FoldPlan, Fusion, Missing, ModalityKernel
from cingulum.prediction.svm.products import copy_of, scales, turned
from cingulum.random_streams import Stream, generator

BLOCK = 32
"""Permutations worked on together."""

TIE = 1e-4
"""Weight of the AUC in the statistic that is permuted: it decides between equal
accuracies and never overrules one."""


def evaluate(
    modalities: dict[str, np.ndarray],
    patients: Sequence[str],
    *,
    higher: np.ndarray | None = None,
    controls: tuple[str, ...] = (),
    permutations: int = 5000,
    folds: int | None = None,
    inner_folds: int = 4,
    C: float | Sequence[float] = 1.0,
    fusion: Fusion = "stacked",
    scale: tuple[str, ...] = (),
    confounds: dict[str, np.ndarray] | None = None,
    missing: Missing = "complete",
    blocks: Sequence[str] | None = None,
    stop_after: int | None = None,
    contributions: bool = True,
    bootstrap: int = 2000,
    seed: int = 0,
    jobs: Jobs = None,
    force: bool = False,
    show_progress: bool = False,
) -> Evaluation:
    """Evaluate paired classifiers. There is no y: **the second visit is the one in more
    pain**, to be recognised.

    modalities: by name, features (patient, visit, feature); a patient without a
        modality has NaN throughout
    higher: (patient,) whether the second visit is the one in more pain, where visits
        come in another order (of time, say); default: it always is
    controls: modalities that are scored but kept out of the fusion
    permutations: each swaps the two visits of a random half of the patients, in all
        modalities together, and refits everything; stop_after ends once every model has
        met so many permutations as good as itself (Besag and Clifford 1991), exact as
        well
    folds: patients are dealt into so many outer folds; None leaves one patient out at a
        time
    C: several values are tuned inside the folds, by the accuracy of the inner ones; the
        machine that fuses, and the weights fitted on everybody, take the middle one
    fusion: `stacked`, a second machine as published; `kernels`, one machine on kernels
        weighted by their agreement with the training labels; `log_odds`, Gaussian
        log-odds of each decision, calibrated inside, that add
    scale: modalities whose features are divided by the training patients' root mean
        square difference
    confounds: by name (patient, visit), regressed out of all modalities that are not
        controls, inside the folds
    missing: `complete` leaves out patients that lack a modality; `log_odds` keeps them,
        and implies that fusion
    blocks: patients of one block (a family) are left out together, flip together and
        are resampled together
    bootstrap: resamples of the intervals (0: none, they are NaN); force: also with
        fewer than 10 patients

    Raises InputError for unequal patients, copies of a patient, missing values, a
    constant modality, too few patients.
    """
    check_enough(stop_after)
    patients = [str(p) for p in patients]
    modalities = {name: _as_float(v) for name, v in modalities.items()}
    if higher is not None:
        modalities = {name: turned(v, higher) for name, v in modalities.items()}
        confounds = {name: turned(c, higher) for name, c in (confounds or {}).items()}
    here, dropped = _available(modalities, patients, missing)
    keep = [i for i, p in enumerate(patients) if p not in set(dropped)]
    values, here = (
        {name: v[keep] for name, v in table.items()} for table in (modalities, here)
    )
    member = None if blocks is None else np.asarray([str(b) for b in blocks])[keep]
    _check_all(values, here, [patients[i] for i in keep], member, force)
    fused = [name for name in modalities if name not in controls]
    if not fused:
        raise InputError("Every modality is a control; at least one must be evaluated.")
    regress = _regressed(confounds, keep)
    remove_partial_files = tuple(sorted(float(c) for c in np.atleast_1d(C)))
    fusion = "log_odds" if missing == "log_odds" else fusion
    if fusion == "kernels" and (
        scale or regress is not None or len(remove_partial_files) > 1
    ):
        raise InputError(
            "fusion='kernels' takes features as they are and one C: without scale, "
            "confounds and tuning, "
            "which belong inside the folds. Use stacked or log_odds with those."
        )
    inner_folds = min(inner_folds, len(keep) // 2) if force else inner_folds
    plan = FoldPlan.of(
        len(keep), folds, inner_folds, remove_partial_files, fusion, seed, member
    )
    kernels = {
        name: ModalityKernel.of(
            plan,
            v,
            here[name],
            name in scale,
            None if name in controls else regress,
            name in fused,
        )
        for name, v in values.items()
    }
    rng = generator(seed, Stream.PAIRED_PERMUTATION)
    signs = sign_flips(permutations, len(keep), rng, member)
    tests = _Tests(
        plan,
        kernels,
        fused,
        decide(plan, kernels, fused, np.ones((1, len(keep)))),
        contributions,
    )
    nulls = _permuted(tests, signs, stop_after, jobs, show_progress)
    drawn = _drawn(len(keep), member, rng, bootstrap)
    weights, duals = _weights(values, kernels, plan.penalty)
    return Evaluation(
        scores={
            name: _score(m, nulls[name], drawn, stop_after)
            for name, m in tests.truth.models.items()
        },
        contributions=_contributions(tests, nulls, drawn, stop_after)
        if tests.asks_contributions
        else {},
        weights=weights,
        patterns={n: _pattern(values[n], here[n], weights[n]) for n in weights},
        duals=duals,
        patients=[patients[i] for i in keep],
        fused=fused,
        permutations=permutations,
        folds=plan.outer,
        parts=plan.inner,
        inner_folds=inner_folds,
        C=remove_partial_files,
        seed=seed,
        fusion=fusion,
        scaled=tuple(scale),
        confounds=tuple(confounds or ()),
        stop_after=stop_after,
        dropped=dropped,
        missing={name: int((~h).sum()) for name, h in here.items() if not h.all()},
    )


def _available(
    modalities: dict[str, np.ndarray], patients: list[str], missing: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    if missing not in ("complete", "log_odds"):
        raise InputError(f"missing is complete or log_odds; came {missing!r}.")
    if not modalities:
        raise InputError("Expected at least one modality; came none.")
    if len(set(patients)) < len(patients):
        twice = sorted({p for p in patients if patients.count(p) > 1})
        raise InputError(
            f"Patients must differ: {', '.join(twice[:5])} came more than once. One on "
            "both sides of a "
            "fold would be a leak; join their visits."
        )
    for name, v in modalities.items():
        if v.ndim != 3 or v.shape[:2] != (len(patients), 2):
            raise InputError(
                f"{name}: expected (patient, visit, feature) with {len(patients)} "
                "patients; "
                f"came {v.shape}."
            )
    here = {name: ~np.isnan(v).all((1, 2)) for name, v in modalities.items()}
    if missing == "log_odds":
        nowhere = ~np.any(list(here.values()), axis=0)
        return here, [p for p, out in zip(patients, nowhere, strict=True) if out]
    everywhere = np.all(list(here.values()), axis=0)
    return here, [p for p, ok in zip(patients, everywhere, strict=True) if not ok]


def _enough(patients: int, force: bool) -> None:
    if patients < (4 if force else 10):
        raise InputError(
            f"Paired evaluation needs at least {4 if force else 10} patients; came "
            f"{patients}. With fewer than 10 "
            "even a perfect score is hardly distinguishable from luck and its interval "
            "spans a third of the scale"
            + (
                "."
                if force
                else "; force=True does it all the same (`cingulum predict --force`)."
            )
        )


def _check_all(
    values: dict[str, np.ndarray],
    here: dict[str, np.ndarray],
    patients: list[str],
    blocks: np.ndarray | None,
    force: bool,
) -> None:
    _enough(len(patients), force)
    for name, v in values.items():
        _check(name, v, here[name])
    twins = copy_of(list(values.values()), blocks)
    if twins:
        raise InputError(
            f"{patients[twins[0]]} and {patients[twins[1]]} have the same features to "
            "the last digit at both "
            "visits: one is a copy of the other and would be tested on itself. Leave "
            "one out."
        )


def _regressed(
    confounds: dict[str, np.ndarray] | None, keep: list[int]
) -> np.ndarray | None:
    """Confounds (patient, visit, confound) of the patients that are kept."""
    if not confounds:
        return None
    found = np.stack([np.asarray(c, float)[keep] for c in confounds.values()], -1)
    if not np.isfinite(found).all():
        raise InputError(
            f"Confounds {', '.join(confounds)}: values are missing. Fill them, or "
            "leave them out."
        )
    return found


def _as_float(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values)
    return (
        values
        if values.dtype.kind == "f" and values.itemsize >= 4
        else values.astype(np.float64)
    )


def _drawn(
    n: int, blocks: np.ndarray | None, rng: np.random.Generator, times: int
) -> list[np.ndarray]:
    """Rows of resampled patients; blocks are drawn whole."""
    if blocks is None:
        return list(resamples(n, rng, times))
    rows = [np.flatnonzero(blocks == b) for b in np.unique(blocks)]
    return [
        np.concatenate([rows[i] for i in drawn])
        for drawn in resamples(len(rows), rng, times)
    ]


def _check(name: str, values: np.ndarray, here: np.ndarray) -> None:
    known = values[here]
    bad = ~np.isfinite(known)
    if bad.any():
        raise InputError(
            f"{name}: {bad.mean():.2%} of its values are missing or infinite, in "
            f"{int(bad.any((1, 2)).sum())} patients."
            " A patient may lack a whole modality (all NaN), not parts of one: leave "
            "those features out or fill them."
        )
    if not here.any() or not (known[:, 1] != known[:, 0]).any():
        raise InputError(
            f"{name}: does not differ between the visits of any patient, so it cannot "
            "tell them apart."
        )


@dataclass(frozen=True, eq=False)
class _Tests:
    plan: FoldPlan
    kernels: dict[str, ModalityKernel]
    fused: list[str]
    truth: Decided
    contributions: bool

    @property
    def asks_contributions(self) -> bool:
        return self.contributions and len(self.fused) > 1

    def __call__(self, signs: np.ndarray) -> dict[str, np.ndarray]:
        """Statistics (accuracy, AUC, single-scan AUC; problem) of every model, and of
        the fusion with one modality flipped alone, under the name `without
        <modality>`."""
        found = decide(self.plan, self.kernels, self.fused, signs)
        rows = {
            name: np.stack(model.statistics) for name, model in found.models.items()
        }
        if self.asks_contributions:
            for name in self.fused:
                alone = self._alone(name, found, signs)
                rows[f"without {name}"] = np.stack(alone.statistics)
        return rows

    def _alone(self, name: str, found: Decided, signs: np.ndarray) -> Model:
        if self.plan.fusion == "kernels":
            kernels = {n: self.kernels[n] for n in self.fused}
            parts = [
                one_flipped(self.plan, kernels, self.fused, name, s) for s in signs
            ]
            return Model(
                np.concatenate([p.decision for p in parts]),
                np.concatenate([p.first for p in parts]),
                parts[0].here,
            )
        held = {
            n: found.held[n] if n == name else self.truth.held[n] for n in self.fused
        }
        return fuse(self.plan, self.kernels, self.fused, held, signs)[0]


def _permuted(
    tests: _Tests, signs: np.ndarray, stop_after: int | None, jobs: Jobs, show: bool
) -> dict[str, np.ndarray]:
    """Statistics (3, permutation) by model; with `stop_after`, of as many permutations
    as every model needs."""
    parts = [signs[i : i + BLOCK] for i in range(0, len(signs), BLOCK)]
    reached = {
        name: np.stack(model.statistics)[:, 0]
        for name, model in tests.truth.models.items()
    }
    if tests.asks_contributions:
        reached |= {f"without {name}": reached["fused"] for name in tests.fused}
    hits = {name: np.zeros(3, int) for name in reached}
    done: list[dict[str, np.ndarray]] = []
    for found in in_blocks(tests, parts, jobs, show):
        done.append(found)
        for name, target in reached.items():
            hits[name] += (
                _compared(found[name]) >= _compared(target)[:, None] - ALIKE
            ).sum(1)
        if stop_after is not None and min(h.min() for h in hits.values()) >= stop_after:
            break
    if not done:
        return {name: np.zeros((3, 0)) for name in hits}
    return {name: np.concatenate([d[name] for d in done], 1) for name in hits}


def _compared(rows: np.ndarray) -> np.ndarray:
    """What is compared with its permutations: accuracy (AUC decides between equal
    ones), AUC, single-scan AUC."""
    return np.stack([rows[0] + TIE * rows[1], rows[1], rows[2]])


def _p(observed: float, null: np.ndarray, stop_after: int | None) -> tuple[float, int]:
    if stop_after is None:
        return p_value(observed, null), len(null)
    return sequential_p(observed, null, stop_after)


def _score(
    model: Model, null: np.ndarray, drawn: list[np.ndarray], stop_after: int | None
) -> Score:
    reached = np.stack(model.statistics)[:, 0]
    d = _decided(model)
    scans = np.stack([model.first[0], model.first[0] + model.decision[0]], -1)
    scans[~model.here] = np.nan
    ps = [
        _p(r, row, stop_after)
        for r, row in zip(_compared(reached), _compared(null), strict=True)
    ]
    n = int(model.here.sum())
    return Score(
        decisions=d,
        accuracy=float(reached[0]),
        accuracy_ci=percentile(_resampled_mean(right(d), drawn)),
        accuracy_exact_ci=exact_interval(float(reached[0]) * n, n),
        auc=float(reached[1]),
        auc_ci=percentile(_resampled_auc(d, drawn)),
        scans=scans,
        single_scan_auc=float(reached[2]),
        single_scan_auc_ci=percentile(_resampled_single(scans, drawn)),
        single_scan_p=ps[2][0],
        p=ps[0][0],
        p_auc=ps[1][0],
        null=null[0],
        null_auc=null[1],
        permutations=ps[0][1],
    )


def _decided(model: Model) -> np.ndarray:
    """Decisions (patient,) of the first problem; NaN for patients without data."""
    d = np.full(len(model.here), np.nan)
    d[model.here] = rounded(model.decision[0, model.here])
    return d


def _resampled_mean(values: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    """Means without NaN; NaN for a resample of nobody."""
    if np.isfinite(values).all() and len({len(rows) for rows in drawn}) == 1:
        return values[np.stack(drawn)].mean(1)
    known = np.isfinite(values)
    total, count = np.where(known, values, 0), known.astype(float)
    return np.array(
        [
            total[rows].sum() / count[rows].sum() if count[rows].any() else np.nan
            for rows in drawn
        ]
    )


def _resampled_auc(d: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    return _resampled(drawn, np.isfinite(d), lambda rows: solver.mirrored_auc(d[rows]))


def _resampled_single(scans: np.ndarray, drawn: list[np.ndarray]) -> np.ndarray:
    known = np.isfinite(scans[:, 0])
    return _resampled(
        drawn, known, lambda rows: solver.two_sample_auc(scans[rows, 1], scans[rows, 0])
    )


def _resampled(
    drawn: list[np.ndarray],
    known: np.ndarray,
    figures: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Figures (resample,) of rows (resample, patient), all at once where every resample
    has as many patients."""
    if known.all() and len({len(rows) for rows in drawn}) == 1:
        return figures(np.stack(drawn))
    kept = [rows[known[rows]] for rows in drawn]
    return np.array([figures(rows[None])[0] if len(rows) else np.nan for rows in kept])


def _contributions(
    tests: _Tests,
    nulls: dict[str, np.ndarray],
    drawn: list[np.ndarray],
    stop_after: int | None,
) -> dict[str, Contribution]:
    found, whole = {}, tests.truth.models["fused"]
    reached = np.stack(whole.statistics)[:, 0]
    ones = np.ones((1, len(whole.here)))
    for k, name in enumerate(tests.fused):
        others = [n for n in tests.fused if n != name]
        part = (
            tests.truth.models[others[0]]
            if len(others) == 1
            else (fuse(tests.plan, tests.kernels, others, tests.truth.held, ones)[0])
        )
        alone, apart = (
            _decided(part),
            _difference(_decided(whole), _decided(part), drawn),
        )
        found[name] = Contribution(
            weight=float(tests.truth.weights[0, k]),
            accuracy=float(np.nanmean(right(alone))),
            auc=float(_resampled_auc(alone, [np.arange(len(alone))])[0]),
            accuracy_gain=apart.accuracy,
            accuracy_gain_ci=apart.accuracy_ci,
            auc_gain=apart.auc,
            auc_gain_ci=apart.auc_ci,
            p=_p(
                _compared(reached)[0],
                _compared(nulls[f"without {name}"])[0],
                stop_after,
            )[0],
            mcnemar=apart.mcnemar,
        )
    return found


def difference(first: Score, second: Score, *, seed: int = 0) -> Difference:
    """What one model of an evaluation is better by than another, patient by patient."""
    drawn = list(resamples(len(first.decisions), generator(seed, Stream.DIFFERENCE)))
    return _difference(first.decisions, second.decisions, drawn)


def _difference(a: np.ndarray, b: np.ndarray, drawn: list[np.ndarray]) -> Difference:
    both = np.isfinite(a) & np.isfinite(b)
    a, b = np.where(both, a, np.nan), np.where(both, b, np.nan)
    everybody, gain = [np.flatnonzero(both)], right(a) - right(b)
    return Difference(
        float(np.nanmean(gain)),
        percentile(_resampled_mean(gain, drawn)),
        float(_resampled_auc(a, everybody)[0] - _resampled_auc(b, everybody)[0]),
        percentile(_resampled_auc(a, drawn) - _resampled_auc(b, drawn)),
        mcnemar(a[both], b[both]),
    )


def _weights(
    values: dict[str, np.ndarray], kernels: dict[str, ModalityKernel], penalty: float
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights (feature,) on everybody, in the features' units, and their duals."""
    weights, duals = {}, {}
    for name, room in kernels.items():
        v = values[name]
        dual = solver.duals(
            room.shared.gram, room.here[None].astype(float), 2 * penalty
        )[0]
        dual = dual[room.here] @ room.residual[room.here][:, room.here]
        differences = v[room.here, 1] - v[room.here, 0]
        w = dual.astype(v.dtype) @ differences
        weights[name] = (
            w * scales(room.residual[room.here][:, room.here] @ differences)
            if room.scale
            else w
        )
        duals[name] = np.zeros(len(room.here))
        duals[name][room.here] = dual
    return weights, duals


def _pattern(values: np.ndarray, here: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Activation pattern of a linear model: covariance of the features with its
    decision (mirrored data, mean zero)."""
    differences = values[here, 1] - values[here, 0]
    decision = differences @ weights
    size = np.square(decision).sum()
    return differences.T @ decision / size if size > 0 else np.zeros(values.shape[-1])
