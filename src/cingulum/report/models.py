"""The report of a study of fitted brains: every visit's brain beside its controls."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from cingulum.features import StudyRecipe
from cingulum.io.files import JsonObject
from cingulum.report import plots, tables
from cingulum.report.page import Picture
from cingulum.report.results import Caution, Spread, to_plain
from cingulum.report.summarise import spread
from cingulum.signals.atlas import Atlas, has_positions
from cingulum.versions import software_versions

# Columns of the table of fits.
FREE_RUNNING = "free_running"
LINEAR_CONTROL = "linear_control"
BASELINE = "baseline"
CONNECTOME = "sc_fc"
CEILING = "ceiling"

LABELS = {
    FREE_RUNNING: "Fitted brain, running freely",
    LINEAR_CONTROL: "Linear network of equal size",
    BASELINE: "Mean connectivity of the other participants",
    CONNECTOME: "Connectome itself",
    CEILING: "The fitted part of the recording itself",
}
"""What is compared with the data, by column of the table of fits."""

CONTROL_IS_AS_GOOD = {
    LINEAR_CONTROL: (
        "A linear network of equal size explains the data as well or better: the fit "
        "by itself is no evidence for the physiology of the model."
    ),
    BASELINE: (
        "The other participants' mean connectivity explains a visit as well or better "
        "than the brain fitted to it: little of the fit is about the person."
    ),
    CONNECTOME: (
        "The connectome itself explains the data as well or better than the brain that "
        "was fitted on it."
    ),
}
"""The conclusion where a control is as good as the fitted brain."""

ESTIMATES = ("strength", "w_plus", "noise")

RELIABLE = 0.3
"""Correlation between the parts of a recording below which it cannot tell good models
from bad ones."""

POINT_ESTIMATES_NOTE = (
    "Estimates are point estimates given the model and the connectome. The search "
    "sees the pattern of connectivity, not its level."
)

FEWEST_PAIRS = 5
"""Participants with two visits that a retest correlation needs."""


@dataclass(frozen=True)
class ComparedModel(Spread):
    """Correlation with the data over visits, of the fitted brain or a control."""

    label: str


@dataclass(frozen=True)
class ModelResults:
    """Everything that the report of a study of fitted brains prints.

    models: by column of LABELS; retest: correlation over participants of the estimates
    of their first two visits
    """

    title: str
    participants: int
    visits: int
    holdout: float
    minutes: float
    models: Mapping[str, ComparedModel]
    estimates: Mapping[str, Spread]
    retest: Mapping[str, float | None]
    left_out: Mapping[str, str]
    pipelines: Sequence[str]
    recipe: StudyRecipe
    versions: Mapping[str, str] = field(default_factory=software_versions)


def compared_models(table: pd.DataFrame) -> dict[str, ComparedModel]:
    """The fitted brain and every control, over visits."""
    models = {}
    for name, label in LABELS.items():
        models[name] = ComparedModel(**vars(spread(table[name])), label=label)
    return models


def estimate_spreads(table: pd.DataFrame) -> dict[str, Spread]:
    """Fitted parameters over visits, and how close to instability they are."""
    return {name: spread(table[name]) for name in (*ESTIMATES, "loop_gain")}


def retest_correlations(table: pd.DataFrame) -> dict[str, float | None]:
    """Correlation over participants of the estimates of their first two visits; None
    with fewer than five."""
    pairs = _first_two_visits(table)
    if len(pairs) < FEWEST_PAIRS:
        return dict.fromkeys(ESTIMATES)
    return {name: _retest_correlation(pairs, name) for name in ESTIMATES}


def _first_two_visits(table: pd.DataFrame) -> list[pd.DataFrame]:
    """The rows of every participant with at least two visits."""
    pairs = []
    for _, rows in table.groupby("participant_id"):
        if len(rows) >= 2:
            pairs.append(rows.iloc[:2])
    return pairs


def _retest_correlation(pairs: Sequence[pd.DataFrame], name: str) -> float:
    first, second = np.array([pair[name].to_numpy() for pair in pairs]).T
    return float(np.corrcoef(first, second)[0, 1])


def model_summary(results: ModelResults) -> JsonObject:
    """The content of summary.json."""
    return {
        **to_plain(results),
        "lead": model_lead(results),
        "warnings": to_plain(model_warnings(results)),
    }


def model_lead(results: ModelResults) -> str:
    """The result in a sentence."""
    part = "the connectivity it was fitted to"
    if results.holdout:
        part = "connectivity that its fit never saw"
    own = results.models[FREE_RUNNING].mean
    control = results.models[LINEAR_CONTROL].mean
    baseline = _baseline_text(results.models[BASELINE])
    return (
        f"Running freely, the brain fitted to a visit explains {part} with r = "
        f"{own:.3f} (mean of {results.visits} visits of {results.participants} "
        f"participants); a linear network of equal size with r = {control:.3f}"
        f"{baseline}."
    )


def _baseline_text(others: ComparedModel) -> str:
    # A single participant has no others.
    if others.mean is None:
        return ""
    return f", the mean of the other participants with r = {others.mean:.3f}"


def model_warnings(results: ModelResults) -> list[Caution]:
    """What a reader must know before believing the page."""
    texts = [
        *_left_out_texts(results.left_out),
        *_control_texts(results.models),
        *_data_texts(results),
    ]
    cautions = [Caution("serious", text) for text in texts]
    return [*cautions, Caution("note", POINT_ESTIMATES_NOTE)]


def _left_out_texts(left_out: Mapping[str, str]) -> list[str]:
    return [f"{name} was left out: {reason}" for name, reason in left_out.items()]


def _control_texts(models: Mapping[str, ComparedModel]) -> Iterator[str]:
    """The conclusion from every control that is as good as the fitted brain."""
    fitted = models[FREE_RUNNING]
    for name, text in CONTROL_IS_AS_GOOD.items():
        if _is_as_good(models[name], fitted):
            yield text


def _is_as_good(control: ComparedModel, fitted: ComparedModel) -> bool:
    # Without a mean there was nothing to compare.
    if control.mean is None or fitted.mean is None:
        return False
    return control.mean >= fitted.mean


def _data_texts(results: ModelResults) -> Iterator[str]:
    """How much the data allow to say of any model."""
    if not results.holdout:
        yield "Nothing was held out: all figures are in-sample."
        return
    ceiling = results.models[CEILING].mean
    if ceiling is not None and ceiling < RELIABLE:
        yield (
            f"One part of a recording resembles the other with r = {ceiling:.3f} only: "
            "these recordings are too short or too noisy to judge any model by."
        )


@dataclass(frozen=True, eq=False)
class MeanFit:
    """Means over visits: recorded and modelled connectivity (region, region), and
    fitted recurrent excitation (region,)."""

    recorded: np.ndarray
    modelled: np.ndarray
    excitation: np.ndarray


def model_pictures(atlas: Atlas, fit: MeanFit, table: pd.DataFrame) -> list[Picture]:
    """The figures of the report."""
    pictures = [_controls_picture(table), _connectivity_picture(atlas, fit)]
    # Regions of foreign tables are known by name only.
    if has_positions(atlas):
        pictures.append(_excitation_picture(atlas, fit))
    return pictures


def _controls_picture(table: pd.DataFrame) -> Picture:
    return Picture(
        "fits",
        plots.draw_controls(table, LABELS),
        "Correlation with held-out connectivity, a dot a visit, for the fitted "
        "brain and every control.",
        "Every visit's brain beside the controls it is read against.",
        "controls",
        table,
    )


def _connectivity_picture(atlas: Atlas, fit: MeanFit) -> Picture:
    return Picture(
        "fits",
        plots.draw_connectivity_pair(
            fit.recorded, fit.modelled, "recorded (fitted part)"
        ),
        "Recorded and modelled connectivity matrices, and a scatter of one against "
        "the other.",
        "Means over visits: recorded, and of the brains running freely.",
        "fc",
        tables.edge_table(fit.recorded, fit.modelled, atlas.regions),
    )


def _excitation_picture(atlas: Atlas, fit: MeanFit) -> Picture:
    # Regions differ by little beside the level that they share.
    deviation = fit.excitation - fit.excitation.mean()
    return Picture(
        "parameters",
        plots.draw_region_map(deviation, atlas.centres),
        "Glass brain with fitted excitation by region.",
        "Mean fitted recurrent excitation, against that of all regions.",
        "w_plus",
        tables.region_table(fit.excitation, atlas.regions, "w_plus"),
    )
