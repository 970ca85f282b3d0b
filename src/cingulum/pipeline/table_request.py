"""What a user asks of a table of features: which question, of which columns, answered
by which model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from cingulum.errors import InputError
from cingulum.prediction.regression import Model
from cingulum.prediction.settings import Fusion, Missing, possible_fusion
from cingulum.report.table_results import Setting


@dataclass(frozen=True)
class Question:
    """Which outcome is to be predicted, and of whom.

    outcome: column of numbers; group: column that names the participants
    design: paired (which of a participant's two visits had the higher outcome?) or
        between (how high is the outcome of a participant not used for training?)
    order: column that orders the visits of a participant; None: session_id, or else the
        order of the rows
    bids: dataset whose sessions.tsv and participants.tsv have columns that the table
        lacks
    """

    outcome: str
    group: str = "participant_id"
    design: str = "paired"
    order: str | None = None
    bids: Path | None = None

    def __post_init__(self) -> None:
        if self.design not in ("paired", "between"):
            raise InputError(f"--design is paired or between; came {self.design!r}.")

    @property
    def is_paired(self) -> bool:
        return self.design == "paired"


@dataclass(frozen=True)
class ColumnRoles:
    """What the columns of the table are used as.

    features: patterns of column names; none: all numeric columns without another role
    modalities: by name, patterns of column names; none: as the table's .json groups
        them, else all features together
    controls: modalities or columns that are scored by themselves and not fused
    confounds: regressed out of the features in every fold
    site: participants exchange outcomes inside their site only
    family: participants of one family are left out together, and exchange outcomes as
        a whole
    """

    features: tuple[str, ...] = ()
    modalities: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    confounds: tuple[str, ...] = ()
    site: str | None = None
    family: str | None = None

    def __post_init__(self) -> None:
        if "fused" in self.modalities:
            raise InputError(
                "A modality cannot be called fused: that is the name of their fusion."
            )

    def predictors(self) -> Iterator[str]:
        """Every column or pattern that enters a model by name."""
        yield from self.confounds
        yield from self.features
        for patterns in self.modalities.values():
            yield from patterns


@dataclass(frozen=True)
class ModelOptions:
    """How the outcome is predicted.

    harmonise: remove site differences in mean and variance (between)
    fusion, missing, C: of the paired support vector machines; model: of the regression
    folds: of participants; None: one participant at a time, or 20 folds beyond 100
        participants; between, 10
    scale: standardise features in every fold
    """

    harmonise: bool = False
    fusion: Fusion = "stacked"
    missing: Missing = "complete"
    model: Model = "ridge"
    folds: int | None = None
    C: tuple[float, ...] = (1.0,)
    scale: bool = True

    @property
    def effective_fusion(self) -> Fusion:
        return possible_fusion(self.fusion, self.missing)

    @property
    def is_scaled(self) -> bool:
        """Features that are fused as kernels are not standardised: the size of every
        kernel is divided out instead."""
        return self.scale and self.effective_fusion != "kernels"


@dataclass(frozen=True)
class EvaluationOptions:
    """How p and intervals are computed.

    stop_after: stop once so many permutations reach the observed score; None: never
    level: of the conformal intervals of predicted outcomes
    force: also with fewer than 10 participants
    """

    permutations: int = 5000
    stop_after: int | None = None
    level: float = 0.9
    seed: int = 0
    force: bool = False

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"--seed is a whole number from 0; came {self.seed}.")


@dataclass(frozen=True)
class Request:
    """A prediction from a table. Raises InputError where the parts contradict each
    other."""

    question: Question
    columns: ColumnRoles = field(default_factory=ColumnRoles)
    model: ModelOptions = field(default_factory=ModelOptions)
    evaluation: EvaluationOptions = field(default_factory=EvaluationOptions)

    def __post_init__(self) -> None:
        self._check_harmonisation()
        self._check_leaks()

    def _check_harmonisation(self) -> None:
        if not self.model.harmonise:
            return
        if self.columns.site is None or self.question.is_paired:
            raise InputError(
                "--harmonise needs --site, and --design between: in the difference of "
                "two visits of a person sites cancel."
            )

    # Patterns are not checked here: what they match is checked against the table.
    def _check_leaks(self) -> None:
        roles = {
            self.question.outcome: "the outcome",
            self.question.group: "the group",
        }
        for column in self.columns.predictors():
            if column in roles:
                raise InputError(
                    f"{column} is {roles[column]}: as a feature or confound it would "
                    "give the answer away."
                )

    def settings(self) -> dict[str, Setting]:
        """Every option by name, as summary.json records them; without those that are
        empty."""
        settings: dict[str, Setting] = {}
        for group in (self.question, self.columns, self.model, self.evaluation):
            for option in fields(group):
                value = getattr(group, option.name)
                # False and 0 are choices and are recorded.
                # A folder would name people and machines.
                if value not in ((), None, {}) and not isinstance(value, Path):
                    settings[option.name] = value
        # What was done counts, not what was asked for.
        settings["fusion"] = self.model.effective_fusion
        if self.question.is_paired:
            settings["scale"] = self.model.is_scaled
        return settings

    def ignored_options(self) -> list[str]:
        """A note on options that the design has no use for; none, an empty list."""
        if self.question.is_paired:
            return []
        # An option that was set to its default cannot be told from one left alone.
        defaults = ModelOptions()
        changed = [
            f"--{name}"
            for name in ("fusion", "missing", "C")
            if getattr(self.model, name) != getattr(defaults, name)
        ]
        if not changed:
            return []
        return [
            f"{', '.join(changed)}: of the forced choice; the regression takes "
            "complete rows and adds kernels."
        ]
