"""The study file of an output folder: every setting, with a copy of its connectome
beside it."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np

from cingulum.io.files import read_matrix
from cingulum.pipeline.config import StudyConfig, written
from cingulum.report.manifest import ReportManifest


def write_study(study: StudyConfig, shelf: ReportManifest) -> None:
    """Write the study, complete, to study.toml, with a copy of its connectome beside
    it."""
    if study.features.connectome:
        content = io.BytesIO()
        np.save(
            content, read_matrix(Path(study.features.connectome)), allow_pickle=False
        )
        shelf.bytes("connectome.npy", content.getvalue())
        study = replace(
            study, features=replace(study.features, connectome="connectome.npy")
        )
    shelf.bytes("study.toml", written(study).encode())
