"""What every feature is: a measurement of one visit that never sees other people or the
outcome, and everything that is to be known of it.

This module and the files of the features import heavy libraries inside functions: help
texts and error messages list features, and must not wait for them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from cingulum.errors import InputError
from cingulum.io.recording_kinds import RecordingKind

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from cingulum.brain.connectome import Connectome
    from cingulum.features.run_combination import RunCombination
    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.visit_data import VisitData

JsonValue = Any
"""Anything that JSON can hold: text, number, truth value, null, list or object."""

Settings = Mapping[str, JsonValue]


# Also the order of features in reports: see `registry._by_role`.
class Role(StrEnum):
    """What a feature is for in a study."""

    PREDICTOR = "predictor"
    """May be asked to predict the outcome."""

    CONTROL = "control"
    """Scored by itself and kept out of the fusion: what a predictor must be held
    against."""

    QUALITY = "quality"
    """Shown, so that readers can judge the recordings; never predicted from."""

    DESCRIPTIVE = "descriptive"
    """A column of the feature table for analyses of one's own."""


class ColumnKind(StrEnum):
    """What the numbers of a column are."""

    VALUE = "value"
    STANDARD_ERROR = "standard error"
    """Uncertainty of another column: shown, never predicted from."""


def standard_error_name(column: str) -> str:
    """The name of the column with the standard error of another column."""
    return f"sd {column}"


@dataclass(frozen=True)
class Column:
    """A column of the feature table.

    name: below the feature's own name; empty for a feature of one number
    parameter, region: of a column that belongs to one region of an atlas
    """

    name: str
    unit: str
    meaning: str
    kind: ColumnKind = ColumnKind.VALUE
    parameter: str = ""
    region: str = ""


@dataclass(frozen=True)
class Control:
    """A number that is scored by itself, because whatever it explains needs no brain.

    column: of the feature that declares it
    held_against: the recordings whose results must be read against it
    methods_text: a clause for the methods section
    must_be_complete: left out of a study in which some visit lacks it; `missing_text`
        is then printed in the report
    """

    name: str
    column: str
    label: str
    unit: str
    held_against: str
    methods_text: str
    # Grey: controls stay behind the predictors in every figure.
    colour: str = "#9aa3ae"
    must_be_complete: bool = False
    missing_text: str = ""


# A tuple, so that keys of kept results can be made of it as JSON.
class Origin(NamedTuple):
    """SHA-256 of how a measurement was made (settings, software), and of the recordings
    that it was made from."""

    recipe: str = ""
    recordings: str = ""


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was measured of one visit.

    values: a number, a vector, a matrix or a map (x, y, z)
    affine: from voxels of a map to mm; None for all else
    details: for the sidecar: what was done, with its numbers
    flags: what a reader should know
    origin: what it was made from, where it was read back from disk
    """

    values: np.ndarray
    affine: np.ndarray | None = None
    details: Settings = field(default_factory=dict)
    flags: Sequence[str] = ()
    origin: Origin = Origin()

    @property
    def place(self) -> np.ndarray:
        """The affine of a map. Raises ValueError for what is no map."""
        if self.affine is None:
            raise ValueError("Only a map has a place in space.")
        return self.affine


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Rows of the feature table.

    table: (visit, column); NaN where a visit has no value
    arrays: further results of a feature, (visit, …) each, by name
    """

    table: pd.DataFrame
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class FeatureOption:
    """An option of `cingulum features` that belongs to one feature.

    name: as in `FeatureOptions.values`; `--seed-kind` is seed_kind
    parse: from the text of the command line
    values: how many texts it takes; more than one are a list
    repeatable: whether it may be typed several times; the value is then a list with an
        item each time, and None where it was not typed
    """

    name: str
    help: str
    default: Any = None
    parse: Callable[[str], Any] = str
    choices: tuple[str, ...] | None = None
    metavar: str | tuple[str, ...] | None = None
    values: int = 1
    repeatable: bool = False

    def __post_init__(self) -> None:
        # argparse appends what is typed to the default.
        if self.repeatable and self.default is not None:
            raise ValueError(
                f"The option {self.name!r} is repeatable and has a default "
                f"({self.default!r}); leave the default out, and put it where the "
                "feature finds None."
            )


@dataclass(frozen=True, eq=False)
class FeatureOptions:
    """What the features of a study are made with.

    atlas: regions; None: the 52 regions of the pain literature
    connectome: group connection weights; None: a distance rule
    values: of options of single features, by name
    """

    atlas: Atlas | None = None
    connectome: Connectome | None = None
    values: Settings = field(default_factory=dict)


@dataclass(frozen=True)
class StudyRecipe:
    """How a study treated its recordings, for the methods section.

    denoising: in words; atlas: its name; regions: their number
    connectome: where the connections come from, in words
    site: column of participants.tsv inside which ratings were exchanged, if any
    family: column of participants.tsv whose members were kept together, if any
    """

    denoising: str
    atlas: str = "pain52"
    regions: int = 52
    connectome: str = "a distance rule"
    site: str | None = None
    family: str | None = None


class Feature(ABC):
    """One row per visit. `measure` works visit by visit; `finish` may then work on many
    visits in one batch.

    To add a feature: write a class like those beside this file, decorate it with
    `register_feature`, and import it in `cingulum/features/__init__.py`. Everything
    else (settings, help, report, methods, references, colours) reads these facts.
    """

    # Facts that may differ between two features of one class (another seed, another
    # atlas) are not ClassVar: an instance sets its own in __init__.
    name: str
    """As users write it, and as columns and files begin."""

    label: str
    """What the model is called for a reader."""

    summary: ClassVar[str]
    """A line for the help of `cingulum features`."""

    unit: str
    meaning: str
    needs: tuple[RecordingKind, ...]
    """Kinds of recording without which it cannot be measured."""

    file: str
    """Where the measurement of a visit is kept, below its session folder; `{visit}` is
    sub-…_ses-…"""

    role: Role = Role.DESCRIPTIVE
    chosen_by_default: ClassVar[bool] = False
    """Whether `cingulum run` measures it where the study does not say which."""

    measured_beside: ClassVar[tuple[RecordingKind, ...]] = ()
    """Measured, as a control, in every study that has a feature of these recordings."""

    is_map: bool = False
    """Whether it is an image of the brain, kept as NIfTI and not in the feature
    table."""

    map_centre: float = 0.0
    """The value of a map that means "as usual": the middle of its colour scale."""

    batch_size: int = 0
    """Visits in a batch where `finish` is long work (a model is fitted) and rows are
    worth keeping; 0: it is quick."""

    missing_is_gap: bool = False
    """Whether a number that a visit lacks is a gap in a table, and no reason to leave
    the participant out."""

    colour: str = "#56606e"
    signature_unit: str = ""
    """The unit in the words of exported signatures, where it differs from `unit`."""

    options: ClassVar[tuple[FeatureOption, ...]] = ()
    """Options of `cingulum features` that only it has."""

    controls: ClassVar[tuple[Control, ...]] = ()
    """Columns of it that a study holds its predictors against."""

    references: ClassVar[tuple[str, ...]] = ()
    """What its method rests on: keys of data/references.bib, or BibTeX entries written
    as those in that file are."""

    overview: ClassVar[tuple[str, ...]] = ()
    """Names of its columns that the figure of the feature table shows."""

    caution: ClassVar[str] = ""
    """What every reader of a study with this feature must know."""

    contribution_subject: ClassVar[str] = ""
    """Subject of the sentence on what it adds to the other modalities; empty: none."""

    @property
    def is_about_quality(self) -> bool:
        """Whether it describes how good the recordings are."""
        return self.role in (Role.QUALITY, Role.CONTROL)

    @classmethod
    def from_options(cls, options: FeatureOptions) -> Feature:
        """The feature as a study's options make it."""
        return cls()

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        """Names of the kinds that it reads of this visit, where there is a choice.

        Raises InputError for a missing recording.
        """
        # Looking a recording up raises where it is missing or ambiguous.
        for kind in self.needs:
            visit[kind.name]
        return tuple(kind.name for kind in self.needs)

    def has_recordings(self, visit: Visit) -> bool:
        """Whether a visit has what it reads. Several files of a kind count: they are an
        error to be reported, not an absence."""
        try:
            self.recordings(visit)
        except InputError:
            is_ambiguous = any(kind.name in visit.ambiguous for kind in self.needs)
            return is_ambiguous or any(map(self.has_recordings, visit.runs))
        return True

    def settings(self) -> Settings:
        """What else the measurement depends on; a kept measurement with other settings
        is redone."""
        return {}

    @abstractmethod
    def measure(self, data: VisitData) -> Measurement:
        """The measurement of one visit.

        Raises InputError when the recording is missing or unfit.
        """

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        """One measurement of the measurements of several runs of a visit.

        Raises InputError for a feature that is of a single run.
        """
        raise InputError(
            f"{self.name} is measured in one run, and this visit has {len(runs)}. "
            "Choose one with --bids-filter-file, a JSON file such as "
            f'{{"{self.needs[0].name}": {{"run": 1}}}}.'
        )

    def columns(self) -> list[Column]:
        """Its columns; a single value has a column without a name."""
        return [Column("", self.unit, self.meaning)]

    @property
    def column_names(self) -> list[str]:
        """Names of its columns, below its own name."""
        return [column.name for column in self.columns()]

    def value_columns(self) -> list[Column]:
        """Columns that may predict; standard errors are columns too, but only shown."""
        return [c for c in self.columns() if c.kind is ColumnKind.VALUE]

    def finish(
        self, measurements: Sequence[Measurement], show_progress: bool = False
    ) -> FeatureRows:
        """From measurements of visits to rows; the row of a visit does not depend on
        the other visits."""
        import numpy as np
        import pandas as pd

        rows = np.stack([np.ravel(m.values).astype(float) for m in measurements])
        names = self.column_names
        # Voxels of a map have numbers, not names.
        if self.is_map or len(names) != rows.shape[1]:
            return FeatureRows(pd.DataFrame(rows))
        return FeatureRows(pd.DataFrame(rows, columns=names))

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        """Sentences for the methods section; empty: none."""
        return ""
