"""What an objective compares: the recording, and the model seen the same way, by
formula or by simulation.

All three views answer the same questions (`fc`, `covariance`, `spectrum`, …), after the
same `Cleaning`; so an objective is one function of two views, and one that asks a
question its method cannot answer says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.errors import InputError
from cingulum.measures import (
    band_passed,
    correlation,
    covariance,
    fc,
    psd,
    without_global_signal,
)
from cingulum.simulation.linear.equilibrium import (
    Linearisation,
    fixed_point,
    linearise,
    slow_covariance,
)
from cingulum.simulation.linear.spectrum import cross_spectrum, transfer_function
from cingulum.timeseries import TimeSeries, check_signals


@dataclass(frozen=True)
class Cleaning:
    """What is done to a signal before connectivity is computed: to model and recording
    alike.

    band: frequencies kept, Hz (low, high); None keeps all
    global_signal: keep the mean over regions (True), or regress it out
    bins: frequencies at which a model's spectrum is evaluated inside the band
    """

    band: tuple[float, float] | None = None
    global_signal: bool = True
    bins: int = 24

    def series(self, signal: TimeSeries) -> TimeSeries:
        data = (
            signal.data
            if self.band is None
            else band_passed(signal.data, signal.tr, self.band)
        )
        if not self.global_signal:
            data = data - data.mean(-1, keepdim=True)
            mean = data.mean(-2, keepdim=True)
            data = data - (data @ mean.mT) / mean.square().sum(-1, keepdim=True) * mean
        return replace(signal, data=data)

    def covariance(self, total: Tensor) -> Tensor:
        return total if self.global_signal else without_global_signal(total)

    def edges_of_bins(self, tr: float) -> Float[Tensor, "edge"]:
        """Boundaries of the frequency bins (Hz), narrower where BOLD has its power."""
        low, high = self.band or (0.005, 0.5 / tr)
        high = min(high, 0.5 / tr)
        if not low < high:
            raise InputError(
                f"The band {self.band} Hz is empty at a TR of {tr} s (Nyquist "
                f"{0.5 / tr:.3g} Hz)."
            )
        share = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)
        return low + (high - low) * share**1.5


TAPER = 0.2
"""Share of a recording, half at either end, over which the likelihood's window rises
and falls as a cosine does."""


def taper(count: int) -> Float[Tensor, "time"]:
    """Tukey's window of mean square one. Neighbouring frequencies then depend on each
    other a little: a mean over many of them is as good as one over 1 / mean(window⁴) of
        their number (0.90; Percival and Walden 1993, on tapers)."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    edge = (torch.minimum(place, 1 - place) / (TAPER / 2)).clamp_max(1.0)
    window = (1 - torch.cos(torch.pi * edge)) / 2
    return window / window.square().mean().sqrt()


class View:
    """The questions an objective may ask. `rate` is the excitatory firing rate in Hz of
    every region."""

    method: str

    @property
    def fc(self) -> Float[Tensor, "*batch region region"]:
        return correlation(self.covariance)

    @property
    def covariance(self) -> Float[Tensor, "*batch region region"]:
        raise self._cannot("covariance")

    @property
    def series(self) -> TimeSeries:
        raise self._cannot("a time course")

    @property
    def uncleaned(self) -> TimeSeries:
        raise self._cannot("a time course")

    @property
    def rate(self) -> Float[Tensor, "*batch region"]:
        raise self._cannot("a firing rate")

    def psd(self, frequencies: Tensor) -> Float[Tensor, "*batch region frequency"]:
        raise self._cannot("a spectrum")

    def _cannot(self, what: str) -> InputError:
        methods = {
            "analytic": "fit with method='simulated' or method='both'",
            "recorded": "give the recording as a TimeSeries",
            "simulated": "fit with method='analytic'",
        }
        return InputError(
            f"The objective needs {what}, which a {self.method} view does not have: "
            f"{methods[self.method]}."
        )


class Recorded(View):
    """A recording: its signals, or only its connectivity."""

    method = "recorded"

    def __init__(
        self, given: TimeSeries | Tensor, brain: Brain, cleaning: Cleaning
    ) -> None:
        self.cleaning = cleaning
        like = brain.connectome.weights
        names = brain.sensor.channels or brain.regions
        self._series, self._fc = None, None
        if isinstance(given, TimeSeries):
            check_recording(given, names, brain.sensor.tr)
            self.raw = replace(given, data=given.data.to(like))
            self._series = cleaning.series(self.raw)
        else:
            if given.shape[-2:] != (len(names), len(names)):
                raise InputError(
                    f"The connectome has {len(names)} regions; the recorded "
                    "connectivity has shape "
                    f"{tuple(given.shape)}."
                )
            if not torch.isfinite(given).all():
                raise InputError(
                    "The recorded connectivity has NaN: leave out regions without "
                    "signal."
                )
            self._fc = given.detach().to(like)

    @property
    def has_series(self) -> bool:
        return self._series is not None

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.fc.shape[:-2])

    @cached_property
    def fc(self) -> Tensor:  # type: ignore[override]
        return fc(self.series.data) if self._fc is None else self._fc

    @cached_property
    def covariance(self) -> Tensor:  # type: ignore[override]
        return covariance(self.series.data)

    @property
    def series(self) -> TimeSeries:
        if self._series is None:
            raise self._cannot("the signals")
        return self._series

    @property
    def uncleaned(self) -> TimeSeries:
        """As recorded: for spectra, lags and the likelihood, which look at frequencies
        by themselves."""
        return replace(self.series, data=self.raw.data)

    def psd(self, frequencies: Tensor) -> Tensor:
        return binned(*psd(self.uncleaned.data, self.raw.tr), frequencies)

    @cached_property
    def cross_periodogram(self) -> tuple[Tensor, Tensor, Tensor]:
        """Bin centres (Hz), independent frequencies in each bin, and the mean
        cross-periodogram of each (complex).

        Tapered, because without a taper the jump between a recording's end and its
        beginning leaks slow power into fast frequencies, where measurement noise is
        then estimated too high.
        """
        signal = self.uncleaned
        x = signal.data - signal.data.mean(-1, keepdim=True)
        window = taper(x.shape[-1]).to(x)
        x = x * window
        f = torch.fft.rfftfreq(x.shape[-1], signal.tr, dtype=torch.float64)[1:-1]
        waves = torch.fft.rfft(x)[..., 1:-1] * (signal.tr / x.shape[-1]) ** 0.5
        edges = self.cleaning.edges_of_bins(signal.tr)
        member = torch.bucketize(f, edges) - 1
        bins = [(member == b).nonzero()[:, 0] for b in range(len(edges) - 1)]
        bins = [b for b in bins if len(b)]
        power = torch.stack(
            [waves[..., b] @ waves[..., b].mH / len(b) for b in bins], -3
        )
        centres = torch.stack([f[b].mean() for b in bins])
        return (
            centres.to(x),
            x.new_tensor([len(b) for b in bins]) / window.pow(4).mean(),
            power,
        )


class Analytic(View):
    """A brain near its equilibrium, in closed form.

    Without a band, delays, leadfield or regional haemodynamics, connectivity is that of
    the zero-frequency cross-spectrum (what slow BOLD sees), with measurement noise
    added to the variances; with any of them, the cross-spectrum is integrated over the
    band.
    """

    method = "analytic"

    def __init__(
        self,
        brain: Brain,
        cleaning: Cleaning = Cleaning(),
        x: Tensor | None = None,
        at: Linearisation | None = None,
    ) -> None:
        self.brain, self.cleaning, self._x, self._at = brain, cleaning, x, at

    @cached_property
    def x(self) -> Tensor:
        return fixed_point(self.brain) if self._x is None else self._x

    @cached_property
    def at(self) -> Linearisation:
        return linearise(self.brain, self.x) if self._at is None else self._at

    @cached_property
    def covariance(self) -> Tensor:  # type: ignore[override]
        if not self._needs_spectrum():
            return self.cleaning.covariance(self._slow())
        edges = self.cleaning.edges_of_bins(self.brain.sensor.tr).to(self.x)
        power = self.cross_spectrum((edges[1:] + edges[:-1]) / 2).real
        width = edges[1:] - edges[:-1]
        return self.cleaning.covariance(2 * (power * width[:, None, None]).sum(-3))

    def _slow(self) -> Tensor:
        """Neurons are fast against BOLD: its covariance is their slow one times the
        power that BOLD lets through."""
        slow, noise = slow_covariance(self.brain, self.at), self.brain.sensor.noise
        if not isinstance(noise, Tensor) and noise == 0:
            return slow
        f = torch.linspace(0.0, 1.0, 201, dtype=slow.dtype, device=slow.device)[1:]
        passed = transfer_function(
            self.brain.sensor.response, self.brain.mass.activity(self.x), f
        )
        amplitude = (2 * passed.abs().square().mean(-2)).sqrt()  # over 1 Hz, both sides
        noise = torch.as_tensor(noise, dtype=slow.dtype, device=slow.device)
        level = noise.square() + torch.zeros_like(amplitude)
        return amplitude.unsqueeze(-1) * slow * amplitude.unsqueeze(
            -2
        ) + torch.diag_embed(level)

    def _needs_spectrum(self) -> bool:
        sensor, response = self.brain.sensor, self.brain.sensor.response
        regional = any(
            isinstance(v, Tensor) and v.ndim and v.shape[-1] > 1
            for v in vars(response).values()
        )
        delayed = self.brain.delays() is not None
        return (
            self.cleaning.band is not None
            or regional
            or delayed
            or sensor.leadfield is not None
        )

    def cross_spectrum(self, frequencies: Tensor) -> Tensor:
        return cross_spectrum(self.brain, frequencies, self.x, self.at)

    def psd(self, frequencies: Tensor) -> Tensor:
        return self.cross_spectrum(frequencies).real.diagonal(dim1=-2, dim2=-1).mT

    @property
    def rate(self) -> Tensor:
        return firing_rate(self.brain, self.x)


class Simulated(View):
    """Free-running simulations of a brain: (run, *batch, region, time), pooled over
    runs."""

    method = "simulated"

    def __init__(
        self, brain: Brain, signal: TimeSeries, cleaning: Cleaning = Cleaning()
    ) -> None:
        self.brain, self.raw, self._cleaned = brain, signal, cleaning.series(signal)

    @cached_property
    def covariance(self) -> Tensor:  # type: ignore[override]
        return covariance(self._cleaned.data).mean(0)

    @property
    def series(self) -> TimeSeries:
        return self._cleaned

    @property
    def uncleaned(self) -> TimeSeries:
        return self.raw

    def psd(self, frequencies: Tensor) -> Tensor:
        return binned(*psd(self.raw.data, self.raw.tr), frequencies).mean(0)

    @property
    def rate(self) -> Tensor:
        return firing_rate(self.brain, fixed_point(self.brain))


def binned(
    f: Tensor, power: Tensor, centres: Float[Tensor, "bin"]
) -> Float[Tensor, "*batch channel bin"]:
    """Mean power around every centre (Hz, ascending), half-way to its neighbours; what
    lies outside does not count.

    Raises InputError where a bin has no frequency.
    """
    between = (centres[1:] + centres[:-1]) / 2
    edges = torch.cat(
        [2 * centres[:1] - between[:1], between, 2 * centres[-1:] - between[-1:]]
    ).to(f)
    share = ((f.unsqueeze(-1) >= edges[:-1]) & (f.unsqueeze(-1) < edges[1:])).to(power)
    if not (share.sum(0) > 0).all():
        raise InputError(
            f"A signal of {1 / f[0].item():.3g} s cannot fill {len(centres)} frequency "
            "bins from "
            f"{centres[0].item():.3g} to {centres[-1].item():.3g} Hz: ask for fewer "
            "bins, or a narrower band."
        )
    return power @ (share / share.sum(0))


def firing_rate(brain: Brain, x: Tensor) -> Float[Tensor, "*batch region"]:
    """Excitatory firing rate (Hz) at states x. Raises InputError for a mass without
    rates."""
    if not hasattr(brain.mass, "rates"):
        raise InputError(
            f"{type(brain.mass).__name__} has no firing rates: leave the rate out of "
            "the objective."
        )
    return brain.mass.rates(x, brain.coupling(x))[0]


def check_recording(series: TimeSeries, regions: tuple[str, ...], tr: float) -> None:
    """Refuse a recording that does not belong to the brain's sensor, saying why."""
    if series.regions != regions:
        raise InputError(
            "Recording and connectome must name the same regions in the same order; "
            "the recording has "
            f"{len(series.regions)}, the connectome {len(regions)}."
        )
    if abs(series.tr - tr) > 1e-6 * tr:
        raise InputError(
            f"The recording has a TR of {series.tr} s, the brain's sensor {tr} s. Set "
            "the sensor's: "
            f"put(brain, {{'sensor.tr': {series.tr}}})."
        )
    check_signals(series, "recording")
    if series.data.shape[-1] < max(20, len(regions) // 4):
        raise InputError(
            f"A recording of {series.data.shape[-1]} samples is too short for "
            f"{len(regions)} regions: at least "
            f"{max(20, len(regions) // 4)} are needed, several hundred for a stable "
            "connectivity."
        )
