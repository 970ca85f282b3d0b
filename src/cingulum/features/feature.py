"""What every feature is: a measurement of one visit that never looks at other people or at the outcome."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd

from cingulum.recordings.opened import Opened


@dataclass(frozen=True, eq=False)
class Measurement:
    """values: a number, a vector or a map (x, y, z); affine: where the map lies, None for numbers and vectors."""

    values: np.ndarray
    affine: np.ndarray | None = None


class Feature(ABC):
    """One row a visit. `measure` is done visit by visit; `finish` may then work on many visits in one batch."""

    name: ClassVar[str]
    unit: ClassVar[str]
    meaning: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    """Kinds of recording it reads, as in `cingulum.recordings.bids.KINDS`."""

    file: ClassVar[str]
    """Where the measurement of a visit is kept, below its session folder; `{visit}` is sub-…_ses-…"""

    @abstractmethod
    def measure(self, opened: Opened) -> Measurement:
        """The measurement of one visit. Raises InputError when the recording is missing or unfit."""

    def finish(self, rows: np.ndarray, show_progress: bool = False) -> pd.DataFrame:
        """From measurements (visit, value) to columns; a visit's row does not depend on the other rows.

        What is worth telling beside the columns may be put into the table's `attrs`.
        """
        return pd.DataFrame(rows)
