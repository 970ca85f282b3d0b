"""Whether an output folder is of this dataset: results of two datasets in one folder
would be mixed without a word, since people are called sub-01 in both."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from cingulum.errors import InputError
from cingulum.io.derivatives import sidecar_of
from cingulum.io.files import read_json_or_empty, write_bytes
from cingulum.io.visit import Visit
from cingulum.pipeline.measurement_cache import (
    SOURCE,
    Digests,
    MeasurementPlan,
    measurement_path,
)
from cingulum.pipeline.paths import RunPaths

LOOKED_AT = 3
"""Visits whose kept measurements are compared with the recordings."""


def check_same_dataset(
    visits: Sequence[Visit], plan: MeasurementPlan, paths: RunPaths
) -> None:
    """Remember which dataset an output folder is of.

    Raises InputError where what is kept there was measured in other recordings. A
    dataset that was moved has the same recordings; one in its old place may change.
    """
    record = paths.work / "dataset.sha256"
    # Not the path itself, which may name people.
    place = hashlib.sha256(str(paths.bids).encode()).hexdigest().encode()
    if record.is_file() and record.read_bytes() == place:
        return
    comparisons = list(_comparisons(visits, plan, paths.out))
    if comparisons and not any(is_same for _, is_same in comparisons):
        raise InputError(
            f"{paths.out}: holds measurements of other recordings of the same "
            f"participants, such as sub-{comparisons[0][0]}: another dataset's, "
            "or of recordings that were preprocessed again elsewhere. Give another "
            "OUT_DIR, or --no-resume to measure everything anew."
        )
    write_bytes(record, place)


def _comparisons(
    visits: Sequence[Visit], plan: MeasurementPlan, out: Path
) -> Iterator[tuple[str, bool]]:
    """Of the first visits with a kept measurement: the participant, and whether it is
    of the recordings."""
    digests = Digests()
    compared = 0
    for visit in visits:
        for feature in plan.features.values():
            kept = _kept_source(measurement_path(visit, feature, out))
            if not kept or not feature.has_recordings(visit):
                continue
            try:
                source = digests.of_recordings(visit, feature)
            # What cannot be read is reported where it is measured.
            except InputError:
                continue
            yield visit.participant, kept == source
            compared += 1
            break
        if compared == LOOKED_AT:
            return


def _kept_source(path: Path) -> str:
    """Digest of the recordings of a kept measurement; empty where there is none."""
    if not path.is_file():
        return ""
    return str(read_json_or_empty(sidecar_of(path)).get(SOURCE, ""))
