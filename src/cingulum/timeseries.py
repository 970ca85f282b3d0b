"""TimeSeries: what a scanner, real or simulated, records: regions × time, with sampling
interval and unit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class TimeSeries:
    """Regional signals over time.

    data: (*batch, region, time), in `unit`
    tr: seconds between two samples
    regions: one name per region
    """

    data: Float[Tensor, "*batch region time"]
    tr: float
    regions: tuple[str, ...]
    unit: str = "a.u."

    def __post_init__(self) -> None:
        if self.data.ndim < 2 or self.data.shape[-2] != len(self.regions):
            raise InputError(
                "A time series needs data of shape (…, region, time) with "
                f"{len(self.regions)} regions (one for each name); got "
                f"{tuple(self.data.shape)}."
            )
        if not self.tr > 0:
            raise InputError(f"tr must be a positive number of seconds; got {self.tr}.")

    @property
    def duration(self) -> float:
        """Seconds of recording."""
        return self.data.shape[-1] * self.tr

    def between(self, start: int, stop: int | None = None) -> TimeSeries:
        """The samples from `start` to `stop`."""
        return replace(self, data=self.data[..., start:stop])


def check_signals(series: TimeSeries, source: str) -> None:
    """Refuse a series with missing or constant regions, naming them.

    Raises InputError: correlation of such a region is undefined, and silence would hand
    on NaN.
    """
    missing, constant = _unusable_regions(series.data)
    _refuse(series, source, missing, "missing values (NaN or infinite)")
    _refuse(series, source, constant, "a constant signal")


def _unusable_regions(data: Tensor) -> tuple[Tensor, Tensor]:
    """Which regions have missing values, and which others do not vary, in any member of
    the batch."""
    flat = data.reshape(-1, *data.shape[-2:])
    missing = ~torch.isfinite(flat).all(-1).all(0)
    # Rounding makes a constant vary by some 1e-16 of its size.
    size = flat.abs().amax(-1).clamp_min(1e-300)
    constant = (flat.std(-1) <= 1e-12 * size).any(0)
    return missing, constant & ~missing


def _refuse(series: TimeSeries, source: str, flags: Tensor, fault: str) -> None:
    names = [series.regions[i] for i in flags.nonzero().flatten().tolist()]
    if not names:
        return
    shown = _first_few(names)
    raise InputError(
        f"{source}: expected a finite, varying signal in every region; "
        f"{len(names)} region(s) have {fault}: {shown}. Leave these regions out of "
        "both connectome and recording, or repair the recording."
    )


def _first_few(names: list[str]) -> str:
    """At most five of the names, and how many more there are."""
    # A whole atlas of names would hide what to do about them.
    shown = ", ".join(names[:5])
    if len(names) <= 5:
        return shown
    return f"{shown} and {len(names) - 5} more"
