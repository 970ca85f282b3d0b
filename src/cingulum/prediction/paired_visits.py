"""Features of two visits of each patient, checked before anything is learnt from
them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from cingulum.errors import InputError
from cingulum.prediction.settings import Missing
from cingulum.prediction.svm.products import copy_of, order_visits

FEWEST, FEWEST_FORCED = 10, 4
"""Patients an evaluation needs, and those it needs when it is forced."""


@dataclass(frozen=True, eq=False)
class PairedVisits:
    """Features of two visits of each patient; the second is the one to be recognised.

    values: by modality (patient, visit, feature); NaN throughout for a patient without
        the modality
    patients: names, one per patient
    controls: modalities that are scored but kept out of the fusion
    confounds: by name (patient, visit), regressed out of all other modalities
    blocks: (patient,) the family, say, of each, or None
    """

    values: dict[str, np.ndarray]
    patients: list[str]
    controls: tuple[str, ...] = ()
    confounds: dict[str, np.ndarray] = field(default_factory=dict)
    blocks: np.ndarray | None = None

    def __post_init__(self) -> None:
        # Whole numbers would overflow in inner products.
        object.__setattr__(self, "values", _each(_as_float, self.values))
        if not self.values:
            raise InputError("Expected at least one modality; got none.")
        _check_names(self.patients)
        for name, values in self.values.items():
            _check_shape(name, values, len(self.patients))

    @property
    def fused(self) -> list[str]:
        """Modalities that take part in the fusion."""
        return [name for name in self.values if name not in self.controls]

    @cached_property
    def available(self) -> dict[str, np.ndarray]:
        """By modality, who has it (patient,)."""
        # Cached, since maps are large; the values do not change.
        return _each(lambda values: ~np.isnan(values).all((1, 2)), self.values)

    @property
    def stacked_confounds(self) -> np.ndarray | None:
        """Confounds (patient, visit, confound), or None."""
        if not self.confounds:
            return None
        return np.stack(list(self.confounds.values()), -1).astype(float)

    def usable(self, missing: Missing) -> np.ndarray:
        """(patient,): who has every modality, or with `log_odds` at least one."""
        available = list(self.available.values())
        if missing == "log_odds":
            return np.any(available, axis=0)
        return np.all(available, axis=0)

    def ordered(self, higher: np.ndarray) -> PairedVisits:
        """With visits exchanged where the second is not the `higher` one (patient,)."""

        def order(values: np.ndarray) -> np.ndarray:
            return order_visits(values, higher)

        values = _each(order, self.values)
        return replace(self, values=values, confounds=_each(order, self.confounds))

    def select(self, rows: np.ndarray) -> PairedVisits:
        """Of the patients in these rows (or marked by a mask) only."""

        def select(values: np.ndarray) -> np.ndarray:
            return np.asarray(values)[rows]

        return replace(
            self,
            values=_each(select, self.values),
            patients=select(np.asarray(self.patients)).tolist(),
            confounds=_each(select, self.confounds),
            blocks=None if self.blocks is None else select(self.blocks),
        )

    def only(self, modalities: list[str]) -> PairedVisits:
        """With these modalities only."""
        return replace(self, values={name: self.values[name] for name in modalities})

    def check(self, force: bool) -> None:
        """Raises InputError for data from which nothing can be learnt, or whose score
        would mislead: too few patients, gaps, a constant modality, a patient twice."""
        _check_number(len(self.patients), force)
        for name, available in self.available.items():
            _check_values(name, self.values[name][available])
        self._check_copies()
        if not self.fused:
            raise InputError(
                "Every modality is a control; at least one must be evaluated."
            )
        self._check_confounds()

    def _check_confounds(self) -> None:
        confounds = self.stacked_confounds
        if confounds is None or np.isfinite(confounds).all():
            return
        listed = ", ".join(self.confounds)
        raise InputError(
            f"Confounds {listed}: values are missing. Fill them, or leave them out."
        )

    def _check_copies(self) -> None:
        # Twins and siblings may be alike: they are never on both sides of a fold.
        twins = copy_of(list(self.values.values()), self.blocks)
        if twins is not None:
            raise _copy_error(self.patients, *twins)


def _copy_error(patients: list[str], first: int, second: int) -> InputError:
    return InputError(
        f"{patients[first]} and {patients[second]} have the same features to the last "
        "digit at both visits: one is a copy of the other and would be tested on "
        "itself. Leave one out."
    )


def _each(
    function: Callable[[np.ndarray], np.ndarray], tables: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The function of every table, by its name."""
    return {name: function(table) for name, table in tables.items()}


def _as_float(values: np.ndarray) -> np.ndarray:
    """As they are where they are float32 or better: maps are large."""
    values = np.asarray(values)
    if values.dtype.kind == "f" and values.itemsize >= 4:
        return values
    return values.astype(np.float64)


def _check_names(patients: list[str]) -> None:
    repeated = {name for name in patients if patients.count(name) > 1}
    if repeated:
        # A few examples are enough to find the mistake.
        listed = ", ".join(sorted(repeated)[:5])
        raise InputError(
            f"Patients must differ: {listed} occur more than once. One on both sides "
            "of a fold would be a leak; join their visits."
        )


def _check_shape(name: str, values: np.ndarray, patients: int) -> None:
    shape = values.shape
    if len(shape) != 3 or shape[:2] != (patients, 2):
        raise InputError(
            f"{name}: expected (patient, visit, feature) with {patients} patients; "
            f"got {shape}."
        )


def _check_number(patients: int, force: bool) -> None:
    # Fewer than 4 cannot be dealt into two inner parts.
    fewest = FEWEST_FORCED if force else FEWEST
    if patients < fewest:
        remedy = "."
        if not force:
            remedy = "; force=True does it all the same (`cingulum predict --force`)."
        raise InputError(_too_few(patients, fewest) + remedy)


def _too_few(patients: int, fewest: int) -> str:
    return (
        f"Paired evaluation needs at least {fewest} patients; got {patients}. With "
        f"fewer than {FEWEST} even a perfect score is hardly distinguishable from luck "
        "and its interval spans a third of the scale"
    )


def _check_values(name: str, known: np.ndarray) -> None:
    """known: values of those who have the modality."""
    is_missing = ~np.isfinite(known)
    if is_missing.any():
        raise _gap_error(name, is_missing)
    # Without a difference there is nothing that a sign could be learnt from; of nobody,
    # none differs.
    if not (known[:, 1] != known[:, 0]).any():
        raise InputError(
            f"{name}: does not differ between the visits of any patient, so it cannot "
            "tell them apart."
        )


def _gap_error(name: str, is_missing: np.ndarray) -> InputError:
    patients = int(is_missing.any((1, 2)).sum())
    return InputError(
        f"{name}: {is_missing.mean():.2%} of its values are missing or infinite, in "
        f"{patients} patients. A patient may lack a whole modality (all NaN), not "
        "parts of one: leave those features out or fill them."
    )
