"""Every question about one set of paired features: three estimands, controls, leak
audit; never pooled, never apart."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cingulum.prediction.decision_calibration import (
    DecisionCalibration,
    calibrate_decisions,
)
from cingulum.prediction.dose import DoseResponse, dose_response
from cingulum.prediction.intervals import independent_people
from cingulum.prediction.leak_audit import Check, audit
from cingulum.prediction.learning_curves import compact, learning_curve
from cingulum.prediction.lee2019 import PublishedRegression, published_regression
from cingulum.prediction.paired_evaluation import evaluate_visits
from cingulum.prediction.paired_visits import PairedVisits
from cingulum.prediction.permutation import Jobs
from cingulum.prediction.regression import (
    Model,
    Predictors,
    Ratings,
    Visits,
    evaluate_ratings,
)
from cingulum.prediction.scores import Evaluation
from cingulum.prediction.settings import Permutations, Svm, Validation
from cingulum.prediction.svm.products import order_visits

MANY = 100
"""Patients beyond which the forced choice deals them into 20 folds, and the audit
repeats 10 times on noise: one at a time, and 50 times, cost much and tell no more. Maps
are flipped 500 times then, unless more are requested."""

MOST_FOLDS = 10
"""Of regressions between patients."""

FEWEST_FOR_CURVE, FEWEST_FOR_RATINGS = 20, 10
"""Patients that a learning curve, and a regression between patients, need."""


@dataclass(frozen=True, eq=False)
class StudyData:
    """Features, ratings and sites that a study is evaluated on.

    visits: features and confounds, with visits in the order of time
    ratings: (patient, visit), or None
    higher: (patient,) whether the second visit is the one to be recognised; None: it
        always is. Only the forced choice and single scans are ordered that way: between
        patients, a scan's place must not come from its own rating.
    sites: (patient,); ratings are exchanged inside sites only
    """

    visits: PairedVisits
    ratings: np.ndarray | None = None
    higher: np.ndarray | None = None
    sites: np.ndarray | None = None

    def select(self, rows: np.ndarray) -> StudyData:
        """Of the patients in these rows only."""
        return StudyData(
            self.visits.select(rows),
            _rows_of(self.ratings, rows),
            _rows_of(self.higher, rows),
            _rows_of(self.sites, rows),
        )

    @property
    def is_second_higher(self) -> np.ndarray:
        """(patient,): `higher`, or true for everybody."""
        if self.higher is None:
            return np.ones(len(self.visits.patients), bool)
        return np.asarray(self.higher, bool)

    def ordered(self) -> PairedVisits:
        """Visits with the one to be recognised second."""
        return self.visits.ordered(self.is_second_higher)


def _rows_of(values: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if values is None else np.asarray(values)[rows]


@dataclass(frozen=True)
class RatingRegression:
    """How ratings are predicted between patients: from decision responses or from the
    features themselves, and by which model."""

    on: Predictors = "responses"
    model: Model = "ridge"


@dataclass(frozen=True, eq=False)
class StudyEvaluation:
    """The answers.

    paired: forced choice and single scans
    ratings: between patients, by `both`, `first`, `second` visits
    published: the 2019 recipe, for comparison
    dose: decisions against changes in rating
    calibration: of the best model's decisions
    checks: the leak audit
    learning: rows (patients, accuracy, sd)
    words: which questions could not be answered, and why
    """

    paired: Evaluation
    ratings: dict[str, Ratings] = field(default_factory=dict)
    published: PublishedRegression | None = None
    dose: DoseResponse | None = None
    calibration: DecisionCalibration | None = None
    checks: list[Check] = field(default_factory=list)
    learning: list[dict[str, float]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    @property
    def best(self) -> str:
        """The model whose score is reported first: the fusion, or the only modality."""
        return self.paired.best


def evaluate_study(
    data: StudyData,
    *,
    svm: Svm,
    validation: Validation,
    permutations: Permutations,
    regression: RatingRegression,
    learning: bool = True,
    jobs: Jobs = None,
    show_progress: bool = False,
) -> StudyEvaluation:
    """Forced choice, single scans and ratings between patients, with all controls.

    validation: without folds, one patient is left out at a time, of more than MANY
    patients a twentieth; learning: also with fewer patients
    """
    if validation.folds is None and len(data.visits.patients) > MANY:
        validation = replace(validation, folds=20)
    study = _Study(data, svm, validation, permutations, regression, jobs, show_progress)
    return study.evaluate(learning)


@dataclass(frozen=True, eq=False)
class _Study:
    """Data and settings of one study, whose questions are its methods."""

    data: StudyData
    svm: Svm
    validation: Validation
    permutations: Permutations
    regression: RatingRegression
    jobs: Jobs
    show_progress: bool

    @property
    def seed(self) -> int:
        return self.validation.seed

    @cached_property
    def ordered(self) -> PairedVisits:
        """Visits with the one to be recognised second."""
        return self.data.ordered()

    def evaluate(self, learning: bool) -> StudyEvaluation:
        paired = self._paired()
        answers = StudyEvaluation(paired)
        # The model that is reported first is the one that is calibrated.
        decisions = paired.scores[answers.best].decisions
        answers = replace(answers, calibration=calibrate_decisions(decisions))
        # All other results are of the patients that were evaluated.
        study = replace(self, data=self.data.select(self._kept(paired)))
        if study.data.ratings is not None:
            answers = study.with_ratings(answers, decisions, study.data.ratings)
        answers = replace(answers, checks=study.audit(answers))
        if learning:
            answers = replace(answers, learning=study.learning_curve(paired))
        return replace(answers, words=[*answers.words, *study.cancelled_confounds()])

    def _paired(self) -> Evaluation:
        return evaluate_visits(
            # Not the cached ones: maps of all patients need not stay in memory.
            self.data.ordered(),
            svm=self.svm,
            validation=self.validation,
            permutations=self.permutations,
            jobs=self.jobs,
            show_progress=self.show_progress,
        )

    def _kept(self, paired: Evaluation) -> np.ndarray:
        """Rows of the patients that were evaluated."""
        is_evaluated = np.isin(self.data.visits.patients, paired.patients)
        return np.flatnonzero(is_evaluated)

    def with_ratings(
        self, answers: StudyEvaluation, decisions: np.ndarray, ratings: np.ndarray
    ) -> StudyEvaluation:
        """With what needs ratings: regressions between patients, and dose-response."""
        fused = self.data.visits.only(answers.paired.fused)
        # Without controls, which a regression would take for brain data.
        between = BetweenPatients.of(fused.values, ratings, self.svm.scale)
        answers = replace(answers, dose=self.dose_response(decisions, ratings))
        obstacles = between.obstacles()
        if obstacles:
            return replace(answers, words=[*answers.words, *obstacles])
        return self._with_regressions(answers, between)

    def _with_regressions(
        self, answers: StudyEvaluation, between: BetweenPatients
    ) -> StudyEvaluation:
        return replace(
            answers,
            ratings=self._regressions(between),
            published=between.published(self.seed),
            words=[*answers.words, *between.constant_ratings()],
        )

    def _regressions(self, between: BetweenPatients) -> dict[str, Ratings]:
        varying = between.varying_visits()
        return {visits: self._ratings(between, visits) for visits in varying}

    def _ratings(self, between: BetweenPatients, visits: Visits) -> Ratings:
        families = self.data.visits.blocks
        return evaluate_ratings(
            between.values,
            between.ratings,
            self.data.visits.patients,
            visits=visits,
            scale=self.svm.scale,
            confounds=self.data.visits.confounds or None,
            on=self.regression.on,
            model=self.regression.model,
            folds=min(MOST_FOLDS, self._independent_people),
            sites=self.data.sites,
            blocks=None if families is None else list(families),
            permutations=self.permutations.n,
            stop_after=self.permutations.stop_after,
            seed=self.seed,
            jobs=self.jobs,
        )

    @property
    def _independent_people(self) -> int:
        visits = self.data.visits
        everybody = np.ones(len(visits.patients), bool)
        return independent_people(visits.blocks, everybody)

    def _change_of_ratings(self) -> np.ndarray | None:
        """(patient,): towards the visit to be recognised; None without ratings."""
        if self.data.ratings is None:
            return None
        return _change(order_visits(self.data.ratings, self.data.is_second_higher))

    def dose_response(self, decisions: np.ndarray, ratings: np.ndarray) -> DoseResponse:
        """Decisions (patient,) against changes in rating, given those of confounds."""
        confounds = self.ordered.stacked_confounds
        return dose_response(
            decisions,
            _change(order_visits(ratings, self.data.is_second_higher)),
            None if confounds is None else _change(confounds),
            # Cheap, and with fewer no p could be below .05.
            permutations=max(self.permutations.n, 19),
            seed=self.seed,
        )

    def audit(self, answers: StudyEvaluation) -> list[Check]:
        """Checks of the forced choice and of the regressions of ratings."""
        ordered = self.ordered
        return audit(
            ordered.values,
            answers.paired,
            rose=self.data.is_second_higher,
            change=self._change_of_ratings(),
            families=self.data.visits.blocks,
            ratings=answers.ratings.get("both"),
            published=answers.published,
            confounds=ordered.confounds,
            repeats=10 if len(ordered.patients) > MANY else 50,
            seed=self.seed,
            jobs=self.jobs,
            show_progress=self.show_progress,
        )

    def learning_curve(self, paired: Evaluation) -> list[dict[str, float]]:
        """Rows of the learning curve; none for few patients or missing modalities."""
        # Subsets of too few patients, or with gaps of their own, cannot be compared.
        if len(paired.patients) < FEWEST_FOR_CURVE or paired.missing:
            return []
        ordered = self.ordered
        # Subsets of patients would tear families apart.
        if ordered.blocks is not None:
            return []
        curve = learning_curve(
            ordered.only(paired.fused).values,
            paired.patients,
            confounds=ordered.confounds,
            folds=self.validation.folds,
            scale=self.svm.scale,
            repeats=10,
            fusion=self.svm.fusion,
            C=self.svm.C,
            seed=self.seed,
            jobs=self.jobs,
            show_progress=self.show_progress,
        )
        return curve.to_dict("records")

    def cancelled_confounds(self) -> list[str]:
        """A sentence on confounds that do nothing in the forced choice."""
        same = self._constant_confounds()
        if not same:
            return []
        return [
            f"{', '.join(same)}: the same at both visits of everybody, so it cancels "
            "in the forced choice."
        ]

    def _constant_confounds(self) -> list[str]:
        """Confounds that no patient changes in."""
        confounds = self.data.visits.confounds
        return [name for name, v in confounds.items() if np.ptp(v, axis=1).max() == 0]


def _change(values: np.ndarray) -> np.ndarray:
    """Second visit − first, of (patient, visit, …)."""
    return np.diff(values, axis=1)[:, 0]


@dataclass(frozen=True, eq=False)
class BetweenPatients:
    """What ratings are predicted from: values by modality (patient, visit, feature),
    and ratings (patient, visit), visits in the order of time."""

    values: dict[str, np.ndarray]
    ratings: np.ndarray

    @staticmethod
    def of(
        modalities: dict[str, np.ndarray], ratings: np.ndarray, scale: tuple[str, ...]
    ) -> BetweenPatients:
        """Modalities that are not scaled are compacted, since only inner products
        count."""
        values = {}
        for name, features in modalities.items():
            values[name] = features if name in scale else _compacted(features)
        return BetweenPatients(values, ratings)

    def obstacles(self) -> list[str]:
        """Why no regression can be made; empty where one can."""
        if len(self.ratings) < FEWEST_FOR_RATINGS:
            return ["Between patients: fewer than 10 patients."]
        if self._has_gaps():
            return [
                "Between patients: some patients lack a modality; ask with complete "
                "cases."
            ]
        return []

    def _has_gaps(self) -> bool:
        return any(np.isnan(features).any() for features in self.values.values())

    def by_visits(self) -> dict[Visits, np.ndarray]:
        """The ratings of both, first and second visits."""
        return {
            "both": self.ratings,
            "first": self.ratings[:, 0],
            "second": self.ratings[:, 1],
        }

    def varying_visits(self) -> list[Visits]:
        """Visits whose ratings differ, so that there is something to predict."""
        return [v for v, ratings in self.by_visits().items() if np.ptp(ratings) > 0]

    def constant_ratings(self) -> list[str]:
        """A sentence for each of the others."""
        varying = self.varying_visits()
        constant = [visits for visits in self.by_visits() if visits not in varying]
        return [_constant_words(visits) for visits in constant]

    def published(self, seed: int) -> PublishedRegression | None:
        """The 2019 recipe, which takes the second visit for the one in more pain."""
        rises = self.ratings[:, 1] > self.ratings[:, 0]
        if not rises.all():
            return None
        return published_regression(self.values, self.ratings, seed=seed)


def _compacted(features: np.ndarray) -> np.ndarray:
    # Gaps are reported, not compacted.
    if np.isnan(features).any():
        return features
    return compact(features)


def _constant_words(visits: Visits) -> str:
    return f"Between patients, {visits} visits: all ratings are the same."
