"""What a study file means: the visits, the features and the treatment it asks for."""

from __future__ import annotations

from pathlib import Path

from cingulum.brain.connectome import Connectome
from cingulum.features import FeatureOptions, StudyRecipe, study_features
from cingulum.features.run_combination import RunCombination
from cingulum.io.bids_index import index
from cingulum.io.derivatives import generated_by
from cingulum.io.visit import Visit, checked_filters
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.dataset_atlas import atlas_of_dataset
from cingulum.pipeline.feature_export import VisitSelection
from cingulum.pipeline.measurement_cache import MeasurementPlan
from cingulum.pipeline.paths import RunPaths
from cingulum.signals.atlas import Atlas
from cingulum.signals.bold import Denoising


def selection_of(study: StudyConfig) -> VisitSelection:
    """Which visits a study is about."""
    dataset = study.dataset
    return VisitSelection(
        dataset.participants or None,
        dataset.sessions or None,
        checked_filters(dataset.filters, "filters"),
    )


def study_visits(study: StudyConfig, paths: RunPaths) -> list[Visit]:
    """The visits of a study. Raises InputError for a folder that is no dataset, or
    unknown labels."""
    return selection_of(study).visits(paths)


def is_about_everybody(study: StudyConfig) -> bool:
    """Whether the study leaves out no participant and no session by name."""
    return not (study.dataset.participants or study.dataset.sessions)


def plan_of(study: StudyConfig, paths: RunPaths) -> MeasurementPlan:
    """What a study measures of every visit. Raises InputError for an unknown atlas or
    an unfit connectome."""
    atlas, connectome = atlas_and_connectome(study, paths)
    options = FeatureOptions(atlas=atlas, connectome=connectome)
    features = study_features(study.features.modalities, options)
    return MeasurementPlan(
        features, denoising_of(study), runs=RunCombination(study.features.runs)
    )


def atlas_and_connectome(
    study: StudyConfig, paths: RunPaths
) -> tuple[Atlas, Connectome | None]:
    """The regions of the fitted brains, and their connections where a file names
    them."""
    # Late: the simulator takes long to import, and errors should come at once.
    from cingulum.pipeline.single_recording import read_atlas_connectome

    atlas = atlas_of_dataset(study.features.atlas, paths.bids, paths.derivatives)
    path = study.features.connectome
    if not path:
        return atlas, None
    return atlas, read_atlas_connectome(Path(path), atlas.regions)


def denoising_of(study: StudyConfig) -> Denoising:
    """How a study cleans BOLD."""
    features = study.features
    return Denoising(
        features.strategy, features.scrub, features.low_pass, features.high_pass
    )


def recipe_of(study: StudyConfig, paths: RunPaths) -> StudyRecipe:
    """How recordings were treated, in the words of the methods section."""
    atlas, connectome = atlas_and_connectome(study, paths)
    return StudyRecipe(
        denoising_of(study).description(),
        atlas.name,
        len(atlas.regions),
        _source_of(connectome),
        study.prediction.site,
        study.prediction.family,
    )


def _source_of(connectome: Connectome | None) -> str:
    """Where the connections come from, in words."""
    if connectome is None:
        return "a distance rule"
    # The copy beside the report: the user's own path would name people.
    return "the weights of the connectome beside this report"


def pipelines_of(paths: RunPaths) -> list[str]:
    """What made the derivatives, with versions, as they say themselves."""
    names = set()
    # The first root is the raw dataset.
    for root in index(paths.bids, paths.derivatives).roots[1:]:
        description = root / "dataset_description.json"
        # Our own output may be below the derivatives; it is no input of this run.
        is_output = root.resolve() == paths.out.resolve()
        if description.is_file() and not is_output:
            names |= _software_in(description)
    return sorted(names)


def _software_in(description: Path) -> set[str]:
    """Names with versions of the software that a dataset description lists."""
    return {f"{name} {version}".strip() for name, version in generated_by(description)}
