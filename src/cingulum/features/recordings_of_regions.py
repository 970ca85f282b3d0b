"""What features of regions read of a visit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cingulum.io.recording_kinds import BOLD, CONFOUNDS, MASK

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

    names: tuple[str, ...] = (BOLD.name, MASK.name, CONFOUNDS.name)
    if is_of_tables(atlas):
        names = (REGIONAL_SERIES.named(atlas.name),)
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
