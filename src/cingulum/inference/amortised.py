"""A posterior that is learned once and asked often: a neural density of coordinates
given a few numbers of a recording.

Neural posterior estimation (Papamakarios and Murray 2016, arXiv:1605.06376; Greenberg
et al. 2019, arXiv:1905.07488) by the library `sbi` (Tejero-Cantero et al. 2020,
doi:10.21105/joss.02505; licence Apache-2.0), which is an extra: `pip install
'cingulum[sbi]'`. It needs no likelihood, hence also holds where the linearisation does
not; it knows no more of a recording than the statistics it is shown. Check it by
`calibrate(…, posterior=amortised.maker)`.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.connectome import Connectome
from cingulum.errors import InputError
from cingulum.inference.free_parameters import Free
from cingulum.inference.problem import Problem, Theta, joined, split
from cingulum.inference.simulation_calibration import (
    bare_problem,
    recordings_of,
    stable_truths,
)
from cingulum.inference.views import Cleaning, check_recording
from cingulum.measures import edges, fc, lag_one, pearson, psd
from cingulum.progress import track
from cingulum.timeseries import TimeSeries

Summary = Callable[[TimeSeries, Connectome], Float[Tensor, "*batch statistic"]]

FAR = 6.0
"""Training standard deviations beyond which a statistic of a recording is called unlike
all that was learned from."""


OWN_SEEDS = 2**40
"""Added to the seed, so that a calibration with the same one does not ask about the
very recordings learned from."""


def statistics(
    recorded: TimeSeries, connectome: Connectome
) -> Float[Tensor, "*batch statistic"]:
    """27 numbers of a recording: level, spectrum, connectivity and its likeness to the
    structure, roughness.

    10 logarithms of power (unit² per Hz) in bins from 0.008 to 0.25 Hz, mean over
    regions; 10 of the power of the mean signal in the same bins, relative to them (how
    much the regions share at each frequency); mean, standard deviation and the largest
    eigenvalue's share of functional connectivity; its correlation and slope on the
    logarithm of the structural weights; mean and standard deviation over regions of the
    lag-one autocorrelation.
    """
    x, n = recorded.data, recorded.data.shape[-2]
    own, shared = (_binned(y, recorded.tr) for y in (x, x.mean(-2, keepdim=True)))
    matrix = fc(x)
    pairs, structure = (
        edges(matrix),
        edges(connectome.weights).clamp_min(1e-6).log().to(x),
    )
    r = pearson(pairs, structure.expand_as(pairs))
    largest, lag = torch.linalg.eigvalsh(matrix)[..., -1] / n, lag_one(x)
    spread = pairs.std(-1)
    single = [
        pairs.mean(-1),
        spread.log(),
        largest,
        r,
        r * spread / structure.std(),
        lag.mean(-1),
        lag.std(-1),
    ]
    return torch.cat([own.log(), (shared / own).log(), torch.stack(single, -1)], -1)


def _binned(x: Tensor, tr: float, bins: int = 10) -> Float[Tensor, "*batch bin"]:
    """Mean power over channels and the frequencies of each bin, bins as in
    `Cleaning`."""
    f, power = psd(x, tr)
    limits = Cleaning((0.008, 0.25), bins=bins).edges_of_bins(tr).to(f)
    share = ((f.unsqueeze(-1) >= limits[:-1]) & (f.unsqueeze(-1) < limits[1:])).to(
        power
    )
    if not (share.sum(0) > 0).all():
        raise InputError(
            f"A recording of {x.shape[-1] * tr:.0f} s is too short for {bins} bins of "
            "frequency: give a summary=… of "
            "your own."
        )
    return power.mean(-2) @ (share / share.sum(0))


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

    problem: what the coordinates are coordinates of; summary: the statistics it is
        shown
    centre, spread: (statistic,) of the simulations it learned from; simulations: how
        many; samples: length of each
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
        return [
            f"{path} {name}".strip()
            for path, kind in self.problem.free_parameters.items()
            for name in kind.names
        ]

    def sample(self, recorded: TimeSeries, count: int, seed: int = 0) -> Theta:
        """Draws (count, *batch, size) of the coordinates, by path, as
        `Posterior.sample` gives them.

        Raises InputError for a recording of another sensor or length; warns of one
        unlike all simulations.
        """
        given = self._condition(recorded)
        with _single_precision(seed), torch.no_grad():
            drawn = self.estimator.sample(
                (count,), given.reshape(-1, given.shape[-1]).float()
            )
        drawn = drawn.reshape(count, *given.shape[:-1], -1).to(
            self.problem.brain.connectome.weights
        )
        return split(self.problem, drawn)

    def maker(
        self, problem: Problem, count: int, seed: int
    ) -> Float[Tensor, "draw recording coordinate"]:
        """Draws for the recordings of a problem: what `calibrate` asks of a
        posterior."""
        return joined(self.sample(problem.recorded.raw, count, seed))

    def table(
        self, recorded: TimeSeries, level: float = 0.9, count: int = 1000, seed: int = 0
    ) -> pd.DataFrame:
        """Tidy: a row a recording and coordinate: parameter, region, estimate (median),
        low, high, in the parameter's unit for plain parameters; slopes of maps and
        gains stay coordinates."""
        sides = torch.tensor(
            [0.5, 0.5 - level / 2, 0.5 + level / 2],
            dtype=self.problem.brain.connectome.weights.dtype,
        )
        parts = []
        for path, part in self.sample(recorded, count, seed).items():
            kind = self.problem.free_parameters[path]
            parts.append(
                torch.quantile(
                    kind.value(part) if hasattr(kind, "transform") else part,
                    sides,
                    dim=0,
                )
            )
        values = torch.cat(parts, -1)
        rows = []
        for index in np.ndindex(*values.shape[1:-1]):
            for k, name in enumerate(self.names):
                path, _, where = name.partition(" ")
                row = {
                    "recording": index[0] if index else 0,
                    "parameter": path,
                    "region": where,
                }
                three = values[(slice(None), *index, k)].tolist()
                rows.append(
                    row | dict(zip(("estimate", "low", "high"), three, strict=True))
                )
        return pd.DataFrame(rows)

    def _condition(self, recorded: TimeSeries) -> Float[Tensor, "*batch statistic"]:
        brain = self.problem.brain
        check_recording(
            recorded, brain.sensor.channels or brain.regions, brain.sensor.tr
        )
        if recorded.data.shape[-1] != self.samples:
            raise InputError(
                f"This posterior was learned from {self.samples} samples, the "
                f"recording has {recorded.data.shape[-1]}: "
                "learn one for its length, or cut the recording with `between`."
            )
        given = self.summary(recorded, brain.connectome)
        far = ((given - self.centre) / self.spread).abs().amax(-1) > FAR
        if far.any():
            warnings.warn(
                f"{int(far.sum())} recording(s) lie more than {FAR:g} standard "
                "deviations from every simulation this "
                "posterior was learned from: their intervals mean little.",
                stacklevel=3,
            )
        return given

    def save(self, path: str | Path) -> None:
        """The network's numbers and what they need to be read again; plain, written
        whole or not at all."""
        path = Path(path)
        brain = self.problem.brain
        state = {
            "network": asdict(self.network),
            "weights": self.estimator.state_dict(),
            "names": self.names,
            "channels": list(brain.sensor.channels or brain.regions),
            "tr": float(brain.sensor.tr),
            "numbers": [self.centre, self.spread],
            "counts": [self.simulations, self.samples],
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        torch.save(state, beside)
        os.replace(beside, path)


def amortise(
    brain: Brain,
    free: Mapping[str, Free],
    *,
    simulations: int = 5000,
    duration: float = 864.0,
    summary: Summary = statistics,
    prepare: Callable[[Brain], Brain] = lambda brain: brain,
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
        `statistics`
    epochs: at most so many passes; it stops when a tenth held out has not improved for
        twenty

    Raises InputError if `sbi` is not installed.
    """
    _sbi()
    seed += OWN_SEEDS
    truths, _ = stable_truths(brain, free, simulations, prepare, seed)
    problem = bare_problem(brain, free, prepare)
    seen = []
    for first in track(range(0, simulations, batch), "simulations", show=show_progress):
        part = truths[first : first + batch]
        recorded = recordings_of(problem, part, duration, dt=dt, seed=seed + 1 + first)
        seen.append(summary(recorded, brain.connectome))
    known = torch.cat(seen)
    estimator = _learned(network, truths, known, epochs, seed)
    samples = recorded.data.shape[-1]
    return Amortised(
        problem,
        estimator,
        network,
        summary,
        known.mean(0),
        known.std(0),
        simulations,
        samples,
    )


def load_amortised(
    path: str | Path,
    brain: Brain,
    free: Mapping[str, Free],
    *,
    prepare: Callable[[Brain], Brain] = lambda brain: brain,
    summary: Summary = statistics,
) -> Amortised:
    """A posterior that was saved; brain, free, prepare and summary are those it was
    learned with.

    Raises InputError if the file is none, or belongs to other parameters, regions or
    TR.
    """
    _sbi()
    problem = bare_problem(brain, free, prepare)
    try:
        state = torch.load(path, weights_only=True)
        (centre, spread), (simulations, samples) = state["numbers"], state["counts"]
        network = Network(**state["network"])
    except Exception as trouble:
        raise InputError(f"{path} is not a saved posterior ({trouble}).") from None
    sizes = (sum(kind.size for kind in problem.free_parameters.values()), len(centre))
    found = Amortised(
        problem, None, network, summary, centre, spread, simulations, samples
    )
    theirs = (state["names"], state["channels"], state["tr"])
    ours = (
        found.names,
        list(brain.sensor.channels or brain.regions),
        float(brain.sensor.tr),
    )
    if theirs != ours:
        raise InputError(
            f"{path} was learned for {theirs[0]} at a TR of {theirs[2]} s and "
            f"{len(theirs[1])} channels."
        )
    with _single_precision(0):
        estimator = _untrained(network)(
            torch.randn(8, sizes[0]), torch.randn(8, sizes[1])
        )
    estimator.load_state_dict(state["weights"])
    estimator.eval()
    return Amortised(
        problem, estimator, network, summary, centre, spread, simulations, samples
    )


def _learned(
    network: Network, truths: Tensor, known: Tensor, epochs: int, seed: int
) -> Any:
    """The trained density estimator, in single precision; the caller's random numbers
    are left alone."""
    with _single_precision(seed):
        trainer = _sbi().inference.NPE(
            density_estimator=_untrained(network),
            show_progress_bars=False,
            tracker=_Silent(),
        )
        trainer.append_simulations(truths.float(), known.float())
        estimator = trainer.train(max_num_epochs=epochs)
    estimator.eval()
    return estimator


def _untrained(network: Network) -> Callable[[Tensor, Tensor], Any]:
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
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_default_dtype(torch.float32)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class _Silent:
    """A tracker that writes nothing: sbi's own makes a folder of TensorBoard logs where
    one stands."""

    log_dir = None

    def log_metric(self, *_: Any, **__: Any) -> None: ...

    def log_metrics(self, *_: Any, **__: Any) -> None: ...

    def log_params(self, *_: Any, **__: Any) -> None: ...

    def add_figure(self, *_: Any, **__: Any) -> None: ...

    def flush(self) -> None: ...


def _sbi() -> Any:
    try:
        import sbi.inference
        import sbi.neural_nets
    except ImportError as trouble:
        raise InputError(
            f"The amortised posterior needs the library sbi ({trouble}): pip install "
            "'cingulum[sbi]'."
        ) from None
    return sbi
