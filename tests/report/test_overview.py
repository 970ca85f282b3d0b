import numpy as np
import pandas as pd

from cingulum.report.feature_overview import far_out, overview


def test_visits_that_stand_apart_are_found():
    """3.5 robust deviations: about 1 in 2000 normal values (none of 200 with this
    seed); planted ones are found."""
    values = np.random.default_rng(0).normal(50, 5, 200)
    assert not far_out(values).any()
    values[[3, 70]] = [90, 10]
    values[5] = np.nan
    assert np.flatnonzero(far_out(values)).tolist() == [3, 70]
    assert not far_out(np.full(20, 7.0)).any()


def test_a_table_without_such_columns_has_no_picture():
    table = pd.DataFrame(
        {"participant_id": ["sub-01"], "session_id": [np.nan], "hrv_rate": [60.0]}
    )
    assert overview(table, {"hrv_rate": "1/min"}).startswith(b"\x89PNG")
    assert overview(table[["participant_id", "session_id"]], {}) is None
