"""Uncertainty of a fit: the curvature at its best point, combinations of parameters
that the data do not determine, and profiles of single parameters."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from scipy.linalg import eigh
from scipy.stats import norm
from torch import Tensor

from cingulum.errors import InputError
from cingulum.inference.fitting import Fit
from cingulum.inference.newton_fit import prior_sd, slope_and_curvature, times
from cingulum.inference.optimise import OptimiserSettings, search
from cingulum.inference.problem import Assessment, Problem, Theta, joined, split
from cingulum.inference.stability_limits import LOOP_GAIN_LIMIT, PENALTY_START

IDENTIFIABLE_PRECISION = 2.0
"""Precision, relative to the prior's, below which a direction is called not
identifiable: the data add less than the prior knew."""

MAX_COORDINATES = 1000
"""Coordinates beyond which no Hessian is computed: it takes two gradients for each."""

PROPOSAL_DF = 6
"""Degrees of freedom of the proposals of `reweighed`: tails heavier than the
posterior's, so that no weight is unbounded."""

PROPOSALS_AT_ONCE = 4
"""Proposals that are evaluated together, as far as memory allows."""

UNFINISHED = 0.1
"""Decrease of minus the log posterior still to be had from which a fit is reported as
not converged."""

INSIDE_RISE = 1.353
"""Rise of minus the log posterior at the ends of the 90 % interval: half the 0.9
quantile of χ² with one degree of freedom."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """A normal distribution around the best point, in the fit's unconstrained
    coordinates; one per recording.

    It is calibrated where the objective is a likelihood (`Likelihood`); under a
    connectivity objective it says which parameters the objective distinguishes, on a
    scale that is a convention.

    precision: the Hessian of minus the log posterior
    prior: prior standard deviation of each coordinate: 1 / √curvature of the prior's
        own density there
    """

    problem: Problem
    names: tuple[str, ...]
    mean: Float[Tensor, "*batch coordinate"]
    precision: Float[Tensor, "*batch coordinate coordinate"]
    prior: Float[Tensor, "*batch coordinate"]

    @property
    def covariance(self) -> Float[Tensor, "*batch coordinate coordinate"]:
        """Inverse of the precision, with flat directions limited by the prior."""
        rows, columns = self.prior.unsqueeze(-1), self.prior.unsqueeze(-2)
        # In units of the prior, no direction is less certain than the prior made it.
        values, vectors = torch.linalg.eigh(rows * self.precision * columns)
        inverse = vectors @ torch.diag_embed(1 / values.clamp_min(1.0)) @ vectors.mT
        return rows * inverse * columns

    @property
    def sd(self) -> Float[Tensor, "*batch coordinate"]:
        """Standard deviation of each coordinate."""
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()

    def table(self, level: float = 0.9) -> pd.DataFrame:
        """Estimates and intervals, one row per recording and coordinate: recording,
        parameter, region, estimate, low, high (in the parameter's unit for plain
        parameters), and `shrinkage`, 1 − (posterior sd / prior sd)²: 0 where the data
        contain nothing on the parameter."""
        # Ends are transformed, not standard deviations: the interval of a LogNormal
        # parameter is as skewed as the parameter.
        half_width = norm.ppf(0.5 + level / 2) * self.sd
        columns = {
            "estimate": self.reported(self.mean),
            "low": self.reported(self.mean - half_width),
            "high": self.reported(self.mean + half_width),
            "shrinkage": 1 - (self.sd / self.prior) ** 2,
        }
        table = self._labels()
        for column, values in columns.items():
            table[column] = values.flatten().double().numpy()
        return table

    def _labels(self) -> pd.DataFrame:
        """Recording, parameter and region of every row of the table."""
        rows = []
        for index in np.ndindex(*self.mean.shape[:-1]):
            # A fit to a single recording has no batch axis.
            recording = index[0] if index else 0
            for name in self.names:
                path, _, region = name.partition(" ")
                rows.append((recording, path, region))
        return pd.DataFrame(rows, columns=["recording", "parameter", "region"])

    def reported(self, theta: Tensor) -> Float[Tensor, "*batch coordinate"]:
        """Coordinates in the parameters' units; slopes of maps and gains of connections
        stay coordinates."""
        parameters = self.problem.free_parameters
        parts = [
            parameters[path].reported(part)
            for path, part in split(self.problem, theta).items()
        ]
        return torch.cat(parts, -1)

    def sample(self, count: int, seed: int = 0) -> Theta:
        """Draws (count, *batch, size) of the coordinates, by path."""
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(
            count, *self.mean.shape, generator=generator, dtype=self.mean.dtype
        )
        return split(self.problem, self.at_deviation(z))

    def at_deviation(self, z: Tensor) -> Float[Tensor, "*draws coordinate"]:
        """Coordinates at standard normal deviations from the mean."""
        return self.mean + times(torch.linalg.cholesky(self.covariance), z)

    def directions(self, recording: int | None = None) -> pd.DataFrame:
        """Combinations of parameters, least certain first: how precise each is, and
        what it consists of.

        `precision` is relative to the prior's (1: the data contain nothing);
        `identifiable` is precision ≥ 2. Directions are eigenvectors of the Hessian in
        units of the prior: a row such as "+0.72 strength −0.69 mass.w_plus" with low
        precision is a ridge: only the other combination of the two is determined.

        recording: index; needed where there are several

        Raises InputError for several recordings and no index.
        """
        if self.mean.ndim > 1 and recording is None:
            raise InputError(
                f"Name one of the {self.mean.shape[0]} recordings: "
                "directions(recording=0)."
            )
        index = ... if recording is None else recording
        prior = self.prior[index]
        relative = prior.unsqueeze(-1) * self.precision[index] * prior
        values, vectors = eigh(relative.numpy())
        return pd.DataFrame(
            {
                # Slightly negative where the search ended beside the optimum.
                "precision": np.maximum(values, 0.0),
                "direction": [_direction(self.names, vector) for vector in vectors.T],
                "identifiable": values >= IDENTIFIABLE_PRECISION,
            }
        )


def _direction(names: tuple[str, ...], weights: np.ndarray, most: int = 4) -> str:
    """The largest weights of a combination with their names, the first positive."""
    order = np.argsort(-np.abs(weights))[:most]
    # The sign of an eigenvector is arbitrary.
    weights = weights * np.sign(weights[order[0]])
    parts = [
        f"{weights[index]:+.2f} {names[index]}"
        for index in order
        if abs(weights[index]) > 0.1
    ]
    return " ".join(parts).replace("-", "−")


def laplace(fit: Fit, step: float = 1e-3) -> Posterior:
    """Laplace's approximation: the Hessian of minus the log posterior at the best
    point, by differences of gradients.

    step: of the differences, in prior standard deviations. Every coordinate takes two
        gradients of the objective, so regional parameters take a while

    Warns where the search had not converged, and where the limit of stability, not the
    data, bounds a coordinate. Raises InputError for estimates of the simulated method,
    or more than 1000 coordinates.
    """
    _check_has_curvature(fit)
    problem = fit.problem
    mean = joined(fit.theta)
    slope, curvature = slope_and_curvature(problem, mean, step)
    # Both are per prior standard deviation.
    unit = prior_sd(problem)
    posterior = Posterior(
        problem=problem,
        names=tuple(fit.coordinates()),
        mean=mean,
        precision=curvature / unit.unsqueeze(-1) / unit,
        prior=_prior_sd_at(problem, mean),
    )
    _warn_if_unfinished(posterior, slope / unit)
    _warn_if_at_limit(fit)
    return posterior


def _check_has_curvature(fit: Fit) -> None:
    if "simulated" in fit.method:
        raise InputError(
            "Curvature is that of the analytic method: fit with method='analytic'."
        )
    count = len(fit.coordinates())
    if count > MAX_COORDINATES:
        raise InputError(
            f"{count} coordinates are too many for a Hessian; use `profile` for those "
            "of interest."
        )


def _warn_if_unfinished(posterior: Posterior, slope: Tensor) -> None:
    """slope: gradient of minus the log posterior, per coordinate."""
    # The decrease that a Newton step from here promises.
    left = slope.unsqueeze(-2) @ posterior.covariance @ slope.unsqueeze(-1)
    decrease = left.squeeze((-2, -1)) / 2
    if (decrease > UNFINISHED).any():
        warnings.warn(
            "The fit had not arrived: minus the log posterior would still fall by "
            f"{decrease.max().item():.2g}. Take more steps or optimiser='Newton'; "
            "intervals around this point mean little.",
            stacklevel=3,
        )


def _warn_if_at_limit(fit: Fit) -> None:
    if (fit.loop_gain > PENALTY_START * LOOP_GAIN_LIMIT).any():
        warnings.warn(
            f"A fit ended at loop gain {fit.loop_gain.max().item():.3f}, where the "
            f"search stops ({LOOP_GAIN_LIMIT:g}): the limit of stability bounds its "
            "estimates as much as the data do.",
            stacklevel=3,
        )


def _prior_sd_at(problem: Problem, mean: Tensor) -> Tensor:
    """1 / √curvature of minus the log prior; the prior's standard deviation where it
    does not curve upwards."""
    row = mean.detach().clone().requires_grad_()
    with torch.enable_grad():
        minus_log = -problem.log_prior(split(problem, row)).sum()
        (slope,) = torch.autograd.grad(minus_log, row, create_graph=True)
        # Priors are independent: the Hessian is diagonal, the sum of its columns too.
        (curvature,) = torch.autograd.grad(slope.sum(), row)
    return torch.where(
        curvature > 0,
        curvature.clamp_min(1e-12).rsqrt(),
        prior_sd(problem).to(row),
    )


def reweighed(
    posterior: Posterior, count: int, seed: int = 0, proposals: int = 200
) -> tuple[Theta, Tensor]:
    """Draws of the posterior itself, skewed where it is: proposals around Laplace's
    approximation with heavier tails, resampled by their weights.

    Sampling importance resampling (Rubin 1988), with a t distribution in place of the
    normal one. For a few coordinates only; every proposal takes one evaluation of the
    objective, and those without a stable equilibrium have no weight.

    Returns draws (count, *batch, size) by path, and the effective share of the
    proposals (*batch): the normal approximation is good near 1, and below 0.1 neither
    it nor these draws should be trusted.
    """
    problem = posterior.problem
    generator = torch.Generator().manual_seed(seed)
    z = _t_deviations(posterior.mean, proposals, generator)
    rows = posterior.at_deviation(z)
    log_ratio = _log_posterior(problem, rows) - _log_t_density(z)
    # Without any stable proposal every weight is NaN: uniform ones then.
    weights = torch.softmax(log_ratio, 0).nan_to_num(1 / proposals)
    draws = _resampled(rows, weights, count, generator)
    effective = 1 / weights.square().sum(0) / proposals
    return split(problem, draws), effective


def _resampled(
    rows: Tensor, weights: Tensor, count: int, generator: torch.Generator
) -> Float[Tensor, "draw *batch coordinate"]:
    """Proposals drawn with replacement by their weights, for each batch member."""
    by_member = weights.reshape(len(weights), -1).T
    chosen = torch.multinomial(
        by_member, count, replacement=True, generator=generator
    ).T
    index = chosen.reshape(count, *weights.shape[1:], 1)
    return rows.gather(0, index.expand(count, *rows.shape[1:]))


def _t_deviations(
    mean: Tensor, proposals: int, generator: torch.Generator
) -> Float[Tensor, "proposal *batch coordinate"]:
    """Draws of a multivariate t distribution with `PROPOSAL_DF` degrees of freedom."""
    size = mean.shape[-1]
    normal = torch.randn(
        proposals, *mean.shape[:-1], size + PROPOSAL_DF, generator=generator
    ).to(mean)
    # Normal over the root of an independent mean square is Student's t.
    mean_square = normal[..., size:].square().mean(-1, keepdim=True)
    return normal[..., :size] / mean_square.sqrt()


def _log_t_density(z: Tensor) -> Float[Tensor, "proposal *batch"]:
    """Logarithm of the density of `_t_deviations`, up to a constant."""
    power = -(PROPOSAL_DF + z.shape[-1]) / 2
    return power * torch.log1p(z.square().sum(-1) / PROPOSAL_DF)


def _log_posterior(problem: Problem, rows: Tensor) -> Tensor:
    """Logarithm of the posterior density up to a constant, −∞ without a stable
    equilibrium."""
    values = []
    with torch.no_grad():
        for part in rows.split(PROPOSALS_AT_ONCE):
            assessment = problem.analytic(split(problem, part))
            valid = assessment.stable & torch.isfinite(assessment.loss)
            values.append(torch.where(valid, -assessment.loss, -torch.inf))
    return torch.cat(values)


def profile(
    fit: Fit,
    coordinate: str,
    *,
    spread: float = 3.0,
    points: int = 15,
    steps: int = 60,
    rate: float = 0.05,
    posterior: Posterior | None = None,
    show_progress: bool = False,
) -> pd.DataFrame:
    """Profile likelihood of one coordinate: the best fit of all others while it is
    fixed at each of `points` values.

    coordinate: a name of `fit.coordinates()`
    spread: how far to go, in posterior standard deviations
    posterior: of the fit, where it is known already

    Returns one row per point: value, `rise` of minus the log posterior above its
    lowest, and `inside`, whether the point belongs to the 90 % interval (rise < 1.35).
    A flat profile is a parameter that the data do not determine, however narrow its
    Laplace interval may be.

    Raises InputError for an unknown coordinate or a fit to several recordings.
    """
    position = _position_of(coordinate, fit)
    posterior = posterior or laplace(fit)
    offsets = torch.linspace(-spread, spread, points, dtype=posterior.mean.dtype)
    begin = joined(fit.theta) + _along(posterior, position, offsets)
    # Steps in proportion to the width over which the points are spread.
    settings = OptimiserSettings(
        steps=steps,
        rate=rate * float(posterior.sd.mean()),
        show_progress=show_progress,
    )
    result = search(
        _with_fixed(fit.problem, position, begin[:, position]),
        split(fit.problem, begin),
        settings,
        method="profile",
    )
    rise = result.loss - result.loss.min()
    return pd.DataFrame(
        {
            "value": posterior.reported(begin)[:, position],
            "rise": rise,
            "inside": rise < INSIDE_RISE,
        }
    )


def _position_of(coordinate: str, fit: Fit) -> int:
    names = fit.coordinates()
    if coordinate not in names:
        raise InputError(
            f"No coordinate {coordinate!r}; there are: {', '.join(names[:12])} …"
        )
    if fit.fc_r.ndim:
        raise InputError(
            "A profile is of a fit to one recording; this one has "
            f"{fit.fc_r.numel()}. Fit the recording alone."
        )
    return names.index(coordinate)


def _along(
    posterior: Posterior, position: int, deviations: Float[Tensor, "point"]
) -> Float[Tensor, "point coordinate"]:
    """Moves of all coordinates when one moves by so many standard deviations: the
    others as the normal approximation expects them, given this one."""
    covariance = posterior.covariance
    slopes = covariance[:, position] / covariance[position, position]
    offsets = deviations * posterior.sd[position]
    return offsets.unsqueeze(-1) * slopes


def _with_fixed(
    problem: Problem, position: int, values: Float[Tensor, "point"]
) -> Callable[[Theta, int], Assessment]:
    """The loss with one coordinate fixed, at another value for every point."""

    def assess(theta: Theta, step: int) -> Assessment:
        row = joined(theta)
        # By a mask instead of an assignment, through which gradients would not go.
        free = torch.ones_like(row[0])
        free[position] = 0.0
        fixed_row = row * free + values.unsqueeze(-1) * (1 - free)
        return problem.analytic(split(problem, fixed_row))

    return assess
