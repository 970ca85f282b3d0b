"""The report of a study of fitted brains: every visit's brain beside the controls it is
read against."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from cingulum.features import StudyRecipe
from cingulum.report import plots, tables
from cingulum.report.page import Picture
from cingulum.report.results import Caution, Spread, to_plain
from cingulum.report.summarise import spread
from cingulum.signals.atlas import Atlas
from cingulum.versions import software_versions

FREE_RUNNING = "free_running"
CEILING = "ceiling"

LABELS = {
    FREE_RUNNING: "Fitted brain, running freely",
    "linear_control": "Linear network of equal size",
    "baseline": "Mean connectivity of the other participants",
    "sc_fc": "Connectome itself",
    CEILING: "The fitted part of the recording itself",
}
"""What is compared with the data, by column of the table."""

CONTROL_IS_AS_GOOD = {
    "linear_control": (
        "A linear network of equal size explains the data as well or better: the fit "
        "by itself is no evidence for the physiology of the model."
    ),
    "baseline": (
        "The other participants' mean connectivity explains a visit as well or better "
        "than the brain fitted to it: little of the fit is about the person."
    ),
    "sc_fc": (
        "The connectome itself explains the data as well or better than the brain that "
        "was fitted on it."
    ),
}
"""What follows where a control is as good as the fitted brain."""

ESTIMATES = ("strength", "w_plus", "noise")

RELIABLE = 0.3
"""Correlation between the parts of a recording below which it judges no model."""

FEWEST_PAIRS = 5
"""Participants with two visits below which a retest correlation says nothing."""


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
    return {
        name: ComparedModel(**vars(spread(table[name])), label=label)
        for name, label in LABELS.items()
    }


def estimate_spreads(table: pd.DataFrame) -> dict[str, Spread]:
    return {name: spread(table[name]) for name in (*ESTIMATES, "loop_gain")}


def retest_correlations(table: pd.DataFrame) -> dict[str, float | None]:
    """Correlation over participants of the estimates of their first two visits; None
    with fewer than five."""
    pairs = [
        rows.iloc[:2] for _, rows in table.groupby("participant_id") if len(rows) >= 2
    ]
    if len(pairs) < FEWEST_PAIRS:
        return dict.fromkeys(ESTIMATES)
    correlations: dict[str, float | None] = {}
    for name in ESTIMATES:
        first, second = np.array([pair[name].to_numpy() for pair in pairs]).T
        correlations[name] = float(np.corrcoef(first, second)[0, 1])
    return correlations


def model_summary(results: ModelResults) -> dict[str, Any]:
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
    control = results.models["linear_control"].mean
    others = results.models["baseline"].mean
    baseline = ""
    if others is not None:
        baseline = f", the mean of the other participants with r = {others:.3f}"
    return (
        f"Running freely, the brain fitted to a visit explains {part} with r = "
        f"{own:.3f} (mean of {results.visits} visits of {results.participants} "
        f"participants); a linear network of equal size with r = {control:.3f}"
        f"{baseline}."
    )


def model_warnings(results: ModelResults) -> list[Caution]:
    """What a reader must know before believing the page."""
    own = results.models[FREE_RUNNING].mean
    texts = [
        f"{name} was left out: {reason}" for name, reason in results.left_out.items()
    ]
    for name, text in CONTROL_IS_AS_GOOD.items():
        control = results.models[name].mean
        if control is not None and own is not None and control >= own:
            texts.append(text)
    ceiling = results.models[CEILING].mean
    if not results.holdout:
        texts.append("Nothing was held out: all figures are in-sample.")
    elif ceiling is not None and ceiling < RELIABLE:
        texts.append(
            f"One part of a recording resembles the other with r = {ceiling:.3f} only: "
            "these recordings are too short or too noisy to judge any model by."
        )
    note = (
        "Estimates are point estimates given the model and the connectome. The search "
        "sees the pattern of connectivity, not its level."
    )
    return [*(Caution("serious", text) for text in texts), Caution("note", note)]


@dataclass(frozen=True, eq=False)
class MeanFit:
    """Means over visits: recorded and modelled connectivity (region, region), and
    fitted recurrent excitation (region,)."""

    recorded: np.ndarray
    modelled: np.ndarray
    excitation: np.ndarray


def model_pictures(atlas: Atlas, fit: MeanFit, table: pd.DataFrame) -> list[Picture]:
    """The figures of the report."""
    return [
        Picture(
            "fits",
            plots.draw_controls(table, LABELS),
            "Correlation with held-out connectivity, a dot a visit, for the fitted "
            "brain and every control.",
            "Every visit's brain beside the controls it is read against.",
            "controls",
            table,
        ),
        Picture(
            "fits",
            plots.draw_connectivity_pair(
                fit.recorded, fit.modelled, "recorded (fitted part)"
            ),
            "Recorded and modelled connectivity matrices, and a scatter of one against "
            "the other.",
            "Means over visits: recorded, and of the brains running freely.",
            "fc",
            tables.edge_table(fit.recorded, fit.modelled, atlas.regions),
        ),
        Picture(
            "parameters",
            plots.draw_region_map(
                fit.excitation - fit.excitation.mean(), atlas.centres
            ),
            "Glass brain with fitted excitation by region.",
            "Mean fitted recurrent excitation, against that of all regions.",
            "w_plus",
            tables.region_table(fit.excitation, atlas.regions, "w_plus"),
        ),
    ]
