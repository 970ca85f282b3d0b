"""The whole story once, on real brains and a synthetic cohort: fit, cohort, features,
prediction, report."""

from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cingulum import __version__
from cingulum.brain import Brain, Connectome, Sensor, balanced
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.datasets import CohortSettings, hcp, synthesize
from cingulum.errors import InputError
from cingulum.inference import resting_fit
from cingulum.inference.resting import free_running_fc
from cingulum.io import Cohort, read_cohort
from cingulum.io.cohort import in_time
from cingulum.io.files import read_json, read_table
from cingulum.pipeline import (
    CohortFeatures,
    RunPaths,
    StudyConfig,
    evaluated,
    gathered,
    take,
)
from cingulum.pipeline.participant_pages import write_pages
from cingulum.pipeline.study_report import publish
from cingulum.report.results import FittedBrain
from cingulum.signals.atlas import pain_atlas
from cingulum.simulation import time_step

TR = 0.72

Data = tuple[str, Connectome, torch.Tensor, torch.Tensor]
"""Source in words, connectome, training and held-out connectivity."""


def demo(
    out: Path,
    *,
    offline: bool = False,
    settings: CohortSettings | None = None,
    permutations: int = 1000,
    say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True),
) -> dict[str, Any]:
    """Run the demo and write report.html and summary.json to `out`; returns the
    summary.

    A cohort and measurements left there by an earlier run are used again if they are
    whole and of this version.
    """
    settings = settings or CohortSettings()
    say("1/6 Real brains: structural and functional connectivity")
    (source, connectome, train, heldout), notes = brains(offline, say)
    say(
        f"2/6 Fit a brain model to {len(connectome.regions)} regions, then let it run "
        "freely (about ten seconds)"
    )
    verified = resting_fit(connectome, train, TR, show_progress=True)
    fit = FittedBrain(
        source, verified, connectome.regions, connectome.weights, train, heldout
    )
    say(
        f"3/6 A synthetic cohort: {settings.patients} patients, two visits each (half "
        "a minute; kept for next time)"
    )
    bids = cohort_folder(out / "cohort", settings)
    say("4/6 Measure features of every visit, and fit a brain to each")
    measurements = out / "derivatives" / "cingulum"
    study, place = StudyConfig(), RunPaths(bids, measurements, show_progress=True)
    cohort = read_cohort(bids)
    taken = take(study, place, cohort.visits)
    features, cohort = gathered(study, place, taken, cohort)
    say(
        f"5/6 Predict: leave-one-patient-out, nested fusion, {permutations} "
        "permutations"
    )
    findings = evaluated(
        features,
        cohort,
        permutations=permutations,
        seed=settings.seed,
        show_progress=True,
    )
    say("6/6 Report, and a page for each patient")
    pages = write_pages(
        in_time(bids, taken.visits),
        taken.wanted,
        taken.failures,
        place.out,
        place.keep,
        to=out,
        ratings=cohort.ratings,
        decisions=findings.paired.predictions(),
        show_progress=True,
    )
    summary = publish(
        out,
        "Cingulum demo: a synthetic back-pain cohort, and a brain fitted to "
        f"{'synthetic' if notes else 'real'} data",
        cohort,
        features,
        findings,
        fit=fit,
        planted=planted(
            cohort,
            features,
            read_table(bids / "sourcedata" / "truth.tsv", dtype={"participant": str}),
        ),
        notes=notes,
        pages=pages,
        synthetic=True,
    )
    return summary


def brains(offline: bool, say: Callable[[str], None]) -> tuple[Data, tuple[str, ...]]:
    """Human Connectome data, or a synthetic substitute with a note that says so."""
    try:
        folder = hcp.fetch(offline=offline)
    except hcp.DataUnavailable as trouble:
        note = (
            f"No real brains in this run: {trouble} The fitted connectome and its "
            "connectivity are synthetic."
        )
        say(f"    {note}")
        return synthetic_brains(), (note,)
    say(f"    {folder}\n    {hcp.TERMS}".replace("\n", "\n    "))
    source = (
        "Human Connectome Project, young adults, 100 Schaefer parcels: group "
        "connectome and resting connectivity of "
        "706 people, held against 303 other people"
    )
    return (
        source,
        hcp.connectome(folder),
        hcp.group_fc(folder),
        hcp.group_fc(folder, "group-test303"),
    ), ()


def synthetic_brains() -> Data:
    """A brain with planted regional parameters on a distance-rule connectome, observed
    twice for 64 minutes."""
    atlas, rng = pain_atlas(), torch.Generator().manual_seed(0)
    connectome = distance_rule(
        torch.as_tensor(atlas.centres, dtype=torch.float64), atlas.regions
    )
    n = len(atlas.regions)
    mass = ReducedWongWang(
        w_plus=1.4
        * torch.exp(0.05 * torch.randn(n, generator=rng, dtype=torch.float64))
    )
    noise = 0.01 * torch.exp(0.3 * torch.randn(n, generator=rng, dtype=torch.float64))
    brain = balanced(Brain(mass, connectome, Sensor(tr=TR), strength=0.9, noise=noise))
    train, heldout = (
        free_running_fc(brain, time_step(TR), 64.0, seed, show_progress=True)
        for seed in (101, 102)
    )
    source = (
        f"A synthetic brain of {n} regions on a distance-rule connectome, "
        "observed twice for 64 minutes"
    )
    return source, connectome, train, heldout


def cohort_folder(folder: Path, settings: CohortSettings) -> Path:
    """The cohort with these settings: the one that is there, or a new one. Never
    removes what is not ours."""
    if folder.exists():
        truth = folder / "sourcedata" / "truth.json"
        if not truth.is_file():
            raise InputError(
                f"{folder}: is not a cohort written by the demo. Move it away, or give "
                "another --out."
            )
        found = read_json(truth)
        if found.get("version") == __version__ and all(
            found.get(k) == v for k, v in vars(settings).items()
        ):
            print(f"    using {folder} again", file=sys.stderr)
            return folder
        shutil.rmtree(folder)
    return synthesize(folder, settings, show_progress=True)


def planted(
    cohort: Cohort, features: CohortFeatures, truth: pd.DataFrame
) -> dict[str, float]:
    """Correlation over visits of what was read with what was planted."""
    order = cohort.ratings.sort_values(["participant", "state"])
    truth = truth.set_index(["participant", "session"]).loc[
        list(zip(order["participant"], order["session"], strict=True))
    ]
    strength = features.columns["mechanism"].index("strength")
    read = {
        "heart rate variability (ln HF)": (
            features.values["hfhrv"][..., 0],
            truth["ln_hf"],
        ),
        "head motion": (features.values["motion"][..., 0], truth["motion"]),
        "coupling strength of the visit's brain": (
            features.values["mechanism"][..., strength],
            np.log(truth["coupling"]),
        ),
    }
    found = {
        name: float(np.corrcoef(value.ravel(), true)[0, 1])
        for name, (value, true) in read.items()
    }
    return {name: r for name, r in found.items() if math.isfinite(r)}
