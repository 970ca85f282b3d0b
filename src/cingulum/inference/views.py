"""What an objective compares: the recording and the model, the latter in closed form or
by simulation.

All three views have the same properties (`fc`, `covariance`, `series`, …), after the
same `Cleaning`; so an objective is one function of two views, and one that needs a
property its view does not have raises an InputError that says which view does.
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
    centred,
    correlation,
    covariance,
    fc,
    lag_one,
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
    """How signals are treated before connectivity is computed, in model and recording
    alike.

    band: frequencies kept, Hz (low, high); None keeps all
    global_signal: keep the mean over regions (True), or regress it out (False)
    bins: number of frequencies at which a model's spectrum is evaluated in the band
    """

    band: tuple[float, float] | None = None
    global_signal: bool = True
    bins: int = 24

    def series(self, signal: TimeSeries) -> TimeSeries:
        """The signals after filtering and global-signal regression."""
        data = signal.data
        if self.band is not None:
            data = band_passed(data, signal.tr, self.band)
        if not self.global_signal:
            data = _regress_out_mean(data)
        return replace(signal, data=data)

    def covariance(self, total: Tensor) -> Tensor:
        """Covariance after global-signal regression, from that before."""
        return total if self.global_signal else without_global_signal(total)

    def edges_of_bins(self, tr: float) -> Float[Tensor, "edge"]:
        """Boundaries of the frequency bins (Hz), narrower where BOLD has its power."""
        low, high = self._limits(0.5 / tr)
        if not low < high:
            raise InputError(
                f"The band {self.band} Hz is empty at a TR of {tr} s (Nyquist "
                f"{0.5 / tr:.3g} Hz)."
            )
        share = torch.linspace(0, 1, self.bins + 1, dtype=torch.float64)
        # The power makes slow bins narrower than fast ones.
        return low + (high - low) * share**1.5

    def _limits(self, nyquist: float) -> tuple[float, float]:
        """Lowest and highest frequency (Hz) at which a spectrum is evaluated."""
        if self.band is None:
            # Slower than 0.005 Hz, a scan holds drift and less than a handful of waves.
            return 0.005, nyquist
        low, high = self.band
        return low, min(high, nyquist)


def _regress_out_mean(
    data: Float[Tensor, "*batch region time"],
) -> Float[Tensor, "*batch region time"]:
    """Residuals of every region after regression on the mean over regions."""
    deviations = centred(data)
    mean = deviations.mean(-2, keepdim=True)
    slope = (deviations @ mean.mT) / mean.square().sum(-1, keepdim=True)
    return deviations - slope * mean


TAPER = 0.2
"""Share of a recording, half of it at either end, over which the likelihood's window
rises and falls as a cosine does."""


def taper(count: int) -> Float[Tensor, "time"]:
    """Tukey's window of mean square one.

    It makes neighbouring frequencies slightly dependent: a mean over many of them is as
    precise as one over 1 / mean(window⁴) of their number (0.90; Percival and Walden
    1993, doi:10.1017/CBO9780511622762, on tapers).
    """
    # Samples are in the middle of their intervals, so that the window is symmetric.
    position = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    from_edge = torch.minimum(position, 1 - position)
    phase = (from_edge / (TAPER / 2)).clamp_max(1.0)
    window = (1 - torch.cos(torch.pi * phase)) / 2
    return window / window.square().mean().sqrt()


@dataclass(frozen=True, eq=False)
class CrossPeriodogram:
    """The cross-periodogram of a recording, averaged in bins of frequency.

    frequencies: mean frequency of each bin, Hz
    counts: number of independent frequencies in each bin
    power: mean cross-periodogram of each bin, complex, (*batch, bin, region, region)
    """

    frequencies: Float[Tensor, "bin"]
    counts: Float[Tensor, "bin"]
    power: Tensor


ROUNDING = 1e-4
"""By how much a matrix of correlations that was written as text may miss its rules."""

REMEDIES = {
    "analytic": "fit with method='simulated' or method='both'",
    "recorded": "give the recording as a TimeSeries",
    "simulated": "fit with method='analytic'",
}
"""What to do where a view lacks what an objective needs, by the view's method."""


class NotInView(InputError):
    """A view does not have what an objective asks for."""


class View:
    """What an objective may ask of a model or recording.

    Every property has a leading batch where the view has one. A property that a view
    does not have raises InputError.
    """

    method: str

    @property
    def fc(self) -> Float[Tensor, "*batch region region"]:
        """Functional connectivity: correlations of the cleaned signals."""
        return correlation(self.covariance)

    @property
    def covariance(self) -> Float[Tensor, "*batch region region"]:
        """Covariance of the cleaned signals."""
        raise self._missing("covariance")

    @property
    def series(self) -> TimeSeries:
        """Cleaned signals; of simulations with the runs in front."""
        raise self._missing("a time course")

    @property
    def uncleaned(self) -> TimeSeries:
        """Signals as recorded: for spectra, lags and the likelihood, which look at
        frequencies by themselves."""
        raise self._missing("a time course")

    @property
    def rate(self) -> Float[Tensor, "*batch region"]:
        """Excitatory firing rate, Hz."""
        raise self._missing("a firing rate")

    @property
    def lag_one(self) -> Float[Tensor, "*batch region"]:
        """Autocorrelation at a lag of one TR, without cleaning."""
        raise self._missing("an autocorrelation")

    def psd(self, frequencies: Tensor) -> Float[Tensor, "*batch region frequency"]:
        """Power spectral density without cleaning, unit² per Hz."""
        raise self._missing("a spectrum")

    def _missing(self, name: str) -> InputError:
        return NotInView(
            f"The objective needs {name}, which a {self.method} view does not have: "
            f"{REMEDIES[self.method]}."
        )


class Recorded(View):
    """A recording: its signals, or only its connectivity.

    Raises InputError for signals or connectivity that do not belong to the brain.
    """

    method = "recorded"

    def __init__(
        self, recorded: TimeSeries | Tensor, brain: Brain, cleaning: Cleaning
    ) -> None:
        self.cleaning = cleaning
        self._series: TimeSeries | None = None
        self._connectivity: Tensor | None = None
        # In the precision and on the device of the model it is compared with.
        like = brain.connectome.weights
        names = brain.sensor.channels or brain.regions
        if isinstance(recorded, TimeSeries):
            check_recording(recorded, names, brain.sensor.tr)
            self.raw = replace(recorded, data=recorded.data.to(like))
            self._series = cleaning.series(self.raw)
        else:
            _check_connectivity(recorded, len(names))
            self._connectivity = recorded.detach().to(like)

    @property
    def unit(self) -> str | None:
        """Of the signals; None where only their connectivity is known."""
        return None if self._series is None else self._series.unit

    @property
    def data(self) -> Tensor:
        """What was recorded: the signals, or the connectivity where there are none."""
        return self.fc if self._series is None else self.raw.data

    @property
    def batch(self) -> tuple[int, ...]:
        return tuple(self.fc.shape[:-2])

    @cached_property
    def fc(self) -> Tensor:
        if self._connectivity is not None:
            return self._connectivity
        return fc(self.series.data)

    @cached_property
    def covariance(self) -> Tensor:
        return covariance(self.series.data)

    @property
    def series(self) -> TimeSeries:
        if self._series is None:
            raise self._missing("the signals")
        return self._series

    @property
    def uncleaned(self) -> TimeSeries:
        return replace(self.series, data=self.raw.data)

    @property
    def lag_one(self) -> Tensor:
        return lag_one(self.uncleaned.data)

    def psd(self, frequencies: Tensor) -> Tensor:
        return binned(*psd(self.uncleaned.data, self.raw.tr), frequencies)

    @cached_property
    def cross_periodogram(self) -> CrossPeriodogram:
        """The cross-periodogram in the bins of the cleaning that hold a frequency.

        Tapered, because without a taper the jump between a recording's end and its
        beginning leaks slow power into fast frequencies, where measurement noise is
        then estimated too high.
        """
        signal = self.uncleaned
        window = taper(signal.data.shape[-1]).to(signal.data)
        frequencies, waves = _fourier_coefficients(signal, window)
        bins = _members_of_bins(frequencies, self.cleaning.edges_of_bins(signal.tr))
        counts = window.new_tensor([len(members) for members in bins])
        return CrossPeriodogram(
            frequencies=_means(frequencies, bins).to(window),
            # Fewer than there are, because tapered frequencies depend on each other.
            counts=counts / window.pow(4).mean(),
            power=_mean_cross_power(waves, bins),
        )


def _check_connectivity(recorded: Tensor, regions: int) -> None:
    if recorded.shape[-2:] != (regions, regions):
        raise InputError(
            f"The connectome has {regions} regions; the recorded connectivity has "
            f"shape {tuple(recorded.shape)}."
        )
    if not torch.isfinite(recorded).all():
        raise InputError(
            "The recorded connectivity has NaN: leave out regions without signal."
        )
    largest = recorded.abs().max().item()
    asymmetry = (recorded - recorded.mT).abs().max().item()
    if largest > 1 + ROUNDING or asymmetry > ROUNDING:
        raise InputError(
            "The recorded connectivity is no matrix of correlations: its largest "
            f"value is {largest:.4g} (at most 1), its largest asymmetry "
            f"{asymmetry:.2g}. Give correlations, not Fisher z or covariances."
        )


def _fourier_coefficients(signal: TimeSeries, window: Tensor) -> tuple[Tensor, Tensor]:
    """Frequencies (Hz) and tapered Fourier coefficients (*batch, region, frequency),
    whose squared size is power per Hz.

    Without the first and the last: those of the mean and of the Nyquist frequency are
    real, and Whittle's likelihood is of complex ones.
    """
    samples = len(window)
    scale = (signal.tr / samples) ** 0.5
    waves = torch.fft.rfft(centred(signal.data) * window)[..., 1:-1] * scale
    frequencies = torch.fft.rfftfreq(samples, signal.tr, dtype=torch.float64)[1:-1]
    return frequencies, waves


def _members_of_bins(frequencies: Tensor, edges: Tensor) -> list[Tensor]:
    """Indices of the frequencies in each bin; empty bins are left out."""
    bin_of = torch.bucketize(frequencies, edges) - 1
    members = [(bin_of == index).nonzero()[:, 0] for index in range(len(edges) - 1)]
    return [indices for indices in members if len(indices)]


def _means(frequencies: Tensor, bins: list[Tensor]) -> Float[Tensor, "bin"]:
    return torch.stack([frequencies[members].mean() for members in bins])


def _mean_cross_power(waves: Tensor, bins: list[Tensor]) -> Tensor:
    """Mean over each bin of the outer products of the Fourier coefficients."""
    power = []
    for members in bins:
        selected = waves[..., members]
        power.append(selected @ selected.mH / len(members))
    return torch.stack(power, -3)


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
        """x, at: equilibrium and linearisation, where they are known already."""
        self.brain = brain
        self.cleaning = cleaning
        self._x = x
        self._at = at

    @cached_property
    def x(self) -> Tensor:
        """States at the equilibrium."""
        return fixed_point(self.brain) if self._x is None else self._x

    @cached_property
    def at(self) -> Linearisation:
        """The brain linearised at its equilibrium."""
        return linearise(self.brain, self.x) if self._at is None else self._at

    @cached_property
    def covariance(self) -> Tensor:
        # One linear system instead of one per frequency, where that is all there is.
        if not self._needs_spectrum():
            return self.cleaning.covariance(self._slow_covariance())
        return self.cleaning.covariance(self._band_covariance())

    def _band_covariance(self) -> Float[Tensor, "*batch region region"]:
        """The cross-spectrum integrated over the band."""
        edges = self.cleaning.edges_of_bins(self.brain.sensor.tr).to(self.x)
        centres = (edges[1:] + edges[:-1]) / 2
        widths = edges[1:] - edges[:-1]
        # Real, because negative frequencies have the conjugate; twice for the same
        # reason.
        power = self.cross_spectrum(centres).real
        return 2 * (power * widths[:, None, None]).sum(-3)

    def _slow_covariance(self) -> Tensor:
        """Covariance of BOLD where neurons are fast against it: the zero-frequency
        covariance of the neurons, times the power that BOLD lets through."""
        slow = slow_covariance(self.brain, self.at)
        noise = self.brain.sensor.noise
        # Without measurement noise the scale does not matter to a correlation.
        if not isinstance(noise, Tensor) and noise == 0:
            return slow
        amplitude = self._response_amplitude(slow)
        noise = torch.as_tensor(noise, dtype=slow.dtype, device=slow.device)
        level = noise.square() + torch.zeros_like(amplitude)
        signal = amplitude.unsqueeze(-1) * slow * amplitude.unsqueeze(-2)
        return signal + torch.diag_embed(level)

    def _response_amplitude(self, like: Tensor) -> Float[Tensor, "*batch region"]:
        """Root of the power that the sensor's response lets through."""
        f = torch.linspace(0.0, 1.0, 201, dtype=like.dtype, device=like.device)[1:]
        activity = self.brain.mass.activity(self.x)
        passed = transfer_function(self.brain.sensor.response, activity, f)
        # The mean over 1 Hz is the integral; twice, for negative frequencies.
        return (2 * passed.abs().square().mean(-2)).sqrt()

    def _needs_spectrum(self) -> bool:
        """Whether connectivity depends on frequency, so that the zero-frequency
        covariance is not enough."""
        if self.cleaning.band is not None:
            return True
        if self.brain.delays() is not None:
            return True
        if self.brain.sensor.leadfield is not None:
            return True
        parameters = vars(self.brain.sensor.response).values()
        return any(_is_regional(value) for value in parameters)

    def cross_spectrum(self, frequencies: Tensor) -> Tensor:
        """Cross-spectral density (*batch, frequency, region, region), complex."""
        return cross_spectrum(self.brain, frequencies, self.x, self.at)

    def psd(self, frequencies: Tensor) -> Tensor:
        return self.cross_spectrum(frequencies).real.diagonal(dim1=-2, dim2=-1).mT

    @property
    def lag_one(self) -> Tensor:
        tr = self.brain.sensor.tr
        # Wiener-Khinchin: the autocovariance is the cosine transform of the spectrum,
        # from as slow as a scan can see up to the Nyquist frequency.
        f = torch.linspace(0.002, 0.5 / tr, 60, dtype=self.x.dtype)
        power = self.psd(f)
        cosine = torch.cos(2 * torch.pi * f * tr)
        return (power * cosine).sum(-1) / power.sum(-1)

    @property
    def rate(self) -> Tensor:
        return firing_rate(self.brain, self.x)


def _is_regional(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim > 0 and value.shape[-1] > 1


class Simulated(View):
    """Free-running simulations of a brain, (run, *batch, region, time); connectivity,
    spectra and lags are means over runs."""

    method = "simulated"

    def __init__(
        self, brain: Brain, signal: TimeSeries, cleaning: Cleaning = Cleaning()
    ) -> None:
        self.brain = brain
        self.raw = signal
        self._cleaned = cleaning.series(signal)

    @cached_property
    def covariance(self) -> Tensor:
        return covariance(self._cleaned.data).mean(0)

    @property
    def series(self) -> TimeSeries:
        return self._cleaned

    @property
    def uncleaned(self) -> TimeSeries:
        return self.raw

    @property
    def lag_one(self) -> Tensor:
        return lag_one(self.uncleaned.data).mean(0)

    def psd(self, frequencies: Tensor) -> Tensor:
        return binned(*psd(self.raw.data, self.raw.tr), frequencies).mean(0)

    @property
    def rate(self) -> Tensor:
        return firing_rate(self.brain, fixed_point(self.brain))


def binned(
    f: Tensor, power: Tensor, centres: Float[Tensor, "bin"]
) -> Float[Tensor, "... bin"]:
    """Mean power around every centre (Hz, ascending), half-way to its neighbours; power
    beyond the outer bins does not count.

    Raises InputError for a bin that holds no frequency.
    """
    members = _membership(f, _edges_between(centres).to(f)).to(power)
    count = members.sum(0)
    if not (count > 0).all():
        raise InputError(
            f"A signal of {1 / f[0].item():.3g} s cannot fill {len(centres)} frequency "
            f"bins from {centres[0].item():.3g} to {centres[-1].item():.3g} Hz: ask "
            "for fewer bins, or a narrower band."
        )
    return power @ (members / count)


def _membership(f: Tensor, edges: Tensor) -> Tensor:
    """Whether a frequency belongs to a bin, (frequency, bin)."""
    frequency = f.unsqueeze(-1)
    return (frequency >= edges[:-1]) & (frequency < edges[1:])


def _edges_between(centres: Float[Tensor, "bin"]) -> Float[Tensor, "edge"]:
    """Boundaries half-way between centres; the outer bins are symmetric."""
    between = (centres[1:] + centres[:-1]) / 2
    first = 2 * centres[:1] - between[:1]
    last = 2 * centres[-1:] - between[-1:]
    return torch.cat([first, between, last])


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
    """Refuse a recording that does not belong to the brain's sensor.

    Raises InputError for other regions, another TR, damaged signals, or too few
    samples.
    """
    if series.regions != regions:
        raise InputError(
            "Recording and connectome must name the same regions in the same order; "
            f"the recording has {len(series.regions)}, the connectome {len(regions)}."
        )
    # Relative: headers round the TR to six digits.
    if abs(series.tr - tr) > 1e-6 * tr:
        raise InputError(
            f"The recording has a TR of {series.tr} s, the brain's sensor {tr} s. Set "
            f"the sensor's: with_values(brain, {{'sensor.tr': {series.tr}}})."
        )
    check_signals(series, "recording")
    _check_length(series.data.shape[-1], len(regions))


def _check_length(samples: int, regions: int) -> None:
    # With fewer, connectivity is mostly noise, or singular even after shrinkage.
    needed = max(20, regions // 4)
    if samples < needed:
        raise InputError(
            f"A recording of {samples} samples is too short for {regions} regions: at "
            f"least {needed} are needed, several hundred for a stable connectivity."
        )
