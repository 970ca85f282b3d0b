"""The page of one participant: what was measured at each visit, how it compares with
everybody else, and what the models decided."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
"""mm of the brain in the viewers: maps of one person are smooth, and a page has several
viewers."""

MOST_NUMBERS = 40
"""Columns of a feature that a page prints."""

UNNAMED_VISIT = "the visit"


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
    """What a model, that never saw this participant, said of the two visits."""

    model: str
    decision: float
    answer: str


@dataclass(frozen=True)
class ParticipantPage:
    """Everything that the page prints; of_study: whether numbers are set against those
    of other participants."""

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

    png: bytes
    viewer: str = ""


def visit_label(visit: Visit) -> str:
    """What a page calls a visit."""
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

    @property
    def median(self) -> float:
        return float(np.nanmedian(self.values))

    def row(self, visits: Sequence[Visit], of_study: bool) -> MeasureRow | None:
        """The row of a participant's page; None where no visit has the number."""
        position = {name: i for i, name in enumerate(self.visits)}
        if not any(visit.name in position for visit in visits):
            return None
        cells = []
        for visit in visits:
            i = position.get(visit.name)
            if i is None:
                cells.append(Cell(None))
            else:
                far = of_study and bool(self.far[i])
                cells.append(Cell(float(self.values[i]), far))
        return MeasureRow(
            self.name,
            self.column.meaning,
            self.column.unit,
            cells,
            self.median if of_study else None,
            self.feature.is_about_quality,
        )


def measured_columns(
    feature: Feature, visits: Sequence[Visit], table: pd.DataFrame
) -> list[MeasuredColumn]:
    """The columns of a feature that pages print: not those of single regions of a
    fitted brain, which are too many and too uncertain."""
    shown = []
    for column in feature.columns():
        is_regional_estimate = (
            feature.batch_size > 0
            and column.region != ""
            and column.kind is ColumnKind.VALUE
        )
        if not is_regional_estimate:
            shown.append(column)
    names = [visit.name for visit in visits]
    columns = []
    for column in shown[:MOST_NUMBERS]:
        values = table[column.name].to_numpy(float)
        if not np.isnan(values).all():
            columns.append(
                MeasuredColumn(feature, column, names, values, far_out(values))
            )
    return columns


def decisions_of(decisions: pd.DataFrame | None) -> list[ModelDecision]:
    """Out-of-fold decisions on a participant, of models that came to one."""
    if decisions is None:
        return []
    answers = {1.0: "right", 0.0: "wrong"}
    return [
        ModelDecision(
            model_label(row.model),
            float(row.decision),
            answers.get(float(row.correct), "undecided"),
        )
        for row in decisions.itertuples()
        if np.isfinite(row.decision)
    ]


def draw_maps(
    feature: Feature, visits: Sequence[Visit], measurements: Sequence[Measurement]
) -> Figure:
    """Axial slices, a row per visit; the viewer shows the difference of two visits, or
    one map around its centre."""
    affine = measurements[0].place
    maps = _labelled_maps(visits, measurements)
    first = maps[0][1]
    if _is_pair(maps):
        viewed = maps[1][1] - first
    else:
        viewed = first - feature.map_centre * (first != 0)
    viewer = brain_viewer(viewed, affine, resolution=VIEWER_RESOLUTION)
    shown = maps if _are_alike(maps) else maps[:1]
    return Figure(plots.draw_slices(shown, affine, feature.map_centre), viewer.html)


def map_picture(
    feature: Feature,
    visits: Sequence[Visit],
    measurements: Sequence[Measurement],
    figure: Figure,
) -> Picture:
    """The drawn maps with their words."""
    maps = _labelled_maps(visits, measurements)
    label = model_label(feature.name)
    which = ""
    if _is_pair(maps):
        which = f"; the viewer shows {maps[1][0]} minus {maps[0][0]}"
    return Picture(
        "maps",
        figure.png,
        f"Axial slices of {label}, a row for each visit.",
        f"{label} ({feature.unit}){which}.",
        viewer=Viewer(figure.viewer) if figure.viewer else None,
    )


LabelledMaps = list[tuple[str, np.ndarray]]


def _labelled_maps(
    visits: Sequence[Visit], measurements: Sequence[Measurement]
) -> LabelledMaps:
    return [
        (visit_label(visit), measurement.values)
        for visit, measurement in zip(visits, measurements, strict=True)
    ]


def _are_alike(maps: LabelledMaps) -> bool:
    return len({values.shape for _, values in maps}) == 1


def _is_pair(maps: LabelledMaps) -> bool:
    return _are_alike(maps) and len(maps) == 2


def draw_fits(visits: Sequence[Visit], rows: FeatureRows) -> Figure:
    """Matrices of recorded and modelled connectivity, a row per visit."""
    pairs = [
        (
            visit_label(visit),
            (rows.arrays["recorded"][i], rows.arrays["fc"][i]),
        )
        for i, visit in enumerate(visits)
    ]
    heads = ("recorded", "fitted brain")
    return Figure(plots.draw_matrices(pairs, heads, "correlation"))


def fit_picture(
    feature: FittedFeature,
    visits: Sequence[Visit],
    rows: FeatureRows,
    figure: Figure,
) -> Picture:
    """The drawn fits with their words and numbers."""
    agreements = []
    parts = []
    for i, visit in enumerate(visits):
        label = visit_label(visit)
        agreements.append(f"{label} r = {float(rows.arrays['fc_r'][i]):.3f}")
        edges = tables.edge_table(
            rows.arrays["recorded"][i], rows.arrays["fc"][i], feature.atlas.regions
        )
        parts.append(edges.assign(visit=label))
    return Picture(
        "fits",
        figure.png,
        "Matrices of connectivity between regions, a row for each visit: recorded, "
        "and of the fitted brain.",
        "Recorded connectivity and that of the fitted brain, in-sample "
        f"({', '.join(agreements)}).",
        f"fc_{visits[0].participant}",
        pd.concat(parts, ignore_index=True),
    )
