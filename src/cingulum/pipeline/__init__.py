"""One study: a BIDS dataset in; features of every visit, their evaluation and a report
out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cingulum.features.cohort_features import CohortFeatures as CohortFeatures
    from cingulum.pipeline.config import StudyConfig as StudyConfig
    from cingulum.pipeline.config import read_study as read_study
    from cingulum.pipeline.feature_table import write_features as write_features
    from cingulum.pipeline.measurement import MeasurementPlan as MeasurementPlan
    from cingulum.pipeline.measurement import features as features
    from cingulum.pipeline.paired_study import RunPaths as RunPaths
    from cingulum.pipeline.paired_study import gathered as gathered
    from cingulum.pipeline.paired_study import group as group
    from cingulum.pipeline.paired_study import take as take
    from cingulum.pipeline.study_report import evaluated as evaluated
    from cingulum.prediction.study_evaluation import StudyEvaluation as StudyEvaluation

_WHERE = {
    "StudyConfig": "cingulum.pipeline.config",
    "read_study": "cingulum.pipeline.config",
    "RunPaths": "cingulum.pipeline.paired_study",
    "gathered": "cingulum.pipeline.paired_study",
    "group": "cingulum.pipeline.paired_study",
    "take": "cingulum.pipeline.paired_study",
    "StudyEvaluation": "cingulum.prediction.study_evaluation",
    "CohortFeatures": "cingulum.pipeline.gathering",
    "MeasurementPlan": "cingulum.pipeline.measurement",
    "features": "cingulum.pipeline.measurement",
    "evaluated": "cingulum.pipeline.study_report",
    "write_features": "cingulum.pipeline.feature_table",
}
"""Imported when first used: `cingulum status` asks for little of this. No word may be
the name of a module here, which would hide it once that module is imported."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cingulum.pipeline' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
