"""Leave-one-patient-out evaluation of paired classifiers, one a modality and one that fuses them, with permutations.

Nothing that is tested was seen in training: a patient's two visits leave together, and the decisions on which the
fusion is trained come from models that saw neither the patient they judge nor the patient under test.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed, parallel_config
from torch import Tensor

from cingulum.errors import InputError
from cingulum.prediction.metrics import Interval, accuracy, auc, bootstrap, exact_interval, paired_auc
from cingulum.prediction.paired import few_weights, gram_factor, solve, span
from cingulum.progress import track

CHUNK = 25
"""Permutations worked on together: their weights stay in the cache."""


@dataclass(frozen=True, eq=False)
class Score:
    """Performance of one model.

    decisions: one a patient, out of fold; > 0 means the later visit was recognised
    accuracy_ci, auc_ci: bootstrap over patients; accuracy_exact_ci: Clopper-Pearson
    auc: of the mirrored decisions (signed-rank, as in Lee et al. 2019); single_scan_auc: of one scan at a time
    p: sign-flip permutation, one-sided, (b + 1) / (m + 1); null: the permuted accuracies
    """

    decisions: np.ndarray
    accuracy: float
    accuracy_ci: Interval
    accuracy_exact_ci: Interval
    auc: float
    auc_ci: Interval
    single_scan_auc: float | None
    p: float
    null: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores by model name (modalities, then `fused`), weights of models fitted on everybody, and what was done.

    weights: per modality (feature,), for pictures only: performance never comes from them
    patterns: the same as activation patterns, which may be read as where the effect is (Haufe et al. 2014)
    """

    scores: dict[str, Score]
    weights: dict[str, np.ndarray]
    patterns: dict[str, np.ndarray]
    patients: list[str]
    fused: list[str]
    permutations: int
    inner_folds: int
    C: float
    seed: int

    def table(self) -> pd.DataFrame:
        """One row a model."""
        rows = [
            {
                "model": name,
                "accuracy": s.accuracy,
                "accuracy_low": s.accuracy_ci.low,
                "accuracy_high": s.accuracy_ci.high,
                "auc": s.auc,
                "single_scan_auc": s.single_scan_auc,
                "p": s.p,
            }
            for name, s in self.scores.items()
        ]
        return pd.DataFrame(rows)


def evaluate(
    modalities: dict[str, np.ndarray],
    patients: list[str],
    *,
    controls: tuple[str, ...] = (),
    permutations: int = 1000,
    inner_folds: int = 4,
    C: float = 1.0,
    seed: int = 0,
    show_progress: bool = False,
) -> Evaluation:
    """Evaluate paired classifiers.

    modalities: by name, features (patient, visit, feature) with the visits in the order first, second
    controls: modalities that are scored but kept out of the fusion
    permutations: each swaps the two visits of a random half of the patients, in all modalities together, and refits
        everything

    Raises InputError for unequal patients or missing values.
    """
    for name, values in modalities.items():
        _check(name, values, len(patients))
    fused = [name for name in modalities if name not in controls]
    plan = _Plan(len(patients), inner_folds, C)
    differences = {name: values[:, 1] - values[:, 0] for name, values in modalities.items()}
    factors = {name: gram_factor(d) for name, d in differences.items()}
    rng = np.random.default_rng((seed, 0, 1))  # its own stream: zeros at the end of a key add nothing to it
    signs = np.ones((1 + permutations, len(patients)))
    signs[1:] = rng.choice([-1.0, 1.0], size=(permutations, len(patients)))
    decisions = _all_decisions(plan, factors, fused, signs, show_progress)
    everyone = torch.ones(len(patients), 1, dtype=torch.float64)
    weights = {n: (span(factors[n], solve(factors[n], everyone, C)[0]).T @ differences[n])[0] for n in modalities}
    scores = {
        name: _score(d, _single_scan(plan, modalities[name], factors[name]) if name in modalities else None, rng)
        for name, d in decisions.items()
    }
    patterns = {n: _pattern(differences[n], w) for n, w in weights.items()}
    return Evaluation(scores, weights, patterns, patients, fused, permutations, inner_folds, C, seed)


def _pattern(differences: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Activation pattern of a linear model: covariance of the features with its decision (mirrored data, mean zero)."""
    decision = differences @ weights
    return differences.T @ decision / np.square(decision).sum()


def _check(name: str, values: np.ndarray, patients: int) -> None:
    if values.ndim != 3 or values.shape[:2] != (patients, 2):
        raise InputError(f"{name}: expected (patient, visit, feature) with {patients} patients; came {values.shape}.")
    if patients < 10:
        raise InputError(f"Paired evaluation needs at least 10 patients; came {patients}.")
    if not np.isfinite(values).all():
        raise InputError(f"{name}: {np.mean(~np.isfinite(values)):.2%} of its values are missing or infinite.")


@dataclass(frozen=True)
class _Plan:
    """Which patients each model may see: `outer` (fold, patient), `inner` (fold, inner fold, patient)."""

    n: int
    inner_folds: int
    C: float

    @property
    def outer(self) -> Tensor:
        return 1 - torch.eye(self.n, dtype=torch.float64)

    @property
    def member(self) -> Tensor:
        """(fold, patient): the inner fold that judges a patient, while the fold's own patient is under test."""
        rows = torch.arange(self.n)
        return torch.where(rows[None] < rows[:, None], rows[None], rows[None] - 1) % self.inner_folds

    @property
    def inner(self) -> Tensor:
        judged = self.member[:, None] == torch.arange(self.inner_folds)[None, :, None]
        return self.outer[:, None] * (~judged)


def _all_decisions(
    plan: _Plan, factors: dict[str, Tensor], fused: list[str], signs: np.ndarray, show: bool
) -> dict[str, np.ndarray]:
    """Decisions (permutation, patient) for every modality and the fusion, positive where the flipped label is met."""
    blocks = [torch.as_tensor(signs[i : i + CHUNK]) for i in range(0, len(signs), CHUNK)]
    workers = min(os.cpu_count() or 1, 1 + len(blocks) // 4)
    with parallel_config("loky", inner_max_num_threads=1):
        work = Parallel(n_jobs=workers, return_as="generator")(
            delayed(_decisions)(plan, factors, fused, block) for block in blocks
        )
        parts = list(track(work, "permutations", total=len(blocks), show=show))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _decisions(plan: _Plan, factors: dict[str, Tensor], fused: list[str], signs: Tensor) -> dict[str, np.ndarray]:
    outer, inner = {}, {}
    for name, factor in factors.items():
        # Each model starts from one that saw a few patients more: most of their solution is the same.
        _, dual = solve(factor, signs.T.contiguous(), plan.C)
        responses, dual = _responses(plan, factor, plan.outer, signs, dual)
        outer[name] = responses.diagonal(dim1=1, dim2=2)
        if name in fused:
            judged, _ = _responses(plan, factor, plan.inner.flatten(0, 1), signs, dual)
            judged = judged.unflatten(1, (plan.n, plan.inner_folds))
            inner[name] = judged.gather(2, plan.member.expand(len(signs), 1, -1, -1).movedim(1, 2)).squeeze(2)
    if len(fused) > 1:
        outer["fused"] = _fuse(plan, [inner[name] for name in fused], [outer[name] for name in fused], signs)
    return {name: (response * signs).numpy() for name, response in outer.items()}


def _responses(
    plan: _Plan, factor: Tensor, allowed: Tensor, signs: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Decision values (permutation, model, patient) of models trained on the allowed patients (model, patient).

    start: duals of fewer models, each the parent of as many consecutive new ones; returns the new duals too.
    """
    problems = (signs[:, None] * allowed[None]).flatten(0, 1).T.contiguous()
    if start is not None:
        start = start.repeat_interleave(problems.shape[1] // start.shape[1], dim=1)
    weights, dual = solve(factor, problems, plan.C, start)
    return (factor @ weights).T.unflatten(0, (len(signs), len(allowed))), dual


def _fuse(plan: _Plan, inner: list[Tensor], outer: list[Tensor], signs: Tensor) -> Tensor:
    """Decisions (permutation, patient) of the second-level machine, trained on inner responses only."""
    x = torch.stack(inner, 1).permute(3, 1, 0, 2).flatten(2)  # (patient, modality, permutation × fold)
    problems = (signs[:, None] * plan.outer[None]).flatten(0, 1).T.contiguous()
    weights = few_weights(x, problems, plan.C)
    tested = torch.stack(outer, 0).flatten(1)  # (modality, permutation × fold)
    return (weights * tested).sum(0).unflatten(0, (len(signs), plan.n))


def _single_scan(plan: _Plan, values: np.ndarray, factor: Tensor) -> float:
    """AUC of out-of-fold scores of single scans, second against first visits: what one scan alone would tell."""
    weights, _ = solve(factor, plan.outer.T.contiguous(), plan.C)
    models = span(factor, weights).T @ (values[:, 1] - values[:, 0])  # (fold, feature)
    first, second = np.einsum("pvf,pf->vp", values, models)
    return auc(second, first)


def _score(decisions: np.ndarray, single: float | None, rng: np.random.Generator) -> Score:
    observed, null = decisions[0], accuracy(decisions[1:])
    reached = float(accuracy(observed))
    return Score(
        decisions=observed,
        accuracy=reached,
        accuracy_ci=bootstrap(observed, lambda d: float(accuracy(d)), rng),
        accuracy_exact_ci=exact_interval(reached * len(observed), len(observed)),
        auc=paired_auc(observed),
        auc_ci=bootstrap(observed, paired_auc, rng),
        single_scan_auc=single,
        p=float((1 + (null >= reached - 1e-12).sum()) / (1 + len(null))),
        null=null,
    )
