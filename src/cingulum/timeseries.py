"""TimeSeries: what a scanner, or a simulated scanner, gives: regions × time, with its
clock and unit."""

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
    regions: one name a region
    """

    data: Float[Tensor, "*batch region time"]
    tr: float
    regions: tuple[str, ...]
    unit: str = "a.u."

    def __post_init__(self) -> None:
        if self.data.ndim < 2 or self.data.shape[-2] != len(self.regions):
            raise InputError(
                "A time series needs data of shape (…, region, time) with "
                f"{len(self.regions)} regions "
                f"(one for each name); came {tuple(self.data.shape)}."
            )
        if not self.tr > 0:
            raise InputError(
                f"tr must be a positive number of seconds; came {self.tr}."
            )

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
    flat = series.data.reshape(-1, *series.data.shape[-2:])
    bad = ~torch.isfinite(flat).all(-1).all(0)
    constant = (flat.std(-1) <= 1e-12 * flat.abs().amax(-1).clamp_min(1e-300)).any(
        0
    ) & ~bad
    for kind, flags in (
        ("missing values (NaN or infinite)", bad),
        ("a constant signal", constant),
    ):
        names = [
            name
            for name, flag in zip(series.regions, flags.tolist(), strict=True)
            if flag
        ]
        if names:
            shown = ", ".join(names[:5]) + (
                f" and {len(names) - 5} more" if len(names) > 5 else ""
            )
            raise InputError(
                f"{source}: expected a finite, varying signal in every region; "
                f"{len(names)} region(s) have {kind}: "
                f"{shown}. Leave these regions out of both connectome and recording, "
                "or repair the recording."
            )
