"""Mechanism: the fitted parameters of a whole-brain model are features like any
other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cingulum.features.feature import (
    Column,
    Feature,
    FeatureOptions,
    FeatureRows,
    Measurement,
    Role,
    Settings,
    StudyRecipe,
)
from cingulum.features.recordings_of_regions import regional_recordings
from cingulum.features.registry import register_feature
from cingulum.features.run_combination import (
    DESCRIPTIONS,
    RunCombination,
    combined_correlations,
    combined_measurement,
    volumes_of,
)
from cingulum.io.recording_kinds import BOLD, CONFOUNDS, CONNECTOME, MASK

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from cingulum.brain import Brain, Connectome
    from cingulum.features.brain_fitting import BrainFitting
    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas
    from cingulum.signals.visit_data import VisitData

# What both features rest on: the masking, the mass, haemodynamics, Adam, gradients.
REFERENCES = ("abraham2014", "deco2014", "friston2003", "kingma2015", "griffiths2022")


class FittedFeature(Feature):
    """A feature whose columns are the parameters of a brain fitted to the visit."""

    fitting: BrainFitting

    @property
    def atlas(self) -> Atlas:
        """Regions of the fitted brains."""
        return self.fitting.atlas

    def recordings(self, visit: Visit) -> tuple[str, ...]:
        names = regional_recordings(visit, self.atlas)
        # A connectome of the visit's own is used where there is one, and not required.
        if visit.has(CONNECTOME.name):
            return (*names, CONNECTOME.name)
        return names

    def settings(self) -> Settings:
        return self.fitting.settings()

    def measure(self, data: VisitData) -> Measurement:
        return self.fitting.measure(data)

    def combine_runs(
        self, runs: Sequence[Measurement], method: RunCombination
    ) -> Measurement:
        import numpy as np

        # Signals for the likelihood have no mean over runs.
        if self.fitting.by_likelihood:
            return super().combine_runs(runs, method)
        volumes = [volumes_of(run) for run in runs]
        regions = len(self.atlas.regions)
        # A connectome of the visit's own lies behind the correlations.
        own = runs[0].values[:, regions:]
        values = [run.values[:, :regions] for run in runs]
        combined = combined_correlations(values, volumes, method)
        return combined_measurement(
            runs, np.hstack([combined, own]), DESCRIPTIONS[method]
        )

    def columns(self) -> list[Column]:
        return self.fitting.columns()

    def finish(
        self, measurements: Sequence[Measurement], show_progress: bool = False
    ) -> FeatureRows:
        return self.fitting.rows(measurements, show_progress)

    def _use(self, fitting: BrainFitting) -> None:
        """Take over how brains are fitted, and what follows from it."""
        self.fitting = fitting
        # Of this instance: a likelihood is fitted in smaller batches and to signals.
        self.batch_size = fitting.batch_size
        # The atlas in the name, so that measurements of two atlases can be kept.
        self.file = (
            f"func/{{visit}}_atlas-{fitting.atlas.name}_desc-{self.name}_stat-"
            f"{fitting.statistic}.tsv"
        )


@register_feature
class Mechanism(FittedFeature):
    """A whole-brain model fitted to each visit's parcellated BOLD, all visits in one
    batch, each for itself.

    brain: the model; a visit's own connectome, where its derivatives hold one for the
        atlas, replaces the brain's
    free: by parameter path, priors as for `fit`; default: coupling, and recurrent
        excitation and noise by region
    objective: a connectivity objective as for `fit` (default `fc_error`, which depends
        on the level of connectivity: without it the coupling is not determined,
        docs/decisions/004), or `Likelihood()`. Only the likelihood gives honest
        intervals, and only then does every column have its standard deviation
        (`sd …`). The likelihood is computed on signals scaled to one overall amplitude.

    Columns are parameters in units of their priors (unconstrained value minus prior
    mean, divided by the prior SD), which makes them comparable without looking at other
    people. The arrays beside the rows are the modelled and recorded connectivity of
    every visit, their correlation and the loop gain.
    """

    name = "mechanism"
    label = "Mechanism (fitted model)"
    summary = "fitted brain model: coupling, excitation and noise by region"
    unit = "prior SD"
    meaning = (
        "fitted coupling, recurrent excitation and noise level of the whole-brain model"
    )
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_desc-mechanism_relmat.tsv"
    role = Role.PREDICTOR
    chosen_by_default = True
    batch_size = 20
    colour = "#3b7d4f"
    references = REFERENCES
    contribution_subject = "The fitted mechanism's parameters"

    def __init__(
        self,
        brain: Brain | None = None,
        free: Mapping[str, Distribution] | None = None,
        *,
        atlas: Atlas | None = None,
        connectome: Connectome | None = None,
        objective: Any = None,
        steps: int = 120,
    ) -> None:
        from cingulum.brain import Brain
        from cingulum.brain.masses import ReducedWongWang
        from cingulum.features import brain_fitting
        from cingulum.inference import fc_error
        from cingulum.signals.atlas import has_positions, pain_atlas

        atlas = atlas or pain_atlas()
        # Without tractography, connections are estimated from distances.
        nothing_known = brain is None and connectome is None
        needs_own = nothing_known and not has_positions(atlas)
        connectome = connectome or brain_fitting.atlas_connectome(atlas)
        self._use(
            brain_fitting.BrainFitting(
                atlas,
                brain or Brain(ReducedWongWang(), connectome),
                free or brain_fitting.mechanism_priors(len(atlas.regions)),
                # It depends on the level of connectivity, and so determines coupling.
                fc_error if objective is None else objective,
                steps,
                needs_own,
            )
        )

    @classmethod
    def from_options(cls, options: FeatureOptions) -> Mechanism:
        return cls(atlas=options.atlas, connectome=options.connectome)

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "Mechanism: two-state reduced Wong-Wang network (Deco et al. 2014, "
            "doi:10.1523/JNEUROSCI.5068-13.2014) on the "
            f"{recipe.regions} regions of the atlas {recipe.atlas}, connected by "
            f"{recipe.connectome}; BOLD cleaned with {recipe.denoising}; local "
            "inhibition balanced to 3 Hz in closed form; global coupling, and "
            "recurrent excitation and noise of every region fitted to each visit's "
            "functional connectivity (squared error) by gradient (Adam) on the "
            "analytic connectivity, with log-normal priors; features are in units of "
            "prior SD."
        )


@register_feature
class Physiology(FittedFeature):
    """Global coupling and noise of each visit's brain, with their standard deviations:
    fitted by likelihood."""

    name = "physiology"
    label = "Physiology (fitted model)"
    summary = "fitted brain model: global coupling and noise, with standard deviations"
    unit = "prior SD"
    meaning = (
        "global coupling, neural noise and measurement noise of the whole-brain model, "
        "with uncertainty"
    )
    needs = (BOLD, MASK, CONFOUNDS)
    file = "func/{visit}_desc-physiology_timeseries.tsv"
    role = Role.PREDICTOR
    batch_size = 5
    overview = ("strength",)
    references = REFERENCES

    def __init__(
        self,
        atlas: Atlas | None = None,
        connectome: Connectome | None = None,
        steps: int = 120,
    ) -> None:
        from cingulum.brain import Brain
        from cingulum.brain.masses import ReducedWongWang
        from cingulum.features import brain_fitting
        from cingulum.inference import Likelihood
        from cingulum.signals.atlas import has_positions, pain_atlas

        atlas = atlas or pain_atlas()
        # Without tractography, connections are estimated from distances.
        needs_own = connectome is None and not has_positions(atlas)
        connectome = connectome or brain_fitting.atlas_connectome(atlas)
        self._use(
            brain_fitting.BrainFitting(
                atlas,
                Brain(ReducedWongWang(), connectome),
                brain_fitting.physiology_priors(),
                # Only the likelihood gives honest standard deviations.
                Likelihood(),
                steps,
                needs_own,
            )
        )

    @classmethod
    def from_options(cls, options: FeatureOptions) -> Physiology:
        return cls(options.atlas, options.connectome)

    @classmethod
    def methods_text(cls, recipe: StudyRecipe) -> str:
        return (
            "Physiology: two-state reduced Wong-Wang network on the "
            f"{recipe.regions} regions of the atlas {recipe.atlas}, connected by "
            f"{recipe.connectome}, with global coupling, neural noise and measurement "
            "noise free, fitted to each visit's regional signals "
            f"({recipe.denoising}) by their likelihood, with log-normal priors; "
            "features are in units of prior SD, standard deviations by Laplace's "
            "approximation."
        )
