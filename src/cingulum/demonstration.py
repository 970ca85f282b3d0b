"""The whole package once, on real brains and a synthetic cohort: fit, cohort, features,
prediction, report."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from cingulum import __version__
from cingulum.brain import Brain, Connectome, Sensor
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.datasets import CohortSettings, hcp, heatpain, synthesize
from cingulum.datasets.published_wheel import DataUnavailable
from cingulum.errors import InputError
from cingulum.features.cohort_features import CohortFeatures
from cingulum.inference import resting_fit
from cingulum.inference.resting import free_running_fc
from cingulum.io.cohort import Cohort, ordered_visits, read_cohort
from cingulum.io.files import JsonObject, read_json, read_table
from cingulum.pipeline.config import FeatureConfig, PredictionConfig, StudyConfig
from cingulum.pipeline.paired_study import (
    FEWEST_PARTICIPANTS,
    MeasuredVisits,
    evaluate_cohort,
    features_of_cohort,
    measure_study,
    run_paired_study,
)
from cingulum.pipeline.participant_pages import StudyContext, write_pages
from cingulum.pipeline.paths import RunPaths, StudyRun
from cingulum.prediction.study_evaluation import StudyEvaluation
from cingulum.report.manifest import ReportManifest
from cingulum.report.results import FittedBrain
from cingulum.report.study import StudyMaterial, study_maps, write_study_report
from cingulum.signals.atlas import pain_atlas
from cingulum.simulation import balanced, time_step

TR = 0.72
"""Repetition time of the Human Connectome Project, s."""

MINUTES = 64.0
"""Length of the recordings of the synthetic brain: as long as the Human Connectome
data of one person."""

# Any two different numbers: the two recordings must not share their noise.
TRAINING_SEED, HELDOUT_SEED = 101, 102

Say = Callable[[str], None]


def print_step(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True, eq=False)
class BrainData:
    """A connectome with training and held-out connectivity, region × region.

    source: where the data are from, for the report
    note: why they are synthetic; empty for real data
    """

    source: str
    connectome: Connectome
    train: torch.Tensor
    heldout: torch.Tensor
    note: str = ""


@dataclass(frozen=True, eq=False)
class MeasuredCohort:
    """The synthetic cohort with its features, and what they were read from."""

    measured: MeasuredVisits
    features: CohortFeatures
    cohort: Cohort


def run_demo(
    out: Path,
    *,
    offline: bool = False,
    settings: CohortSettings | None = None,
    permutations: int = 1000,
    say: Say = print_step,
) -> JsonObject:
    """Run the demo and write report.html and summary.json to `out`; returns the
    summary.

    A cohort and measurements left there by an earlier run are used again if they are
    whole and of this version.
    """
    settings = settings or CohortSettings()
    # Before minutes of work that would end in a refusal.
    if settings.patients < FEWEST_PARTICIPANTS:
        raise InputError(
            f"The demo predicts, which needs at least {FEWEST_PARTICIPANTS} patients; "
            f"got --patients {settings.patients}."
        )
    say("1/6 Real brains: structural and functional connectivity")
    brains = read_brains(offline, say)
    say(
        f"2/6 Fit a brain model to {len(brains.connectome.regions)} regions, then let "
        "it run freely (about ten seconds)"
    )
    fit = _fitted(brains)
    say(
        f"3/6 A synthetic cohort: {settings.patients} patients, two visits each (half "
        "a minute; kept for next time)"
    )
    bids = cohort_folder(out / "cohort", settings)
    say("4/6 Measure features of every visit, and fit a brain to each")
    # Outside the cohort's folder, which is removed when the settings change.
    run = StudyRun(
        RunPaths.of(bids, out / "derivatives" / "cingulum"), show_progress=True
    )
    synthetic = _measure(run)
    say(
        f"5/6 Predict: leave-one-patient-out, nested fusion, {permutations} "
        "permutations"
    )
    evaluation = _evaluate(synthetic, permutations, settings.seed)
    # Pages first: the report links to those that were written.
    say("6/6 Report, and a page for each patient")
    pages = _write_participant_pages(out, run, synthetic, evaluation)
    material = StudyMaterial(
        _title(brains),
        synthetic.cohort,
        synthetic.features,
        evaluation,
        study_maps(synthetic.features, evaluation),
        fit=fit,
        planted=recovery(synthetic.cohort, synthetic.features, _read_truth(bids)),
        notes=(brains.note,) if brains.note else (),
        pages=pages,
        synthetic=True,
    )
    return write_study_report(material, ReportManifest(out))


HEAT_PAIN = StudyConfig(
    title="Heat pain: which of two runs hurt more? 33 real people",
    features=FeatureConfig(
        atlas=heatpain.COVERED_ATLAS, modalities=("fc", "mechanism")
    ),
    prediction=PredictionConfig(permutations=1000),
)
"""As examples/studies/heat_pain.toml."""


def run_heat_pain(
    out: Path, *, offline: bool = False, say: Say = print_step
) -> JsonObject | None:
    """The same questions to real people: the study of heat pain, with a report of its
    own in `out`; None, and a word on the reason, where the data cannot be had."""
    say("Real people: 33 in heat pain (downloaded once, 24 MB)")
    try:
        dataset = heatpain.fetch_dataset(offline=offline)
    except DataUnavailable as error:
        say(f"left out: {error}")
        return None
    run = StudyRun(RunPaths.of(dataset, out), show_progress=True)
    return run_paired_study(HEAT_PAIN, run)


def _evaluate(
    synthetic: MeasuredCohort, permutations: int, seed: int
) -> StudyEvaluation:
    config = PredictionConfig(permutations=permutations, seed=seed)
    return evaluate_cohort(
        synthetic.features, synthetic.cohort, config, show_progress=True
    )


def _fitted(brains: BrainData) -> FittedBrain:
    """A brain fitted to the training data; the report compares it with the held-out."""
    verified = resting_fit(brains.connectome, brains.train, TR, show_progress=True)
    return FittedBrain(
        brains.source,
        verified,
        brains.connectome.regions,
        brains.connectome.weights,
        brains.train,
        brains.heldout,
    )


def _measure(run: StudyRun) -> MeasuredCohort:
    study = StudyConfig()
    cohort = read_cohort(run.paths.bids)
    measured = measure_study(study, run, cohort.visits)
    features, cohort = features_of_cohort(study, run, measured, cohort)
    return MeasuredCohort(measured, features, cohort)


def _write_participant_pages(
    out: Path, run: StudyRun, synthetic: MeasuredCohort, evaluation: StudyEvaluation
) -> list[str]:
    measured = synthetic.measured
    decisions = evaluation.paired.predictions()
    return write_pages(
        ordered_visits(run.paths.bids, measured.visits),
        measured.plan,
        measured.failures,
        run,
        study=StudyContext(synthetic.cohort.ratings, decisions),
        out=out,
    )


def _title(brains: BrainData) -> str:
    kind = "synthetic" if brains.note else "real"
    return (
        "Cingulum demo: a synthetic back-pain cohort, and a brain fitted to "
        f"{kind} data"
    )


def _read_truth(bids: Path) -> pd.DataFrame:
    path = bids / "sourcedata" / "truth.tsv"
    # Participants are labels: 01 is not 1.
    return read_table(path, dtype={"participant": str})


def read_brains(offline: bool, say: Say) -> BrainData:
    """Human Connectome data, or a synthetic substitute with a note that says so."""
    try:
        folder = hcp.fetch(offline=offline)
    except DataUnavailable as error:
        note = (
            f"No real brains in this run: {error} The fitted connectome and its "
            "connectivity are synthetic."
        )
        say(f"    {note}")
        return synthetic_brains(note)
    # The terms of use are shown whenever the data are used.
    say(f"    {folder}\n    {hcp.TERMS}".replace("\n", "\n    "))
    return _real_brains(folder)


def _real_brains(folder: Path) -> BrainData:
    return BrainData(
        "Human Connectome Project, young adults, 100 Schaefer parcels: group "
        "connectome and resting connectivity of "
        "706 people, held against 303 other people",
        hcp.connectome(folder),
        hcp.group_fc(folder),
        hcp.group_fc(folder, "group-test303"),
    )


def synthetic_brains(note: str = "") -> BrainData:
    """A brain with planted regional parameters on a distance-rule connectome, observed
    twice for 64 minutes."""
    brain = _planted_brain()
    step = time_step(TR)
    # Two seeds: training and held-out connectivity differ by sampling alone.
    train = free_running_fc(brain, step, MINUTES, TRAINING_SEED, show_progress=True)
    heldout = free_running_fc(brain, step, MINUTES, HELDOUT_SEED, show_progress=True)
    regions = len(brain.connectome.regions)
    source = (
        f"A synthetic brain of {regions} regions on a distance-rule connectome, "
        "observed twice for 64 minutes"
    )
    return BrainData(source, brain.connectome, train, heldout, note)


def _planted_brain() -> Brain:
    """A balanced brain whose excitation and noise vary between regions."""
    atlas = pain_atlas()
    regions = len(atlas.regions)
    generator = torch.Generator().manual_seed(0)

    def log_normal(middle: float, spread: float) -> torch.Tensor:
        draws = torch.randn(regions, generator=generator, dtype=torch.float64)
        return middle * torch.exp(spread * draws)

    connectome = distance_rule(
        torch.as_tensor(atlas.centres, dtype=torch.float64), atlas.regions
    )
    # The order of the two draws is part of the planted truth.
    mass = ReducedWongWang(w_plus=log_normal(1.4, 0.05))
    noise = log_normal(0.01, 0.3)
    brain = Brain(mass, connectome, Sensor(tr=TR), strength=0.9, noise=noise)
    return balanced(brain)


def cohort_folder(folder: Path, settings: CohortSettings) -> Path:
    """The cohort with these settings: the one that is there, or a new one.

    Raises InputError for a folder that the demo did not write: nothing of the user's is
    removed.
    """
    # Half a minute of simulation, which later runs need not repeat.
    if not folder.exists():
        return synthesize(folder, settings, show_progress=True)
    if not _is_ours(folder):
        raise InputError(
            f"{folder}: is not a cohort written by the demo. Move it away, or give "
            "another --out."
        )
    # Another version may simulate another cohort.
    wanted = vars(settings) | {"version": __version__}
    if _contains(read_json(_truth_file(folder)), wanted):
        print(f"    using {folder} again", file=sys.stderr)
        return folder
    shutil.rmtree(folder)
    return synthesize(folder, settings, show_progress=True)


def _truth_file(folder: Path) -> Path:
    return folder / "sourcedata" / "truth.json"


def _is_ours(folder: Path) -> bool:
    """Whether the demo wrote a folder: only then has it a record of the planted
    truth."""
    return _truth_file(folder).is_file()


def _contains(recorded: dict, wanted: dict) -> bool:
    return all(recorded.get(name) == value for name, value in wanted.items())


def _in_order_of_features(truth: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """The planted values in the order of the features: participants, then states."""
    visits = cohort.ratings.sort_values(["participant", "state"])
    keys = list(zip(visits["participant"], visits["session"], strict=True))
    return truth.set_index(["participant", "session"]).loc[keys]


def recovery(
    cohort: Cohort, features: CohortFeatures, truth: pd.DataFrame
) -> dict[str, float]:
    """Correlation over visits of what was measured with what was planted."""
    planted = _in_order_of_features(truth, cohort)
    strength = features.columns["mechanism"].index("strength")
    pairs = {
        "heart rate variability (ln HF)": (
            features.values["hfhrv"][..., 0],
            planted["ln_hf"],
        ),
        "head motion": (features.values["motion"][..., 0], planted["motion"]),
        # Coupling is planted log-normally.
        "coupling strength of the visit's brain": (
            features.values["mechanism"][..., strength],
            np.log(planted["coupling"]),
        ),
    }
    correlations = {}
    for name, (estimates, true) in pairs.items():
        correlation = float(np.corrcoef(estimates.ravel(), true)[0, 1])
        # NaN where one of the two does not vary.
        if math.isfinite(correlation):
            correlations[name] = correlation
    return correlations
