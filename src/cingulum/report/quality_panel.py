"""Quality of a cohort's recordings: what was measured, and which visits stand apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from cingulum.features.cohort_features import CohortFeatures
from cingulum.io import Cohort
from cingulum.io.files import slug
from cingulum.report.feature_overview import FAR, far_out, overview


def quality_table(features: CohortFeatures, cohort: Cohort) -> pd.DataFrame:
    """A row a visit: participant_id, session_id, motion, and the columns of quality and
    heart."""
    order = cohort.ratings.sort_values(["participant", "state"])
    table = pd.DataFrame(
        {
            "participant_id": [f"sub-{p}" for p in order["participant"]],
            "session_id": [f"ses-{s}" if s else np.nan for s in order["session"]],
        }
    )
    if "motion" in features.values:
        table["motion"] = features.values["motion"].ravel()
    for name in ("quality", "hrv"):
        if name in features.told:
            told = features.told[name]
            table = table.join(
                told.set_axis(
                    [slug(f"{name} {column}") for column in told.columns], axis=1
                )
            )
    return table


def told(table: pd.DataFrame) -> dict[str, Any]:
    """Visits that stand apart in some measure, for a summary."""
    far = []
    for name in table.columns[2:]:
        values = table[name].to_numpy(float)
        for i in np.flatnonzero(far_out(values)):
            visit = " ".join(str(v) for v in table.iloc[i, :2] if v == v)
            far.append(
                {
                    "visit": visit,
                    "measure": name,
                    "value": values[i],
                    "median": float(np.nanmedian(values)),
                }
            )
    return {"limit": FAR, "measures": list(table.columns[2:]), "far": far}


def picture(table: pd.DataFrame, columns: dict[str, dict[str, Any]]) -> bytes | None:
    """Every measure at a glance, a dot a visit."""
    return overview(table, columns)
