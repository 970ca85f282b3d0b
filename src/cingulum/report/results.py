"""The results of a study, in sections: what a report prints and summary.json holds.

Field names are the keys of summary.json, whose schema (docs/summary_schema.json) is
generated from these classes. Numbers become JSON only in `to_plain`, when they are
written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np
import torch

from cingulum.features import StudyRecipe
from cingulum.inference.resting import RestingFit
from cingulum.io.files import JsonObject
from cingulum.prediction import Contribution
from cingulum.prediction.dose import DoseResponse
from cingulum.prediction.leak_audit import Check
from cingulum.prediction.statistics import Interval

# Keys of summary.json under estimands, between_patients: readers' scripts use them.
BOTH_VISITS = "both"
PUBLISHED = "published_2019"
NOT_ASKED = "not asked"


@dataclass(frozen=True)
class Spread:
    """Mean, SD and range of the known values; None where no value is known."""

    mean: float | None
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Age(Spread):
    """Of the participants whose age is a number; known: their number."""

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
    # None and empty: participants.tsv has no such column.
    age: Age | None
    sex: Mapping[str, int]


@dataclass(frozen=True)
class Performance:
    """How well a model identifies which of two visits hurt more.

    accuracy_exact_ci: Clopper-Pearson; auc: of mirrored decisions
    patients: for whom the model reached a decision
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
    """What a model says from a single scan."""

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

    figures, intervals: by measure of performance
    baselines: the same measures of predictors without any brain data
    """

    participants: int
    scans: int
    figures: Mapping[str, float]
    intervals: Mapping[str, Interval]
    p: float
    p_pooled: float
    # None without permutations.
    null_r_within_state: Spread | None
    baselines: Mapping[str, Mapping[str, float]]
    conformal: Conformal
    model: str
    on: str
    folds: int
    permutations: int


@dataclass(frozen=True)
class PublishedSection:
    """The recipe of Lee et al. 2019, with its results on noise."""

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

    # Performance on one question does not carry over to another, so they are apart.
    forced_choice: Mapping[str, Performance]
    single_interval: Mapping[str, SingleScan]
    # A text is the reason why there is no regression.
    between_patients: Mapping[str, RegressionSection | PublishedSection | str]

    @property
    def of_both_visits(self) -> RegressionSection | None:
        """The regression on the ratings of both visits, where there is one."""
        section = self.between_patients.get(BOTH_VISITS)
        return section if isinstance(section, RegressionSection) else None


@dataclass(frozen=True)
class CalibrationSection:
    """Calibrated probabilities.

    brier: score; curve: rows of predicted probability, observed share, number
    """

    brier: float
    curve: np.ndarray


@dataclass(frozen=True)
class EvaluationSettings:
    """How the models were trained and tested.

    missing: by modality, patients that lack it
    columns: by model, number of columns that are not constant
    """

    patients: int
    # The symbol of the penalty in the literature on support vector machines.
    C: Sequence[float]
    folds: int
    fusion: str
    scaled: Sequence[str]
    confounds: Sequence[str]
    # None: every permutation is computed.
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
    """Everything that was evaluated on pairs of visits.

    contributions: what each modality adds to the fusion of the others
    notes: what could not be evaluated, and why
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
class Peak:
    """A peak of a map, and the nearest region of the Dosenbach atlas.

    threshold: in words; cluster: its number, with a letter for further peaks
    x, y, z: MNI coordinates in mm; peak: z score
    size_mm3: of the cluster; empty for its further peaks
    distance_mm: to the centre of the region
    """

    threshold: str
    cluster: int | str
    x: float
    y: float
    z: float
    peak: float
    size_mm3: float | str
    region: str
    distance_mm: float


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
    peaks: Sequence[Peak]


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
    # More parameters fit better by themselves, so both counts are reported.
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
    """A fit, and where its data come from, in words."""

    source: str


@dataclass(frozen=True)
class VisitFitsSection:
    """Brains fitted to visits, beside the controls they are compared with."""

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
    """Software, settings and equations behind the results.

    recipe: how recordings were processed; pipelines: that wrote the derivatives
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
    planted: correlation of estimates with the truth, for synthetic cohorts
    flags: reasons for which recordings were flagged, and the number of visits
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
        """The model that is reported first: the fusion, or the only modality."""
        if "fused" in self.prediction:
            return "fused"
        return self.evaluation.fused[0]


@dataclass(frozen=True, eq=False)
class FittedBrain:
    """A fit to show beside a study.

    source: of its data, in words; weights: of the connectome (region, region)
    train, heldout: connectivity (region, region)
    """

    source: str
    verified: RestingFit
    regions: tuple[str, ...]
    weights: torch.Tensor
    train: torch.Tensor
    heldout: torch.Tensor


def to_plain(value: Any) -> Any:
    """The same in JSON's types: sections as objects, arrays as lists, intervals as
    pairs, what is not finite as null."""
    # An interval is a dataclass as well, so it is recognised before the others.
    if isinstance(value, Interval):
        return [to_plain(value.low), to_plain(value.high)]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_object(_field_values(value))
    if isinstance(value, Mapping):
        return _plain_object(value)
    if isinstance(value, np.ndarray):
        return to_plain(value.tolist())
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return _plain_scalar(value)


def _field_values(section: Any) -> JsonObject:
    """Values by field; `dataclasses.asdict` would copy arrays and turn intervals into
    objects."""
    return {part.name: getattr(section, part.name) for part in fields(section)}


def _plain_object(mapping: Mapping[Any, Any]) -> JsonObject:
    # JSON has no keys but strings.
    return {str(key): to_plain(item) for key, item in mapping.items()}


def _plain_scalar(value: Any) -> Any:
    # In Python a bool is an int, so this comes before the numbers.
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, float | np.floating):
        return _plain_float(float(value))
    if isinstance(value, np.integer):
        return int(value)
    return value


def _plain_float(value: float) -> float | None:
    # JSON has neither NaN nor infinity.
    if not np.isfinite(value):
        return None
    return value
