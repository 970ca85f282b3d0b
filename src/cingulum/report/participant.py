"""The page of one participant: the measures of each visit, how they compare with
everybody else's, and what the models decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from cingulum.features import Column, ColumnKind, Feature, FeatureRows, Measurement
from cingulum.features.mechanism import FittedFeature
from cingulum.features.registry import model_label
from cingulum.io.files import slug
from cingulum.io.visit import Visit
from cingulum.report import plots, tables
from cingulum.report.feature_overview import far_out
from cingulum.report.page import Picture
from cingulum.report.viewers import Viewer, brain_viewer
from cingulum.versions import software_versions

VIEWER_RESOLUTION = 3
"""mm of the voxels in the viewers: maps of a person are smooth, and a page has several
viewers."""

MOST_NUMBERS = 40
"""Columns of a feature that a page prints."""

UNNAMED_VISIT = "the visit"

ANSWERS = {1.0: "right", 0.0: "wrong"}
"""By the column `correct` of the decisions; a tie is neither."""


@dataclass(frozen=True)
class Cell:
    """A number at a visit; far: whether it is far from everybody else's."""

    value: float | None
    far: bool = False


@dataclass(frozen=True)
class MeasureRow:
    """A measure at every visit of a participant; median: of all participants."""

    measure: str
    meaning: str
    unit: str
    cells: Sequence[Cell]
    median: float | None
    quality: bool


@dataclass(frozen=True)
class FailedFeature:
    visit: str
    feature: str
    reason: str


@dataclass(frozen=True)
class ModelDecision:
    """The decision of a model on the two visits of a participant it was not trained
    on."""

    model: str
    decision: float
    answer: str


@dataclass(frozen=True)
class ParticipantPage:
    """Everything that the page prints; of_study: whether numbers are compared with
    those of other participants."""

    title: str
    visits: Sequence[str]
    pain: Sequence[float | None]
    numbers: Sequence[MeasureRow]
    failed: Sequence[FailedFeature]
    decisions: Sequence[ModelDecision]
    of_study: bool
    flags: Mapping[str, Sequence[str]] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=software_versions)


@dataclass(frozen=True, eq=False)
class Figure:
    """A drawn figure, and the page of its viewer; empty where it has none."""

    # Plain bytes and text, so that a drawn figure can be kept in the store.

    png: bytes
    viewer: str = ""


LabelledMaps = list[tuple[str, np.ndarray]]


def visit_label(visit: Visit) -> str:
    """The name of a visit on a page."""
    return visit.session or UNNAMED_VISIT


@dataclass(frozen=True, eq=False)
class MeasuredColumn:
    """One number of every visit that has it.

    values, far: (visit,), by the names of the visits
    """

    feature: Feature
    column: Column
    visits: Sequence[str]
    values: np.ndarray
    far: np.ndarray

    @property
    def name(self) -> str:
        return slug(f"{self.feature.name} {self.column.name}")

    @cached_property
    def _positions(self) -> dict[str, int]:
        # Kept, since every participant's page asks for it.
        return {name: i for i, name in enumerate(self.visits)}

    @property
    def median(self) -> float:
        return float(np.nanmedian(self.values))

    def row(self, visits: Sequence[Visit], of_study: bool) -> MeasureRow | None:
        """The row of a participant's page; None where no visit has the number."""
        names = [visit.name for visit in visits]
        if not any(name in self._positions for name in names):
            return None
        return MeasureRow(
            measure=self.name,
            meaning=self.column.meaning,
            unit=self.column.unit,
            cells=[self._cell(name, of_study) for name in names],
            median=self.median if of_study else None,
            quality=self.feature.is_about_quality,
        )

    def _cell(self, visit: str, of_study: bool) -> Cell:
        i = self._positions.get(visit)
        if i is None:
            return Cell(None)
        # A single participant has nobody to be far from.
        far = of_study and bool(self.far[i])
        return Cell(float(self.values[i]), far)


def measured_columns(
    feature: Feature, visits: Sequence[Visit], table: pd.DataFrame
) -> list[MeasuredColumn]:
    """The columns of a feature that pages print: not those of single regions of a
    fitted brain, which are too many and too uncertain."""
    names = [visit.name for visit in visits]
    columns = []
    for column in _printed_columns(feature):
        values = table[column.name].to_numpy(float)
        # A measure that no visit has would be an empty row.
        if not np.isnan(values).all():
            far = far_out(values)
            columns.append(MeasuredColumn(feature, column, names, values, far))
    return columns


def _printed_columns(feature: Feature) -> list[Column]:
    columns = []
    for column in feature.columns():
        if not _is_regional_estimate(feature, column):
            columns.append(column)
    return columns[:MOST_NUMBERS]


def _is_regional_estimate(feature: Feature, column: Column) -> bool:
    # Only fits are measured in batches.
    is_fitted = feature.batch_size > 0
    is_regional = column.region != ""
    return is_fitted and is_regional and column.kind is ColumnKind.VALUE


def decisions_of(decisions: pd.DataFrame | None) -> list[ModelDecision]:
    """Out-of-fold decisions on a participant, of models that reached one."""
    if decisions is None:
        return []
    reached = []
    for row in decisions.itertuples():
        # A model of a modality that the participant lacks has no decision.
        if np.isfinite(row.decision):
            answer = ANSWERS.get(float(row.correct), "undecided")
            label = model_label(row.model)
            reached.append(ModelDecision(label, float(row.decision), answer))
    return reached


def draw_maps(
    feature: Feature, visits: Sequence[Visit], measurements: Sequence[Measurement]
) -> Figure:
    """Axial slices, a row per visit; the viewer shows the difference of two visits, or
    one map around its centre."""
    affine = measurements[0].place
    maps = _labelled_maps(visits, measurements)
    viewed = _viewed_map(maps, feature.map_centre)
    viewer = brain_viewer(viewed, affine, resolution=VIEWER_RESOLUTION)
    # Maps on different grids cannot be cut at the same places.
    shown = maps if _are_alike(maps) else maps[:1]
    return Figure(plots.draw_slices(shown, affine, feature.map_centre), viewer.html)


def _viewed_map(maps: LabelledMaps, centre: float) -> np.ndarray:
    """The difference of two visits, or the first map around its centre."""
    first = maps[0][1]
    if _is_pair(maps):
        return maps[1][1] - first
    # Outside the brain a map is 0 and has to remain so.
    return first - centre * (first != 0)


def map_picture(
    feature: Feature,
    visits: Sequence[Visit],
    measurements: Sequence[Measurement],
    figure: Figure,
) -> Picture:
    """The drawn maps with their texts."""
    label = model_label(feature.name)
    difference = _difference_text(_labelled_maps(visits, measurements))
    return Picture(
        "maps",
        figure.png,
        f"Axial slices of {label}, a row for each visit.",
        f"{label} ({feature.unit}){difference}.",
        viewer=Viewer(figure.viewer) if figure.viewer else None,
    )


def _difference_text(maps: LabelledMaps) -> str:
    if not _is_pair(maps):
        return ""
    return f"; the viewer shows {maps[1][0]} minus {maps[0][0]}"


def _labelled_maps(
    visits: Sequence[Visit], measurements: Sequence[Measurement]
) -> LabelledMaps:
    labels = [visit_label(visit) for visit in visits]
    maps = [measurement.values for measurement in measurements]
    return list(zip(labels, maps, strict=True))


def _are_alike(maps: LabelledMaps) -> bool:
    shapes = {values.shape for _, values in maps}
    return len(shapes) == 1


def _is_pair(maps: LabelledMaps) -> bool:
    return _are_alike(maps) and len(maps) == 2


def draw_fits(visits: Sequence[Visit], rows: FeatureRows) -> Figure:
    """Matrices of recorded and modelled connectivity, a row per visit."""
    pairs = []
    for i, visit in enumerate(visits):
        matrices = (rows.arrays["recorded"][i], rows.arrays["fc"][i])
        pairs.append((visit_label(visit), matrices))
    heads = ("recorded", "fitted brain")
    return Figure(plots.draw_matrices(pairs, heads, "correlation"))


def fit_picture(
    feature: FittedFeature,
    visits: Sequence[Visit],
    rows: FeatureRows,
    figure: Figure,
) -> Picture:
    """The drawn fits with their texts and numbers."""
    agreements = []
    for i, visit in enumerate(visits):
        r = float(rows.arrays["fc_r"][i])
        agreements.append(f"{visit_label(visit)} r = {r:.3f}")
    return Picture(
        "fits",
        figure.png,
        "Matrices of connectivity between regions, a row for each visit: recorded, "
        "and of the fitted brain.",
        "Recorded connectivity and that of the fitted brain, in-sample "
        f"({', '.join(agreements)}).",
        f"fc_{visits[0].participant}",
        _edge_table(visits, rows, feature.atlas.regions),
    )


def _edge_table(
    visits: Sequence[Visit], rows: FeatureRows, regions: tuple[str, ...]
) -> pd.DataFrame:
    """A row per visit and pair of regions."""
    parts = []
    for i, visit in enumerate(visits):
        recorded = rows.arrays["recorded"][i]
        modelled = rows.arrays["fc"][i]
        edges = tables.edge_table(recorded, modelled, regions)
        parts.append(edges.assign(visit=visit_label(visit)))
    return pd.concat(parts, ignore_index=True)
