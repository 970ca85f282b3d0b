"""What features of regions read of a visit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK, is_cleaned

if TYPE_CHECKING:
    from cingulum.io.visit import Visit
    from cingulum.signals.atlas import Atlas


def regional_recordings(visit: Visit, atlas: Atlas) -> tuple[str, ...]:
    """Names of the recordings that regional signals are read from: a table that another
    pipeline cleaned, where the regions are known by name only; else the run itself.

    Raises InputError for a missing recording.
    """
    from cingulum.io.readers.xcpd import REGIONAL_SERIES
    from cingulum.signals.atlas import is_of_tables

    if not is_of_tables(atlas):
        return run_recordings(visit)
    name = REGIONAL_SERIES.named(atlas.name)
    visit[name]
    return (name,)


def run_recordings(visit: Visit) -> tuple[str, ...]:
    """Names of the recordings that a run of BOLD is read from: of one that another
    pipeline cleaned, no confounds, and a mask only where there is one.

    Raises InputError for a missing recording.
    """
    from cingulum.io.readers.xcpd import OUTLIERS

    names: tuple[str, ...] = (BOLD.name, MASK.name, CONFOUNDS.name)
    if is_cleaned(visit[BOLD.name]):
        beside = (MASK.name, OUTLIERS.name)
        names = (BOLD.name, *(name for name in beside if visit.has(name)))
    for name in names:
        visit[name]
    return names


def displacement_source(visit: Visit) -> tuple[str, ...]:
    """Name of the recording that head motion is read from: fMRIPrep's confounds where
    there are any, else a table of motion.

    Raises InputError for a visit that has neither.
    """
    from cingulum.io.readers.xcpd import MOTION

    kind = CONFOUNDS
    if not visit.has(CONFOUNDS.name) and visit.has(MOTION.name):
        kind = MOTION
    visit[kind.name]
    return (kind.name,)
