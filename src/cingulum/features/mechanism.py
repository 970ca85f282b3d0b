"""Mechanism: the fitted parameters of a whole-brain model are features like any other."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import pandas as pd
import torch
from torch.distributions import Distribution, LogNormal, biject_to

from cingulum.brain import Brain, Connectome, balanced
from cingulum.brain.connectome import distance_rule
from cingulum.brain.masses import ReducedWongWang
from cingulum.errors import InputError
from cingulum.features.feature import Feature, Measurement
from cingulum.inference import fc_error, fit
from cingulum.measures import fc
from cingulum.recordings.opened import Opened
from cingulum.recordings.parcellation import Atlas, pain_atlas, parcellate
from cingulum.timeseries import check_signals


def atlas_connectome(atlas: Atlas) -> Connectome:
    """Distance-rule connectome of an atlas, for cohorts without tractography."""
    return distance_rule(torch.as_tensor(atlas.centres, dtype=torch.float64), atlas.regions)


def mechanism_priors(n: int) -> dict[str, Distribution]:
    """What is free in a visit's brain: global coupling, and recurrent excitation and noise of every region.

    The priors are narrow: six minutes of BOLD say little about one region.
    """
    return {
        "strength": LogNormal(math.log(0.4), 0.4),
        "mass.w_plus": LogNormal(math.log(1.4), 0.05).expand([n]),
        "noise": LogNormal(math.log(0.01), 0.2).expand([n]),
    }


class Mechanism(Feature):
    """Two-state reduced Wong-Wang network fitted to each visit's parcellated BOLD, all visits in one batch.

    The columns are parameters in units of their priors (unconstrained value minus prior mean, by prior SD), which
    makes them comparable without looking at other people. The objective sees the level of connectivity, without which
    the coupling is not determined (docs/decisions/004). The table's `attrs` carry the fits themselves.
    """

    name: ClassVar = "mechanism"
    unit: ClassVar = "prior SD"
    meaning: ClassVar = "fitted coupling, recurrent excitation and noise level of the whole-brain model"
    needs: ClassVar = ("bold", "mask", "confounds")
    file: ClassVar = "func/{visit}_atlas-pain52_stat-pearsoncorrelation_relmat.tsv"

    def __init__(self, atlas: Atlas | None = None, connectome: Connectome | None = None, steps: int = 120) -> None:
        self.atlas = atlas or pain_atlas()
        self.connectome = connectome or atlas_connectome(self.atlas)
        self.steps = steps
        if self.connectome.regions != self.atlas.regions:
            raise InputError(
                f"The connectome must have the {len(self.atlas.regions)} regions of the atlas; it has "
                f"{len(self.connectome.regions)}."
            )

    def measure(self, opened: Opened) -> Measurement:
        bold = opened.bold
        series, _ = parcellate(bold.data, bold.affine, bold.mask, bold.tr, self.atlas)
        check_signals(series, str(opened.visit["bold"]))
        return Measurement(fc(series.data.double()).numpy())

    def finish(self, rows: np.ndarray, show_progress: bool = False) -> pd.DataFrame:
        n = len(self.atlas.regions)
        recorded = torch.as_tensor(rows, dtype=torch.float64).reshape(-1, n, n)
        brain = Brain(ReducedWongWang(), self.connectome)
        free = mechanism_priors(n)
        found = fit(
            brain,
            recorded,
            free,
            objective=fc_error,
            prepare=balanced,
            road="analytic",
            steps=self.steps,
            patience=None,
            show_progress=show_progress,
        )
        columns = {}
        for path, prior in free.items():
            values = _standardise(found.estimates[path].reshape(len(rows), -1), prior)
            names = [path] if values.shape[1] == 1 else [f"{path} {region}" for region in self.atlas.regions]
            columns.update(dict(zip(names, values.T, strict=True)))
        table = pd.DataFrame(columns)
        table.attrs = {"fit": found, "recorded": recorded, "connectome": self.connectome}
        return table


def _standardise(values: torch.Tensor, prior: Distribution) -> np.ndarray:
    """Unconstrained values against the prior's own unconstrained spread (estimated once, with a fixed seed)."""
    inverse = biject_to(prior.support).inv
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = inverse(prior.sample((4000,)).double())
    return ((inverse(values) - drawn.mean()) / drawn.std()).numpy()
