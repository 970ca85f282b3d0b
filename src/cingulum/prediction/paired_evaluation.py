"""Which of two visits hurt more? Evaluation of paired classifiers, one per modality and
one that fuses them.

Nothing that is tested takes part in training: a patient's two visits leave together,
and the decisions on which the fusion is trained come from models that were trained on
neither the patient they judge nor the patient under test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.compiled_statistics import mirrored_auc
from cingulum.prediction.intervals import (
    accuracy_gain_interval,
    accuracy_interval,
    auc_gain_interval,
    exact_interval,
    independent_people,
    mirrored_auc_interval,
    single_scan_auc_interval,
    warn_of_bootstrap,
)
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import (
    ALIKE,
    Jobs,
    exchanges,
    in_blocks,
    row_blocks,
    sign_flips,
    stopped_p,
)
from cingulum.prediction.scores import Contribution, Difference, Evaluation, Score
from cingulum.prediction.settings import (
    Fusion,
    Missing,
    Permutations,
    Svm,
    Validation,
)
from cingulum.prediction.statistics import (
    correctness,
    mcnemar,
    rounded,
)
from cingulum.prediction.svm.fusion import (
    AllResponses,
    ModelResponses,
    decide,
    fuse,
    fuse_with_flipped,
)
from cingulum.prediction.svm.nested import FoldPlan, ModalityKernel
from cingulum.prediction.svm.weights import weights_on_everybody
from cingulum.random_streams import Stream, generator

BLOCK = 32
"""Permutations worked on together."""

TIE = 1e-4
"""Weight of the AUC in the statistic that is permuted: it decides between equal
accuracies and never overrules one."""


# The one verb of this package: users type the options they need, by name.
def evaluate(  # noqa: PLR0913
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
    bootstrap: int | None = None,
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
        are in another order (of time, say); default: it always is
    controls: modalities that are scored but kept out of the fusion
    permutations: each swaps the two visits of a random half of the patients, in all
        modalities together, and refits everything
    stop_after: stop once, for every model, so many permutations have reached the
        observed score (Besag and Clifford 1991); exact as well
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
        count as one in the intervals
    bootstrap: without effect since intervals no longer resample (deprecated)
    force: also with fewer than 10 patients

    Raises InputError for unequal patients, copies of a patient, missing values, a
    constant modality, too few patients.
    """
    warn_of_bootstrap(bootstrap)
    penalties = tuple(float(c) for c in np.atleast_1d(C))
    names = [str(patient) for patient in patients]
    members = _block_names(blocks)
    visits = PairedVisits(modalities, names, controls, confounds or {}, members)
    if higher is not None:
        visits = visits.ordered(higher)
    return evaluate_visits(
        visits,
        svm=Svm(penalties, tuple(scale), fusion, missing),
        validation=Validation(folds, inner_folds, seed, force),
        permutations=Permutations(permutations, stop_after),
        contributions=contributions,
        jobs=jobs,
        show_progress=show_progress,
    )


def _block_names(blocks: Sequence[str] | None) -> np.ndarray | None:
    if blocks is None:
        return None
    # As text, so that numbered families and named ones are compared alike.
    return np.asarray([str(block) for block in blocks])


def evaluate_visits(
    visits: PairedVisits,
    *,
    svm: Svm,
    validation: Validation,
    permutations: Permutations,
    contributions: bool = True,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> Evaluation:
    """As `evaluate`, with options that are passed on whole."""
    usable = visits.usable(svm.missing)
    dropped = np.asarray(visits.patients)[~usable].tolist()
    visits = visits.select(usable)
    visits.check(validation.force)
    _check_kernel_fusion(svm, visits)
    validation = _possible_validation(validation, len(visits.patients))
    plan = FoldPlan.of(len(visits.patients), validation, svm, visits.blocks)
    statistics = _PermutedStatistics.of(visits, plan, svm, contributions)
    rng = generator(validation.seed, Stream.PAIRED_PERMUTATION)
    signs = sign_flips(permutations.n, len(visits.patients), rng, visits.blocks)
    nulls = _permuted(statistics, signs, permutations.stop_after, jobs, show_progress)
    judge = _Judge(nulls, visits.blocks, permutations.stop_after)
    weights = _WeightsByName.of(visits, statistics.kernels, plan.penalty)
    return Evaluation(
        scores=judge.scores(statistics),
        contributions=judge.contributions(statistics),
        weights=weights.weights,
        patterns=weights.patterns,
        duals=weights.duals,
        patients=visits.patients,
        fused=visits.fused,
        permutations=permutations.n,
        folds=plan.outer,
        parts=plan.inner,
        inner_folds=validation.inner_folds,
        C=svm.C,
        seed=validation.seed,
        fusion=svm.fusion,
        scaled=svm.scale,
        confounds=tuple(visits.confounds),
        stop_after=permutations.stop_after,
        dropped=dropped,
        missing=_number_missing(visits),
    )


def p_of_kept_orders(
    visits: PairedVisits,
    later: np.ndarray,
    *,
    svm: Svm,
    validation: Validation,
    permutations: int,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> float:
    """p of the best model where people exchange their orders of visits, instead of
    having their visits swapped: as many have either order as before, so that what order
    alone predicts is in the null, too.

    later (patient,): whether the visit to be recognised came later. Without families.
    """
    plan = FoldPlan.of(len(visits.patients), validation, svm, None)
    statistics = _PermutedStatistics.of(visits, plan, svm, contributions=False)
    rng = generator(validation.seed, Stream.KEPT_ORDERS)
    order = np.where(later, 1.0, -1.0)
    exchanged = order[exchanges(permutations, len(order), rng)]
    nulls = _permuted(statistics, order * exchanged, None, jobs, show_progress)
    scores = _Judge(nulls, None, None).scores(statistics)
    best = "fused" if "fused" in scores else visits.fused[0]
    return scores[best].p


def _possible_validation(validation: Validation, patients: int) -> Validation:
    """The validation; where it is forced, with inner folds that so few patients can be
    dealt into."""
    if not validation.force:
        return validation
    fewer = min(validation.inner_folds, patients // 2)
    return replace(validation, inner_folds=fewer)


def _check_kernel_fusion(svm: Svm, visits: PairedVisits) -> None:
    if svm.fusion != "kernels":
        return
    # All three are fitted inside the folds, where summed kernels are not.
    if svm.scale or visits.confounds or len(svm.C) > 1:
        raise InputError(
            "fusion='kernels' takes features as they are and one C: without scale, "
            "confounds and tuning, which belong inside the folds. Use stacked or "
            "log_odds with those."
        )


def _kernels(
    visits: PairedVisits, plan: FoldPlan, svm: Svm
) -> dict[str, ModalityKernel]:
    confounds = visits.stacked_confounds
    kernels = {}
    for name, available in visits.available.items():
        is_fused = name not in visits.controls
        kernels[name] = ModalityKernel.of(
            plan,
            visits.values[name],
            available,
            name in svm.scale,
            # Controls are scored as they are: they are often the confounds themselves.
            confounds if is_fused else None,
            is_fused,
        )
    return kernels


@dataclass(frozen=True, eq=False)
class _WeightsByName:
    """By modality, what is fitted on everybody."""

    weights: dict[str, np.ndarray] = field(default_factory=dict)
    patterns: dict[str, np.ndarray] = field(default_factory=dict)
    duals: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def of(
        visits: PairedVisits, kernels: dict[str, ModalityKernel], penalty: float
    ) -> _WeightsByName:
        by_name = _WeightsByName()
        for name, kernel in kernels.items():
            fitted = weights_on_everybody(visits.values[name], kernel, penalty)
            by_name.weights[name] = fitted.weights
            by_name.patterns[name] = fitted.pattern
            by_name.duals[name] = fitted.dual
        return by_name


def _number_missing(visits: PairedVisits) -> dict[str, int]:
    missing = {}
    for name, available in visits.available.items():
        if not available.all():
            missing[name] = int((~available).sum())
    return missing


@dataclass(frozen=True, eq=False)
class _PermutedStatistics:
    """The work of one block of permutations: every model under these signs."""

    plan: FoldPlan
    kernels: dict[str, ModalityKernel]
    fused: list[str]
    observed: AllResponses
    contributions: bool

    @staticmethod
    def of(
        visits: PairedVisits, plan: FoldPlan, svm: Svm, contributions: bool
    ) -> _PermutedStatistics:
        kernels = _kernels(visits, plan, svm)
        fused = visits.fused
        unflipped = np.ones((1, len(visits.patients)))
        observed = decide(plan, kernels, fused, unflipped)
        # One modality alone is no fusion, so that nothing contributes to it.
        has_contributions = contributions and len(fused) > 1
        return _PermutedStatistics(plan, kernels, fused, observed, has_contributions)

    def __call__(self, signs: np.ndarray) -> dict[str, np.ndarray]:
        """Accuracy, AUC and single-scan AUC (3, problem) of every model, and of the
        fusion with one modality flipped alone, under the name `without <modality>`."""
        permuted = decide(self.plan, self.kernels, self.fused, signs)
        rows = {}
        for name, model in permuted.models.items():
            rows[name] = model.statistics
        for name in self.permuted_alone:
            alone = self._flipped_alone(name, permuted, signs)
            rows[f"without {name}"] = alone.statistics
        return rows

    @property
    def permuted_alone(self) -> list[str]:
        """Modalities whose contribution to the fusion is tested."""
        return self.fused if self.contributions else []

    def observed_statistics(self) -> dict[str, np.ndarray]:
        """By the same names, the statistics (3,) that permutations are compared
        with."""
        rows = {}
        for name, model in self.observed.models.items():
            rows[name] = model.statistics[:, 0]
        for name in self.permuted_alone:
            rows[f"without {name}"] = rows["fused"]
        return rows

    def _flipped_alone(
        self, name: str, permuted: AllResponses, signs: np.ndarray
    ) -> ModelResponses:
        """The fusion with the differences of one modality flipped, the others as they
        were observed."""
        if self.plan.fusion == "kernels":
            return self._kernels_flipped_alone(name, signs)
        # Responses of the other modalities need not be computed again.
        held_out = {**self.observed.held_out, name: permuted.held_out[name]}
        return fuse(self.plan, self.kernels, self.fused, held_out, signs).model

    def _kernels_flipped_alone(self, name: str, signs: np.ndarray) -> ModelResponses:
        kernels = [self.kernels[fused] for fused in self.fused]
        return fuse_with_flipped(self.plan, kernels, self.fused.index(name), signs)

    def fusion_without(self, name: str) -> ModelResponses:
        """The observed fusion of the other modalities."""
        others = [other for other in self.fused if other != name]
        # One modality alone is not fused: its own decisions are the answer.
        if len(others) == 1:
            return self.observed.models[others[0]]
        return self._observed_fusion(others)

    def _observed_fusion(self, names: list[str]) -> ModelResponses:
        unflipped = np.ones((1, len(self.plan.outer)))
        held_out = self.observed.held_out
        return fuse(self.plan, self.kernels, names, held_out, unflipped).model


def _permuted(
    statistics: _PermutedStatistics,
    signs: np.ndarray,
    stop_after: int | None,
    jobs: Jobs,
    show: bool,
) -> dict[str, np.ndarray]:
    """Statistics (3, permutation) by model; with `stop_after`, of as many permutations
    as every model needs."""
    observed = statistics.observed_statistics()
    hits = np.zeros((len(observed), 3), int)
    # The empty first block, so that no permutations are a null distribution as well.
    done = [dict.fromkeys(observed, np.zeros((3, 0)))]
    for permuted in in_blocks(statistics, row_blocks(signs, BLOCK), jobs, show):
        done.append(permuted)
        hits += _count_reached(observed, permuted)
        # The model that needs the most permutations decides for all.
        if stop_after is not None and hits.min() >= stop_after:
            break
    return {name: _joined(done, name) for name in observed}


def _joined(blocks: list[dict[str, np.ndarray]], name: str) -> np.ndarray:
    """Statistics (3, permutation) of one model over all blocks."""
    return np.concatenate([block[name] for block in blocks], 1)


def _count_reached(
    observed: dict[str, np.ndarray], permuted: dict[str, np.ndarray]
) -> np.ndarray:
    """How many permutations reached what was observed (model, 3)."""
    counts = [_reached(permuted[name], observed[name]) for name in observed]
    return np.stack(counts)


def _reached(permuted: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Of one model, by statistic (3,)."""
    is_reached = _ranked(permuted) >= _ranked(observed)[:, None] - ALIKE
    return is_reached.sum(1)


def _ranked(rows: np.ndarray) -> np.ndarray:
    """What is compared with its permutations, from statistics (3, …): accuracy (AUC
    decides between equal ones), AUC, single-scan AUC."""
    accuracy, auc, single_scan_auc = rows
    return np.stack([accuracy + TIE * auc, auc, single_scan_auc])


@dataclass(frozen=True)
class _PValues:
    """One-sided p of the three statistics, and how many permutations that of the
    accuracy needed."""

    accuracy: float
    auc: float
    single_scan_auc: float
    permutations: int


@dataclass(frozen=True, eq=False)
class _Judge:
    """Compares models with their permutations.

    nulls: statistics (3, permutation) by the names of `_PermutedStatistics`
    blocks: family (patient,), where there are any
    """

    nulls: dict[str, np.ndarray]
    blocks: np.ndarray | None
    stop_after: int | None

    def scores(self, statistics: _PermutedStatistics) -> dict[str, Score]:
        """Performance of every model."""
        scores = {}
        for name, model in statistics.observed.models.items():
            scores[name] = self._score(model, self.nulls[name])
        return scores

    def _score(self, model: ModelResponses, null: np.ndarray) -> Score:
        observed = model.statistics[:, 0]
        accuracy, auc, single_scan_auc = observed.tolist()
        p = self._p_values(observed, null)
        decisions = _decisions(model)
        scans = _scan_scores(model)
        people = independent_people(self.blocks, model.available)
        return Score(
            decisions=decisions,
            accuracy=accuracy,
            accuracy_ci=accuracy_interval(accuracy, people),
            accuracy_exact_ci=exact_interval(accuracy * people, people),
            auc=auc,
            auc_ci=mirrored_auc_interval(auc, people),
            scans=scans,
            single_scan_auc=single_scan_auc,
            single_scan_auc_ci=single_scan_auc_interval(
                single_scan_auc, scans[model.available], people
            ),
            single_scan_p=p.single_scan_auc,
            p=p.accuracy,
            p_auc=p.auc,
            null=null[0],
            null_auc=null[1],
            permutations=p.permutations,
        )

    def _p_values(self, observed: np.ndarray, null: np.ndarray) -> _PValues:
        """observed (3,), null (3, permutation): statistics of one model."""
        ranked = _ranked(observed)
        ranked_null = _ranked(null)
        # The first statistic is the one that is reported as p.
        accuracy, permutations = stopped_p(ranked[0], ranked_null[0], self.stop_after)
        auc, _ = stopped_p(ranked[1], ranked_null[1], self.stop_after)
        single_scan_auc, _ = stopped_p(ranked[2], ranked_null[2], self.stop_after)
        return _PValues(accuracy, auc, single_scan_auc, permutations)

    def contributions(self, statistics: _PermutedStatistics) -> dict[str, Contribution]:
        """What each modality adds to the fusion, where that was permuted."""
        contributions = {}
        observed = statistics.observed
        for k, name in enumerate(statistics.permuted_alone):
            contributions[name] = self._contribution(
                weight=float(observed.weights[0, k]),
                whole=observed.models["fused"],
                without=statistics.fusion_without(name),
                null=self.nulls[f"without {name}"],
            )
        return contributions

    def _contribution(
        self,
        weight: float,
        whole: ModelResponses,
        without: ModelResponses,
        null: np.ndarray,
    ) -> Contribution:
        """whole, without: the fusion with and without a modality; null (3,
        permutation): statistics of the fusion with that modality flipped alone."""
        decisions = _decisions(without)
        gain = _difference(_decisions(whole), decisions, self.blocks)
        return Contribution(
            weight=weight,
            accuracy=float(np.nanmean(correctness(decisions))),
            auc=_mirrored_auc(decisions),
            accuracy_gain=gain.accuracy,
            accuracy_gain_ci=gain.accuracy_ci,
            auc_gain=gain.auc,
            auc_gain_ci=gain.auc_ci,
            p=self._p_values(whole.statistics[:, 0], null).accuracy,
            mcnemar=gain.mcnemar,
        )


def _decisions(model: ModelResponses) -> np.ndarray:
    """Decisions (patient,) of the first problem; NaN for patients without data."""
    available = model.available
    decisions = np.full(len(available), np.nan)
    decisions[available] = rounded(model.decision[0, available])
    return decisions


def _scan_scores(model: ModelResponses) -> np.ndarray:
    """Scores (patient, visit) of single scans; NaN for patients without data."""
    first = model.first[0]
    # The decision is the difference of the two scores.
    scans = np.stack([first, first + model.decision[0]], -1)
    scans[~model.available] = np.nan
    return scans


def _mirrored_auc(decisions: np.ndarray) -> float:
    """Mirrored AUC of the patients with data."""
    known = decisions[np.isfinite(decisions)]
    return float(mirrored_auc(known[None])[0])


def difference(
    first: Score, second: Score, *, blocks: Sequence[str] | None = None
) -> Difference:
    """How much better one model of an evaluation is than another, patient by patient;
    blocks: family of each patient, where there are any."""
    return _difference(first.decisions, second.decisions, _block_names(blocks))


def _difference(
    first: np.ndarray, second: np.ndarray, blocks: np.ndarray | None
) -> Difference:
    """Of decisions (patient,), on the patients that both models decide."""
    both = np.isfinite(first) & np.isfinite(second)
    people = independent_people(blocks, both)
    first, second = first[both], second[both]
    return Difference(
        accuracy=float((correctness(first) - correctness(second)).mean()),
        accuracy_ci=accuracy_gain_interval(first, second, people),
        auc=_mirrored_auc(first) - _mirrored_auc(second),
        auc_ci=auc_gain_interval(first, second, people),
        mcnemar=mcnemar(first, second),
    )
