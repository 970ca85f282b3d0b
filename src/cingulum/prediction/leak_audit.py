"""Where a score can come from without the brain: the same pipeline on noise, and
predictors that know too little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from scipy.stats import binomtest

from cingulum.errors import InputError
from cingulum.prediction.confounding import (
    confounder_tests,
    independent_means,
    is_testable,
)
from cingulum.prediction.lee2019 import PublishedRegression
from cingulum.prediction.paired_evaluation import evaluate_visits, p_of_kept_orders
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import Jobs, in_blocks
from cingulum.prediction.rating_models import training_means
from cingulum.prediction.regression import Ratings, RegressionSettings, regress
from cingulum.prediction.scan_kernels import feature_kernel
from cingulum.prediction.scores import Evaluation, Score
from cingulum.prediction.settings import Missing, Permutations, Svm, Validation
from cingulum.random_streams import Stream, generator

NOISE_FEATURES = 500
"""Noise has no more features than this: beyond many times the number of patients, more
change nothing."""

ALIASED = 0.65
"""Share of patients with the same order of visits beyond which order and pain cannot be
distinguished."""

ORDER_P = 0.05
"""Level of the test that one order is as frequent as the other."""

MOST_KEPT_ORDERS = 999
"""Permutations of the test that keeps orders, a second one beside the evaluation's."""

Verdict = Literal["pass", "warn", "fail"]


@dataclass(frozen=True)
class Check:
    """One question put to the pipeline. verdict: pass, warn (limits what a score means)
    or fail (do not believe it)."""

    name: str
    found: float
    expected: str
    verdict: Verdict
    words: str


# A public verb with one keyword per optional control: users have some of them only.
def audit(  # noqa: PLR0913
    modalities: dict[str, np.ndarray],
    evaluation: Evaluation,
    *,
    rose: np.ndarray | None = None,
    change: np.ndarray | None = None,
    families: np.ndarray | None = None,
    ratings: Ratings | None = None,
    published: PublishedRegression | None = None,
    confounds: dict[str, np.ndarray] | None = None,
    repeats: int = 50,
    seed: int = 0,
    jobs: Jobs = 1,
    show_progress: bool = False,
) -> list[Check]:
    """Checks of an evaluation and of what belongs to it.

    modalities: those that were evaluated; rose: (patient,) whether the visit called
    second came later in time; change: (patient,) of pain between the visits, where it
    was rated; families: (patient,) of those who are related; ratings, published:
    regressions; confounds: as given to the evaluation; repeats: of the whole evaluation
    on noise
    """
    noise = NoiseEvaluation.like(evaluation, modalities, confounds or {}, seed)
    # One repeat per block: each is an evaluation of its own, so that cores share them.
    blocks = list(np.arange(repeats)[:, None])
    results = in_blocks(noise, blocks, jobs, show_progress, "audit on noise")
    checks = [_noise_features(np.concatenate(list(results)))]
    checks.append(_shuffled_visits(evaluation))
    if rose is not None:
        checks.append(_order_oracle(rose))
    if rose is not None and families is None and _is_aliased(rose):
        checks += _kept_orders(noise, modalities, evaluation, rose, jobs)
    for name in _controls(evaluation):
        checks.append(_control_alone(name, evaluation))
    measured = (confounds or {}) | _single_columns(modalities, _controls(evaluation))
    checks += _confounded_decisions(evaluation, measured, change, families, seed)
    if ratings is not None:
        checks += audit_ratings(ratings)
    if published is not None:
        checks.append(_published_split(published))
    return checks


def failed(checks: Sequence[Check]) -> list[Check]:
    """The checks that say not to believe the score."""
    return [check for check in checks if check.verdict == "fail"]


def _controls(evaluation: Evaluation) -> list[str]:
    models = (*evaluation.fused, "fused")
    return [name for name in evaluation.scores if name not in models]


def _pass_or(otherwise: Verdict, ok: bool) -> Verdict:
    return "pass" if ok else otherwise


@dataclass(frozen=True, eq=False)
class NoiseEvaluation:
    """The pipeline of an evaluation, on noise.

    patients: their number; widths: number of features by modality
    """

    patients: int
    widths: dict[str, int]
    svm: Svm
    validation: Validation
    confounds: dict[str, np.ndarray] = field(default_factory=dict)

    @staticmethod
    def like(
        evaluation: Evaluation,
        modalities: dict[str, np.ndarray],
        confounds: dict[str, np.ndarray],
        seed: int,
    ) -> NoiseEvaluation:
        """With the options of an evaluation, and noise of the shape of its fused
        modalities."""
        _check_present(evaluation.fused, modalities)
        widths = _noise_widths(evaluation.fused, modalities)
        scale = tuple(name for name in evaluation.scaled if name in widths)
        return NoiseEvaluation(
            patients=len(evaluation.patients),
            widths=widths,
            svm=_same_svm(evaluation, scale),
            validation=_same_validation(evaluation, seed),
            confounds=confounds,
        )

    def __call__(self, repeats: np.ndarray) -> np.ndarray:
        """Accuracies (repeat,) of these repeats."""
        return np.array([self._accuracy(int(repeat)) for repeat in repeats])

    def _accuracy(self, repeat: int) -> float:
        seed = self.validation.seed
        rng = generator(seed, Stream.AUDIT_NOISE, repeat + 1)
        evaluation = evaluate_visits(
            self._noise(rng),
            svm=self.svm,
            # Other folds in every repeat, as other noise.
            validation=replace(self.validation, seed=seed + repeat),
            permutations=Permutations(0),
            contributions=False,
            jobs=1,
        )
        return evaluation.scores[evaluation.best].accuracy

    def _noise(self, rng: np.random.Generator) -> PairedVisits:
        noise = {}
        for name, width in self.widths.items():
            noise[name] = rng.normal(size=(self.patients, 2, width))
        return PairedVisits(noise, self._names, confounds=self.confounds)

    @property
    def _names(self) -> list[str]:
        return [str(i) for i in range(self.patients)]


def _same_svm(evaluation: Evaluation, scale: tuple[str, ...]) -> Svm:
    missing: Missing = "log_odds" if evaluation.missing else "complete"
    return Svm(evaluation.C, scale, evaluation.fusion, missing)


def _check_present(names: list[str], modalities: dict[str, np.ndarray]) -> None:
    absent = [name for name in names if name not in modalities]
    if absent:
        raise InputError(
            "The audit needs every modality that was evaluated; missing: "
            f"{', '.join(absent)}."
        )


def _noise_widths(
    names: list[str], modalities: dict[str, np.ndarray]
) -> dict[str, int]:
    return {name: min(modalities[name].shape[-1], NOISE_FEATURES) for name in names}


def _same_validation(evaluation: Evaluation, seed: int) -> Validation:
    """Folds as those of the evaluation."""
    folds = int(evaluation.folds.max()) + 1
    # One patient in every fold is what None means.
    leaves_one_out = folds == len(evaluation.patients)
    return Validation(
        folds=None if leaves_one_out else folds,
        inner_folds=evaluation.inner_folds,
        seed=seed,
        # The evaluation itself had as few patients.
        force=True,
    )


def _noise_features(accuracies: np.ndarray) -> Check:
    """accuracies (repeat,) of the pipeline on noise."""
    what = (
        f"The same pipeline on noise of the same shape, {len(accuracies)} times: "
        "accuracy"
    )
    return _no_better("noise features", what, accuracies, 0.5)


def _no_better(name: str, what: str, reached: np.ndarray, guessing: float) -> Check:
    """Fails where the mean of repeats on noise is better than guessing."""
    mean = float(reached.mean())
    error = float(reached.std(ddof=1) / np.sqrt(len(reached)))
    # Only too good is a failure: leaving one out is pessimistic, visibly so with few
    # features. Four standard errors, since accuracies of few features are skewed.
    ok = mean - guessing <= 4 * error + 1e-9
    return Check(
        name,
        mean,
        f"at most {guessing:g} and 4 standard errors",
        _pass_or("fail", ok),
        f"{what} {mean:.3f} ± {error:.3f} ({_on_noise(ok)}).",
    )


def _on_noise(ok: bool) -> str:
    if ok:
        return "no better than guessing, as it should be"
    return "better than guessing: something leaks"


def _shuffled_visits(evaluation: Evaluation) -> Check:
    null = evaluation.scores[evaluation.best].null
    mean = float("nan")
    verdict: Verdict = "warn"
    words = "No permutations were asked for."
    if len(null):
        mean = float(null.mean())
        verdict = _pass_or("fail", _is_at_chance(null))
        words = _shuffled_words(mean, len(null))
    return Check("shuffled visits", mean, "at most 50 %", verdict, words)


def _is_at_chance(null: np.ndarray) -> bool:
    error = null.std() / np.sqrt(len(null))
    # One percentage point besides, since permutations share their patients.
    return bool(null.mean() <= 0.5 + 3 * error + 0.01)


def _shuffled_words(mean: float, permutations: int) -> str:
    return (
        f"The real features with visits swapped at random: {100 * mean:.1f} % on "
        f"average over {permutations} permutations "
        "(below 50 % is the known pessimism of leaving one out, and costs power, not "
        "validity)."
    )


def _order_share(rose: np.ndarray) -> tuple[float, float]:
    """Share of the more frequent order, and p of a balanced design."""
    later, number = int(np.sum(rose)), len(rose)
    # Which of the two orders is more frequent does not matter.
    alias = max(later, number - later) / number
    return alias, float(binomtest(later, number).pvalue)


def _is_aliased(rose: np.ndarray) -> bool:
    alias, p = _order_share(rose)
    return alias > ALIASED or p < ORDER_P


def _kept_orders(
    noise: NoiseEvaluation,
    modalities: dict[str, np.ndarray],
    evaluation: Evaluation,
    rose: np.ndarray,
    jobs: Jobs,
) -> list[Check]:
    """Whether the score is better than order alone explains; nothing where everybody
    has one order, or nothing was permuted."""
    permutations = min(evaluation.permutations, MOST_KEPT_ORDERS)
    if rose.all() or not rose.any() or not permutations:
        return []
    fused = {name: modalities[name] for name in evaluation.fused}
    visits = PairedVisits(fused, evaluation.patients, confounds=noise.confounds)
    p = p_of_kept_orders(
        visits,
        rose,
        svm=noise.svm,
        validation=noise.validation,
        permutations=permutations,
        jobs=jobs,
    )
    words = (
        f"Orders of visits exchanged between people, so that as many have either as "
        f"before: p = {p:.3f}. What order alone predicts is no evidence in this test."
    )
    verdict = _pass_or("warn", p < 0.05)
    return [Check("kept orders", p, "p below .05", verdict, words)]


def _order_oracle(rose: np.ndarray) -> Check:
    alias, p = _order_share(rose)
    is_aliased = _is_aliased(rose)
    expected = "near 50 % in a counterbalanced design"
    words = _order_words(alias, p, is_aliased)
    return Check(
        "order oracle", alias, expected, _pass_or("warn", not is_aliased), words
    )


def _order_words(alias: float, p: float, is_aliased: bool) -> str:
    ending = f" (p = {p:.2g} if orders are balanced)."
    if is_aliased:
        ending = (
            f" (p = {p:.2g} if orders are balanced): whatever changes with time or "
            "order cannot be told apart from pain."
        )
    return (
        f"Who knows nothing but which visit came later is right in {100 * alias:.0f} % "
        f"of patients{ending}"
    )


def _control_alone(name: str, evaluation: Evaluation) -> Check:
    score = evaluation.scores[name]
    words = f"{name} alone {_recognition(score)}."
    # A warning only: a control may differ because of the pain.
    verdict = _pass_or("warn", score.p >= 0.05)
    expected = "not distinguishable from 50 %"
    return Check(f"{name} alone", score.accuracy, expected, verdict, words)


def _recognition(score: Score) -> str:
    share = 100 * score.accuracy
    if score.accuracy_exact_ci.high < 0.5:
        # Patients who are left out lie on the other side of a mean that says nothing.
        return (
            f"carries no information: right in {share:.1f} % of patients, far below "
            "guessing, as weak predictors are when each patient is left out in turn"
        )
    return f"recognises the visit in {share:.1f} % of patients (p = {score.p:.3f})"


def _single_columns(
    modalities: dict[str, np.ndarray], names: list[str]
) -> dict[str, np.ndarray]:
    """Those of the named modalities that are one number a visit: (patient, visit)."""
    single = [name for name in names if modalities[name].shape[-1] == 1]
    return {name: modalities[name][..., 0] for name in single}


def _confounded_decisions(
    evaluation: Evaluation,
    measured: dict[str, np.ndarray],
    change: np.ndarray | None,
    families: np.ndarray | None,
    seed: int,
) -> list[Check]:
    """Whether decisions of the best model follow what was measured (patient, visit)
    beyond pain."""
    decisions = evaluation.scores[evaluation.best].decisions
    # Without ratings all that is known of the pain is at which visit there was more.
    answer = np.ones(len(decisions)) if change is None else change
    checks = []
    for name, values in measured.items():
        difference = values[:, 1] - values[:, 0]
        people = independent_means([answer, decisions, difference], families)
        checks += _confounder_check(name, "decisions", people, seed)
    return checks


def _confounder_check(
    name: str, what: str, people: tuple[np.ndarray, ...], seed: int
) -> list[Check]:
    """people: answer, predictions and confound (person,). Empty where the confound is
    the same for nearly everybody."""
    answer, predicted, confound = people
    if not is_testable(confound):
        return []
    tests = confounder_tests(answer, predicted, confound, seed=seed)
    words = (
        f"A curve of {name} explains {100 * tests.r_squared:.0f} % of the variance of "
        f"the {what}; beyond what the outcome explains: p = {tests.partial:.3f} "
        "(partial confounder test)"
    )
    if is_testable(answer):
        words += (
            f". Beyond what {name} explains, {what} follow the outcome with p = "
            f"{tests.full:.3f} (full confounder test)"
        )
    verdict = _pass_or("warn", tests.partial >= 0.05)
    title = f"{what} beside {name}"
    return [Check(title, tests.partial, "p of .05 or more", verdict, f"{words}.")]


def audit_ratings(
    ratings: Ratings,
    noise: int = 0,
    seed: int = 0,
    confounds: dict[str, np.ndarray] | None = None,
) -> list[Check]:
    """The checks of a regression between patients; noise: repeats with as many features
    of noise as scans; confounds: by name, a value per scan."""
    checks = []
    if noise:
        checks.append(_noise_ratings(ratings, noise, seed))
    oracle = ratings.baselines.get("state only")
    if oracle:
        checks.append(_state_oracle(ratings, oracle["r"]))
    for name, alone in ratings.baselines.items():
        # What is left are predictors of the user's own, such as confounds.
        if name not in ("training mean", "state only"):
            checks.append(_baseline_alone(name, ratings, alone["r_within_state"]))
    for name, values in (confounds or {}).items():
        people = _means_of_people(ratings, values)
        checks += _confounder_check(name, "predictions", people, seed)
    if len(ratings.null):
        checks.append(_shuffled_patients(ratings))
    return checks


def _means_of_people(ratings: Ratings, confound: np.ndarray) -> tuple[np.ndarray, ...]:
    """Rating, prediction and confound (person,), means of a person's scans, or of a
    family's."""
    scans = ratings.scans
    # Less the training means, which differ between folds in the wrong direction.
    deviation = ratings.predicted - training_means(scans, ratings.folds)
    member = scans.patient
    if scans.family is not None:
        member = scans.family[scans.patient]
    return independent_means([scans.rating, deviation, confound], member)


def _state_oracle(ratings: Ratings, oracle_r: float) -> Check:
    # A margin, since the oracle's r is an estimate too.
    verdict = _pass_or("warn", ratings.performance["r"] > oracle_r + 0.02)
    expected = "below the model's pooled r"
    words = _state_words(ratings, oracle_r)
    return Check("state-only oracle", oracle_r, expected, verdict, words)


def _state_words(ratings: Ratings, oracle_r: float) -> str:
    r = ratings.performance["r"]
    within = ratings.performance["r_within_state"]
    return (
        f"Who knows only before from after predicts ratings with r = {oracle_r:.2f}; "
        f"the model's pooled r is {r:.2f}. Read the r within states ({within:.2f}) "
        "instead."
    )


def _baseline_alone(name: str, ratings: Ratings, baseline_r: float) -> Check:
    r = ratings.performance["r_within_state"]
    return Check(
        f"{name} alone, ratings",
        baseline_r,
        "below the model",
        _pass_or("warn", baseline_r < r),
        f"A ridge regression on {name} alone: r within states = {baseline_r:.2f}, "
        f"the model {r:.2f}.",
    )


def _shuffled_patients(ratings: Ratings) -> Check:
    mean = float(ratings.null.mean())
    words = (
        f"Ratings exchanged between patients: r within states = {mean:.2f} on average"
    )
    # Inside sites, permuted ratings keep what the sites alone predict, and p is exact.
    if ratings.scans.site is not None:
        return Check(
            "shuffled patients",
            mean,
            "what sites alone predict",
            "pass",
            f"{words}: they were exchanged inside sites, so that this is what sites "
            "alone give, and p is beside it.",
        )
    return Check(
        "shuffled patients",
        mean,
        "below 0.1 on average",
        _pass_or("fail", mean < 0.1),
        f"{words}.",
    )


def _noise_ratings(ratings: Ratings, repeats: int, seed: int) -> Check:
    rng = generator(seed, Stream.AUDIT_RATINGS)
    correlations = []
    for repeat in range(repeats):
        correlations.append(_r_on_noise(ratings, rng, seed + repeat))
    what = (
        f"A ridge regression on noise with the same folds, {repeats} times: r "
        "within states"
    )
    return _no_better("noise features, ratings", what, np.array(correlations), 0.0)


def _r_on_noise(ratings: Ratings, rng: np.random.Generator, seed: int) -> float:
    # As many features as scans, with which a model can fit anything.
    n = len(ratings.scans.rating)
    kernel = feature_kernel({"noise": rng.normal(size=(n, n))})
    settings = RegressionSettings(permutations=0, seed=seed)
    on_noise = regress(ratings.scans, kernel, ratings.folds, settings, jobs=1)
    return on_noise.performance["r_within_state"]


def _published_split(published: PublishedRegression) -> Check:
    return Check(
        "published 2019 split",
        published.noise_r,
        "0 if it did not leak",
        _pass_or("warn", published.noise_r <= 0.1),
        f"{published.label} On these data it gives r = {published.test_r:.2f}.",
    )
