"""What every feature is: a measurement of one visit that never looks at other people or
at the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple

import numpy as np
import pandas as pd

from cingulum.brain.connectome import Connectome
from cingulum.io.visit import Visit
from cingulum.signals.atlas import Atlas, pain_atlas
from cingulum.signals.visit_data import VisitData


class Origin(NamedTuple):
    """SHA-256 of how a measurement was made (settings, software), and of the recordings
    that it was made from."""

    recipe: str = ""
    recordings: str = ""


@dataclass(frozen=True, eq=False)
class Measurement:
    """values: a number, a vector, a matrix or a map (x, y, z); affine: where the map
    lies, None for all else.

    details: for the sidecar: what was done, with its numbers; flags: what a reader
        should know, by name
    origin: what it was made from, where it was read back from disk
    """

    values: np.ndarray
    affine: np.ndarray | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    flags: Sequence[str] = ()
    origin: Origin = Origin()


@dataclass(frozen=True, eq=False)
class FeatureOptions:
    """What the features of a study share: atlas, group connectome, spectrum of the
    beats, kind of connectivity, and the seed, as arguments of `SeedConnectivity`."""

    atlas: Atlas = field(default_factory=pain_atlas)
    connectome: Connectome | None = None
    spectrum: str = "welch"
    fc: str = "correlation"
    seed: Mapping[str, Any] = field(default_factory=dict)


class Column(NamedTuple):
    """A column of the feature table."""

    name: str
    unit: str
    meaning: str


class Feature(ABC):
    """One row a visit. `measure` is done visit by visit; `finish` may then work on many
    visits in one batch."""

    name: ClassVar[str]
    unit: ClassVar[str]
    meaning: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Kinds of recording it reads, as in `cingulum.io.visit.KINDS`."""

    file: ClassVar[str]
    """Where the measurement of a visit is kept, below its session folder; `{visit}` is
    sub-…_ses-…"""

    is_map: ClassVar[bool] = False
    """Whether it is a picture of the brain, kept as NIfTI and not in the feature
    table."""

    fitted: ClassVar[int] = 0
    """Visits in a batch where `finish` is long work (a model is fitted) and rows are
    worth keeping; 0: it is quick."""

    def kinds(self, visit: Visit) -> tuple[str, ...]:
        """The recordings that it reads of this visit, where there is a choice. Raises
        InputError for a missing one."""
        for kind in self.needs:
            visit[kind]
        return self.needs

    def settings(self) -> Mapping[str, Any]:
        """What else the measurement depends on, in JSON's types; a kept measurement
        with other settings is redone."""
        return {}

    @abstractmethod
    def measure(self, opened: VisitData) -> Measurement:
        """The measurement of one visit. Raises InputError when the recording is missing
        or unfit."""

    def columns(self) -> list[Column]:
        """Names (below the feature's own), units and meanings of the columns; one
        without a name for a single value."""
        return [Column("", self.unit, self.meaning)]

    def finish(
        self, measured: Sequence[Measurement], show_progress: bool = False
    ) -> pd.DataFrame:
        """From measurements of visits to rows; a visit's row does not depend on the
        other visits.

        What is worth telling beside the columns may be put into the table's `attrs`:
        arrays with a row a visit.
        """
        rows = np.stack(
            [np.asarray(one.values, dtype=float).ravel() for one in measured]
        )
        names = [column.name for column in self.columns()]
        return pd.DataFrame(
            rows,
            columns=names if len(names) == rows.shape[1] and not self.is_map else None,
        )
