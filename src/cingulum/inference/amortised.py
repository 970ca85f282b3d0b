"""A posterior that is learned once and then evaluated for any recording: a neural
density of parameters, given summary statistics of a recording.

Neural posterior estimation (Papamakarios and Murray 2016, arXiv:1605.06376; Greenberg
et al. 2019, arXiv:1905.07488) by the library `sbi` (Tejero-Cantero et al. 2020,
doi:10.21105/joss.02505; licence Apache-2.0), which is an extra: `pip install
'cingulum[sbi]'`. It needs no likelihood, and so holds where the linearisation does not;
but it uses no more of a recording than its summary statistics. Check it by
`calibrate(…, posterior=amortised.sampler)`.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.inference.free_parameters import Free, FreeParameter
from cingulum.inference.problem import Problem, Theta, joined, split, unchanged
from cingulum.inference.simulation_calibration import (
    bare_problem,
    simulate_recordings,
    stable_truths,
)
from cingulum.inference.views import Cleaning, check_recording
from cingulum.io.files import write_bytes
from cingulum.measures import edges, fc, lag_one, pearson, psd
from cingulum.progress import track
from cingulum.timeseries import TimeSeries

Summary = Callable[[TimeSeries, Connectome], Float[Tensor, "*batch statistic"]]

FAR = 6.0
"""Training standard deviations beyond which a statistic of a recording counts as unlike
every simulation."""

SEED_OFFSET = 2**40
"""Added to the seed, so that a calibration with the same seed does not test the
posterior on the very recordings that it was trained on."""

BINS = Cleaning(band=(0.008, 0.25), bins=10)
"""Frequency bins of the summary statistics."""


def summary_statistics(
    recorded: TimeSeries, connectome: Connectome
) -> Float[Tensor, "*batch statistic"]:
    """27 numbers of a recording: spectrum, connectivity and its similarity to the
    structure, smoothness.

    10 logarithms of power (unit² per Hz) in bins from 0.008 to 0.25 Hz, mean over
    regions; 10 of the power of the mean signal in the same bins, relative to them (how
    much the regions share at each frequency); mean, standard deviation and the largest
    eigenvalue's share of functional connectivity; its correlation and slope on the
    logarithm of the structural weights; mean and standard deviation over regions of the
    lag-one autocorrelation.
    """
    x = recorded.data
    power = _binned_power(x, recorded.tr)
    # The mean over regions keeps what they share and averages out what they do not.
    shared = _binned_power(x.mean(-2, keepdim=True), recorded.tr)
    single = [*_connectivity_statistics(x, connectome), *_lag_statistics(x)]
    return torch.cat([power.log(), (shared / power).log(), torch.stack(single, -1)], -1)


def _connectivity_statistics(
    x: Float[Tensor, "*batch region time"], connectome: Connectome
) -> list[Float[Tensor, "*batch"]]:
    matrix = fc(x)
    pairs = edges(matrix)
    n = x.shape[-2]
    # A missing connection counts as a very weak one, which has a logarithm.
    structure = edges(connectome.weights).clamp_min(1e-6).log().to(x)
    r = pearson(pairs, structure.expand_as(pairs))
    spread = pairs.std(-1)
    # The eigenvalues of a correlation matrix add up to the number of regions.
    largest_share = torch.linalg.eigvalsh(matrix)[..., -1] / n
    slope = r * spread / structure.std()
    return [pairs.mean(-1), spread.log(), largest_share, r, slope]


def _lag_statistics(
    x: Float[Tensor, "*batch region time"],
) -> list[Float[Tensor, "*batch"]]:
    lag = lag_one(x)
    return [lag.mean(-1), lag.std(-1)]


def _binned_power(
    x: Float[Tensor, "*batch channel time"], tr: float
) -> Float[Tensor, "*batch bin"]:
    """Mean power over channels and the frequencies of each bin."""
    frequencies, power = psd(x, tr)
    members = _bin_members(frequencies, tr).to(power)
    sizes = members.sum(0)
    if not (sizes > 0).all():
        raise InputError(
            f"A recording of {x.shape[-1] * tr:.0f} s is too short for {BINS.bins} "
            "bins of frequency: give a summary=… of your own."
        )
    return power.mean(-2) @ (members / sizes)


def _bin_members(
    frequencies: Float[Tensor, "frequency"], tr: float
) -> Bool[Tensor, "frequency bin"]:
    limits = BINS.edges_of_bins(tr).to(frequencies)
    column = frequencies.unsqueeze(-1)
    # Half-open, so that no frequency belongs to two bins.
    return (column >= limits[:-1]) & (column < limits[1:])


@dataclass(frozen=True)
class Network:
    """The density estimator. kind: a name of `sbi.neural_nets.posterior_nn` (maf, nsf,
    zuko_nsf, mdn)."""

    kind: str = "maf"
    hidden: int = 50
    transforms: int = 5


@dataclass(frozen=True, eq=False)
class Amortised:
    """A learned posterior, for recordings of one length by one sensor, over one
    connectome.

    problem: defines the coordinates; summary: the statistics that the network is given
    centre, spread: mean and standard deviation of each statistic over the training
        simulations
    simulations: how many; samples: length of each
    """

    problem: Problem
    estimator: Any
    network: Network
    summary: Summary
    centre: Float[Tensor, "statistic"]
    spread: Float[Tensor, "statistic"]
    simulations: int
    samples: int

    @property
    def names(self) -> list[str]:
        return self.problem.coordinate_names()

    def sample(self, recorded: TimeSeries, count: int, seed: int = 0) -> Theta:
        """Draws (count, *batch, size) of the coordinates, by path, as
        `Posterior.sample` returns them.

        Raises InputError for a recording of another sensor or length; warns of one
        unlike all simulations.
        """
        self._check(recorded)
        statistics = self.summary(recorded, self.problem.brain.connectome)
        self._warn_if_unlike(statistics)
        draws = self._draws(statistics, count, seed)
        return split(self.problem, draws.to(self._like))

    def _draws(
        self, statistics: Float[Tensor, "*batch statistic"], count: int, seed: int
    ) -> Float[Tensor, "draw *batch coordinate"]:
        # sbi takes one batch dimension; here there may be none, or several.
        rows = statistics.reshape(-1, statistics.shape[-1])
        with _single_precision(seed), torch.no_grad():
            draws = self.estimator.sample((count,), rows.float())
        return draws.reshape(count, *statistics.shape[:-1], -1)

    def sampler(
        self, problem: Problem, count: int, seed: int
    ) -> Float[Tensor, "draw recording coordinate"]:
        """Draws for the recordings of a problem: the `PosteriorSampler` that
        `calibrate` takes."""
        return joined(self.sample(problem.recorded.raw, count, seed))

    def table(
        self, recorded: TimeSeries, level: float = 0.9, count: int = 1000, seed: int = 0
    ) -> pd.DataFrame:
        """Tidy: one row per recording and coordinate: parameter, region, estimate
        (median), low, high, in the parameter's unit for plain parameters; slopes of
        maps and gains stay coordinates."""
        sides = self._sides(recorded, level, count, seed)
        rows = []
        for index in np.ndindex(*sides.shape[1:-1]):
            for k, name in enumerate(self.names):
                values = sides[(slice(None), *index, k)].tolist()
                rows.append(_table_row(index, name, values))
        return pd.DataFrame(rows)

    def _sides(
        self, recorded: TimeSeries, level: float, count: int, seed: int
    ) -> Float[Tensor, "side *batch coordinate"]:
        """Median, lower and upper limit of every coordinate."""
        shares = [0.5, 0.5 - level / 2, 0.5 + level / 2]
        # `torch.quantile` wants shares of the same dtype as the values.
        quantiles = torch.tensor(shares, dtype=self._like.dtype)
        parts = []
        for path, theta in self.sample(recorded, count, seed).items():
            values = _in_units(self.problem.free_parameters[path], theta)
            parts.append(torch.quantile(values, quantiles, dim=0))
        return torch.cat(parts, -1)

    @property
    def _like(self) -> Tensor:
        """A tensor of the brain's dtype."""
        return self.problem.brain.connectome.weights

    def _check(self, recorded: TimeSeries) -> None:
        brain = self.problem.brain
        check_recording(recorded, _channels(brain), brain.sensor.tr)
        samples = recorded.data.shape[-1]
        if samples != self.samples:
            raise InputError(
                f"This posterior was learned from {self.samples} samples, the "
                f"recording has {samples}: learn one for its length, or cut the "
                "recording with `between`."
            )

    def _warn_if_unlike(self, statistics: Float[Tensor, "*batch statistic"]) -> None:
        far = int(self._is_far(statistics).sum())
        if far:
            warnings.warn(
                f"{far} recording(s) lie more than {FAR:g} standard "
                "deviations from every simulation this "
                "posterior was learned from: their intervals mean little.",
                stacklevel=3,
            )

    def _is_far(
        self, statistics: Float[Tensor, "*batch statistic"]
    ) -> Bool[Tensor, "*batch"]:
        distance = ((statistics - self.centre) / self.spread).abs()
        return distance.amax(-1) > FAR

    def save(self, path: str | Path) -> None:
        """The network's numbers and what is needed to read them again; plain, written
        whole or not at all."""
        buffer = io.BytesIO()
        torch.save(self._state(), buffer)
        write_bytes(Path(path), buffer.getvalue())

    def _state(self) -> dict[str, object]:
        brain = self.problem.brain
        return {
            "network": asdict(self.network),
            "weights": self.estimator.state_dict(),
            "names": self.names,
            "channels": list(_channels(brain)),
            "tr": float(brain.sensor.tr),
            "numbers": [self.centre, self.spread],
            "counts": [self.simulations, self.samples],
        }


def _channels(brain: Brain) -> tuple[str, ...]:
    return brain.sensor.channels or brain.regions


def _in_units(kind: FreeParameter, theta: Tensor) -> Tensor:
    """Values of plain parameters; coordinates of others (slopes of maps, gains), which
    have no unit."""
    # Plain parameters are those that have one transform for every coordinate.
    if hasattr(kind, "transform"):
        return kind.value(theta)
    return theta


@dataclass(frozen=True)
class _TableRow:
    recording: int
    parameter: str
    region: str
    estimate: float
    low: float
    high: float


def _table_row(index: tuple[int, ...], name: str, sides: list[float]) -> _TableRow:
    # "noise r3" is the noise of region r3; a global parameter has no region.
    parameter, _, region = name.partition(" ")
    estimate, low, high = sides
    recording = index[0] if index else 0
    return _TableRow(recording, parameter, region, estimate, low, high)


# Each option is set by its name, and has the name that it has in `calibrate`.
def amortise(  # noqa: PLR0913
    brain: Brain,
    free: Mapping[str, Free],
    *,
    simulations: int = 5000,
    duration: float = 864.0,
    summary: Summary = summary_statistics,
    prepare: Callable[[Brain], Brain] = unchanged,
    network: Network = Network(),
    batch: int = 100,
    dt: float | None = None,
    epochs: int = 500,
    seed: int = 0,
    show_progress: bool = False,
) -> Amortised:
    """Learn the posterior of every recording of this length: simulate from the priors,
    and fit a neural density.

    simulations: recordings of `duration` seconds to learn from; thousands, `batch` of
        them side by side
    summary: (recording, connectome) → statistics, a function of your own or
        `summary_statistics`
    epochs: at most so many passes; it stops when a tenth held out has not improved for
        twenty

    Raises InputError if `sbi` is not installed.
    """
    # Before the simulations, which take long and would be in vain.
    _sbi()
    seed += SEED_OFFSET
    # The share of refused draws is of no use here: `calibrate` reports it.
    truths, _ = stable_truths(brain, free, simulations, prepare, seed)
    problem = bare_problem(brain, free, prepare)
    parts = []
    for first in track(range(0, simulations, batch), "simulations", show=show_progress):
        recorded = simulate_recordings(
            problem,
            truths[first : first + batch],
            duration,
            dt=dt,
            seed=seed + 1 + first,
        )
        # Only the statistics are kept: thousands of recordings would fill the memory.
        parts.append(summary(recorded, brain.connectome))
    statistics = torch.cat(parts)
    return Amortised(
        problem=problem,
        estimator=_trained(network, truths, statistics, epochs, seed),
        network=network,
        summary=summary,
        centre=statistics.mean(0),
        spread=statistics.std(0),
        simulations=simulations,
        samples=recorded.data.shape[-1],
    )


def load_amortised(
    path: str | Path,
    brain: Brain,
    free: Mapping[str, Free],
    *,
    prepare: Callable[[Brain], Brain] = unchanged,
    summary: Summary = summary_statistics,
) -> Amortised:
    """A posterior that was saved; brain, free, prepare and summary are those it was
    learned with.

    Raises InputError if the file is not a saved posterior, or belongs to other
    parameters, regions or TR.
    """
    _sbi()
    problem = bare_problem(brain, free, prepare)
    saved = _read(path)
    _check_same_problem(path, saved, problem)
    return Amortised(
        problem=problem,
        estimator=_restored(saved),
        network=saved.network,
        summary=summary,
        centre=saved.centre,
        spread=saved.spread,
        simulations=saved.simulations,
        samples=saved.samples,
    )


@dataclass(frozen=True, eq=False)
class _Saved:
    """The content of a file that `Amortised.save` wrote."""

    network: Network
    weights: Mapping[str, Tensor]
    names: list[str]
    channels: list[str]
    tr: float
    centre: Float[Tensor, "statistic"]
    spread: Float[Tensor, "statistic"]
    simulations: int
    samples: int


def _read(path: str | Path) -> _Saved:
    # Whatever a file holds that is not such a content fails somewhere in here, in one
    # of many ways.
    try:
        state = torch.load(path, weights_only=True)
        centre, spread = state["numbers"]
        simulations, samples = state["counts"]
        return _Saved(
            network=Network(**state["network"]),
            weights=state["weights"],
            names=state["names"],
            channels=state["channels"],
            tr=state["tr"],
            centre=centre,
            spread=spread,
            simulations=simulations,
            samples=samples,
        )
    except Exception as error:
        raise InputError(f"{path} is not a saved posterior ({error}).") from None


def _check_same_problem(path: str | Path, saved: _Saved, problem: Problem) -> None:
    brain = problem.brain
    names = problem.coordinate_names()
    channels = list(_channels(brain))
    tr = float(brain.sensor.tr)
    if (saved.names, saved.channels, saved.tr) != (names, channels, tr):
        raise InputError(
            f"{path} was learned for {saved.names} at a TR of {saved.tr} s and "
            f"{len(saved.channels)} channels."
        )


def _restored(saved: _Saved) -> Any:
    """The density estimator with its saved weights."""
    estimator = _of_size(saved.network, len(saved.names), len(saved.centre))
    estimator.load_state_dict(saved.weights)
    estimator.eval()
    return estimator


def _of_size(network: Network, coordinates: int, statistics: int) -> Any:
    """An estimator with weights at random."""
    # sbi takes the sizes of a network from examples.
    with _single_precision(0):
        theta = torch.randn(8, coordinates)
        return _untrained(network)(theta, torch.randn(8, statistics))


def _trained(
    network: Network, truths: Tensor, statistics: Tensor, epochs: int, seed: int
) -> Any:
    """The trained density estimator, in single precision."""
    with _single_precision(seed):
        trainer = _trainer(network)
        trainer.append_simulations(truths.float(), statistics.float())
        estimator = trainer.train(max_num_epochs=epochs)
    # Out of training mode: draws must not depend on what else is in a batch.
    estimator.eval()
    return estimator


def _trainer(network: Network) -> Any:
    return _sbi().inference.NPE(
        density_estimator=_untrained(network),
        show_progress_bars=False,
        tracker=_SilentTracker(),
    )


def _untrained(network: Network) -> Callable[[Tensor, Tensor], Any]:
    """Builds an estimator from examples of coordinates and statistics."""
    return _sbi().neural_nets.posterior_nn(
        model=network.kind,
        hidden_features=network.hidden,
        num_transforms=network.transforms,
    )


@contextmanager
def _single_precision(seed: int) -> Iterator[None]:
    """sbi draws from torch's global generator and builds in its default dtype: both are
    put back afterwards."""
    before = torch.get_default_dtype()
    # devices=[]: the generators of accelerators are not used, and slow to copy.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class _SilentTracker:
    """A tracker that writes nothing: sbi's own leaves a folder of TensorBoard logs in
    the current directory."""

    log_dir = None

    def log_metric(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, *_: Any, **__: Any) -> None: ...

    def log_params(self, *_: Any, **__: Any) -> None: ...

    def add_figure(self, *_: Any, **__: Any) -> None: ...

    def flush(self) -> None: ...


def _sbi() -> Any:
    """The library, imported when it is first needed, for it takes seconds."""
    try:
        import sbi.inference
        import sbi.neural_nets
    except ImportError as error:
        raise InputError(
            f"The amortised posterior needs the library sbi ({error}): pip install "
            "'cingulum[sbi]'."
        ) from None
    return sbi
