"""The results of a study, in sections: what a report prints and summary.json holds.

Field names are the keys of summary.json, whose schema (docs/summary_schema.json) is
made from these classes. Numbers become JSON only in `to_plain`, when they are written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch

from cingulum.features import StudyRecipe
from cingulum.inference.resting import RestingFit
from cingulum.prediction import Contribution
from cingulum.prediction.dose import DoseResponse
from cingulum.prediction.leak_audit import Check
from cingulum.prediction.statistics import Interval

BOTH_VISITS = "both"
PUBLISHED = "published_2019"
NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Spread:
    """Mean, SD and range of what is known; None where nothing is."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Age(Spread):
    """Of those whose age is a number; known: how many they are."""

    known: int


@dataclass(frozen=True)
class TwoVisits:
    """A number at the first and at the second visit, over patients."""

    first: Spread
    second: Spread


@dataclass(frozen=True)
class PainRatings(TwoVisits):
    """Pain at both visits, 0 to 100, and its change from the first to the second."""

    change: Spread


@dataclass(frozen=True)
class CohortSection:
    """Who was scanned, and the pain they reported.

    first_session, second_session: labels that a first or second visit has
    pain_rose_in: patients whose pain rose from the first to the second visit
    orders: how many patients had their sessions in each order, the commonest first
    """

    patients: int
    visits: int
    first_session: Sequence[str]
    second_session: Sequence[str]
    pain: PainRatings
    pain_rose_in: int
    orders: Mapping[str, int]
    age: Age | None
    sex: Mapping[str, int]


@dataclass(frozen=True)
class Performance:
    """How well a model names the second of two visits.

    accuracy_exact_ci: Clopper-Pearson; auc: of mirrored decisions
    patients: that it decided
    """

    accuracy: float
    accuracy_ci: Interval
    accuracy_exact_ci: Interval
    auc: float
    auc_ci: Interval
    single_scan_auc: float | None
    p: float
    p_auc: float
    patients: int
    permutations: int
    null_accuracy: Spread | None


@dataclass(frozen=True)
class SingleScan:
    """What one scan alone would tell."""

    auc: float | None
    auc_ci: Interval
    p: float


@dataclass(frozen=True)
class Conformal:
    """level: of the interval; reach: how far it extends either side of a prediction."""

    level: float
    reach: float


@dataclass(frozen=True)
class RegressionSection:
    """A regression of ratings between patients, beside its baselines.

    figures, intervals: by measure of performance; baselines: the same measures of
    predictors that know too little
    """

    participants: int
    scans: int
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    p: float
    p_pooled: float
    null_r_within_state: Spread | None
    baselines: Mapping[str, Mapping[str, float]]
    conformal: Conformal
    model: str
    on: str
    folds: int
    permutations: int


@dataclass(frozen=True)
class PublishedSection:
    """The recipe of 2019, with what it gives on noise."""

    label: str
    train_r: float
    train_rmse: float
    test_r: float
    test_rmse: float
    p: float
    noise_r: float
    noise_range: Interval


@dataclass(frozen=True)
class Estimands:
    """The three questions, each with its own figures; never pooled."""

    forced_choice: Mapping[str, Performance]
    single_interval: Mapping[str, SingleScan]
    between_patients: Mapping[str, RegressionSection | PublishedSection | str]

    @property
    def of_both_visits(self) -> RegressionSection | None:
        """The regression on the ratings of both visits, where it was asked."""
        section = self.between_patients.get(BOTH_VISITS)
        return section if isinstance(section, RegressionSection) else None


@dataclass(frozen=True)
class CalibrationSection:
    """brier: score; curve: rows of probability given, share that came true, number."""

    brier: float
    curve: np.ndarray


@dataclass(frozen=True)
class EvaluationSettings:
    """What the evaluation did.

    missing: by modality, patients that lack it; columns: by model, that differ
    somewhere
    """

    patients: int
    C: Sequence[float]
    folds: int
    fusion: str
    scaled: Sequence[str]
    confounds: Sequence[str]
    stop_after: int | None
    dropped: Sequence[str]
    missing: Mapping[str, int]
    inner_folds: int
    permutations: int
    seed: int
    fused: Sequence[str]
    columns: Mapping[str, int]


@dataclass(frozen=True)
class EvaluationSection:
    """Everything asked of pairs of visits.

    contributions: what each modality adds to the fusion of the others
    notes: what could not be asked, and why
    learning_curve: rows of patients, accuracy and its SD
    """

    estimands: Estimands
    contributions: Mapping[str, Contribution]
    notes: Sequence[str]
    dose_response: DoseResponse | None
    calibration: CalibrationSection | None
    audit: Sequence[Check]
    learning_curve: Sequence[Mapping[str, float]]


@dataclass(frozen=True)
class Outlier:
    """A measure of quality at which a visit is far from the others."""

    visit: str
    measure: str
    value: float
    median: float


@dataclass(frozen=True)
class QualitySection:
    """limit: robust standard deviations beyond which a visit is an outlier."""

    limit: float
    measures: Sequence[str]
    far: Sequence[Outlier]


@dataclass(frozen=True)
class MapSection:
    """A weight map: voxels below each threshold, and its peaks.

    reproducibility: correlation of weights from halves of the patients
    """

    features: int
    below_fdr: int
    below_fwe: int
    weights_below_fdr: int
    reproducibility: float
    peaks: Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class FitSection:
    """A fitted brain beside its controls.

    fc_r: correlations with training data and, if there are any, held-out data
    mean_fc: levels of connectivity
    estimates: over regions
    """

    fc_r: Mapping[str, float]
    mean_fc: Mapping[str, float]
    regions: int
    parameters: int
    control_parameters: int
    estimates: Mapping[str, Spread]
    loop_gain: float
    slowest_return_per_s: float
    simulated_minutes: float
    time_step_ms: float
    seconds: float


@dataclass(frozen=True)
class FittedBrainSection(FitSection):
    """A fit with the source of its data in words."""

    source: str


@dataclass(frozen=True)
class VisitFitsSection:
    """Brains fitted to visits, beside the controls they are read against."""

    visits: int
    regions: int
    parameters: int
    fc_r: Spread
    mean_fc: Mapping[str, float]
    mean_fc_r: float
    linear_control: float
    baseline: Spread
    sc_fc: Spread
    loop_gain: Spread


@dataclass(frozen=True)
class Caution:
    """A sentence that a reader must know; kind: serious or note."""

    kind: str
    text: str


@dataclass(frozen=True)
class Gaps:
    """Who is missing.

    left_out: participants that were not analysed, with the reason
    absent: in participants.tsv, without any visit
    lacking: participants analysed without some modality, with the reasons
    """

    left_out: Mapping[str, str] = field(default_factory=dict)
    absent: Sequence[str] = ()
    lacking: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Provenance:
    """What the results were made with.

    recipe: how recordings were treated; pipelines: what made the derivatives
    mapped: by weight map, its permutations; equations: of quantified blood flow
    pages: files of the participants' pages
    """

    versions: Mapping[str, str]
    recipe: StudyRecipe | None = None
    mapped: Mapping[str, int] = field(default_factory=dict)
    pipelines: Sequence[str] = ()
    equations: Sequence[str] = ()
    pages: Sequence[str] = ()


@dataclass(frozen=True)
class StudyResults:
    """Everything that the report of a paired study prints.

    visits: features with one number per visit, by label
    prediction: performance by model
    planted: correlation of what was read with the truth, for synthetic cohorts
    flags: what recordings were flagged for, and how many visits
    notes: sentences put before the other warnings
    synthetic: whether nobody was scanned
    """

    title: str
    cohort: CohortSection
    visits: Mapping[str, TwoVisits]
    prediction: Mapping[str, Performance]
    evaluation: EvaluationSettings
    section: EvaluationSection
    quality: QualitySection
    maps: Mapping[str, MapSection]
    gaps: Gaps
    provenance: Provenance
    flags: Mapping[str, int] = field(default_factory=dict)
    fit: FittedBrainSection | None = None
    visit_fits: VisitFitsSection | None = None
    planted: Mapping[str, float] | None = None
    notes: Sequence[str] = ()
    synthetic: bool = False

    @property
    def best(self) -> str:
        """The model whose score is told first: the fusion, or the only modality."""
        return "fused" if "fused" in self.prediction else self.evaluation.fused[0]


@dataclass(frozen=True, eq=False)
class FittedBrain:
    """A fit to show beside a study: where its data come from, and the connectivity it
    is compared with."""

    source: str
    verified: RestingFit
    regions: tuple[str, ...]
    weights: torch.Tensor
    train: torch.Tensor
    heldout: torch.Tensor


def to_plain(value: Any) -> Any:
    """The same in JSON's types: sections as objects, arrays as lists, intervals as
    pairs, what is not finite as null."""
    if isinstance(value, Interval):
        return [to_plain(value.low), to_plain(value.high)]
    if is_dataclass(value) and not isinstance(value, type):
        parts = {part.name: getattr(value, part.name) for part in fields(value)}
        return to_plain(parts)
    if isinstance(value, Mapping):
        return {str(key): to_plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return _plain_number(value)


def _plain_number(value: Any) -> Any:
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value
