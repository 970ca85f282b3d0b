"""How sure a fit is: the curvature at its best point, what it cannot tell apart, and
profiles of single parameters."""

from __future__ import annotations

import warnings
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
from cingulum.inference.newton_fit import CHUNK, derivatives, prior_sd
from cingulum.inference.optimise import search
from cingulum.inference.problem import LOOP_GAIN, WALL, Problem, Theta, joined, split

WEAK = 2.0
"""Precision, relative to the prior's, below which a direction is called not
identifiable: the data add less than the prior knew."""


@dataclass(frozen=True, eq=False)
class Posterior:
    """A normal distribution around the best point, in the fit's unconstrained
    coordinates, one a recording.

    It is calibrated where the objective is a likelihood (`Likelihood`); under a
    connectivity objective it says what the objective tells apart, on a scale that is a
    convention.

    mean: (*batch, coordinate); precision: (*batch, coordinate, coordinate), the Hessian
        of minus the log posterior
    prior: standard deviation of each coordinate beforehand: 1 / √curvature of the
        prior's own density there
    """

    problem: Problem
    names: tuple[str, ...]
    mean: Float[Tensor, "*batch coordinate"]
    precision: Float[Tensor, "*batch coordinate coordinate"]
    prior: Float[Tensor, "*batch coordinate"]

    @property
    def covariance(self) -> Float[Tensor, "*batch coordinate coordinate"]:
        """Inverse of the precision, flat directions held by the prior."""
        prior, across = self.prior.unsqueeze(-1), self.prior.unsqueeze(-2)
        values, vectors = torch.linalg.eigh(prior * self.precision * across)
        kept = vectors @ torch.diag_embed(1 / values.clamp_min(1.0)) @ vectors.mT
        return prior * kept * across

    @property
    def sd(self) -> Float[Tensor, "*batch coordinate"]:
        return self.covariance.diagonal(dim1=-2, dim2=-1).sqrt()

    def table(self, level: float = 0.9) -> pd.DataFrame:
        """Tidy: a row a recording and coordinate: parameter, region, estimate, low,
        high (in the parameter's unit for plain parameters), and `shrinkage`, 1 −
        (posterior sd / prior sd)²: 0 says that the data said nothing."""
        z = norm.ppf(0.5 + level / 2)
        sides = {
            "estimate": self.mean,
            "low": self.mean - z * self.sd,
            "high": self.mean + z * self.sd,
        }
        values = {side: self._values(theta) for side, theta in sides.items()}
        shrinkage = 1 - (self.sd / self.prior) ** 2
        rows = []
        for index in np.ndindex(*self.mean.shape[:-1]):
            for k, name in enumerate(self.names):
                path, _, where = name.partition(" ")
                row = {
                    "recording": index[0] if index else 0,
                    "parameter": path,
                    "region": where,
                }
                row |= {side: values[side][index][k].item() for side in sides}
                rows.append(row | {"shrinkage": shrinkage[index][k].item()})
        return pd.DataFrame(rows)

    def _values(self, theta: Tensor) -> Tensor:
        """Coordinates in the parameters' units; slopes of maps and gains of connections
        stay coordinates."""
        parts = []
        for path, part in split(self.problem, theta).items():
            kind = self.problem.kinds[path]
            plain = hasattr(kind, "transform")
            parts.append(kind.value(part) if plain else part)
        return torch.cat(parts, -1)

    def sample(self, count: int, seed: int = 0) -> Theta:
        """Draws (count, *batch, size) of the coordinates, by path."""
        generator = torch.Generator().manual_seed(seed)
        root = torch.linalg.cholesky(self.covariance)
        z = torch.randn(
            count, *self.mean.shape, generator=generator, dtype=self.mean.dtype
        )
        return split(self.problem, self.mean + (root @ z.unsqueeze(-1)).squeeze(-1))

    def directions(self, recording: int | None = None) -> pd.DataFrame:
        """Combinations of parameters, the worst known first: how much the data add, and
        what each is made of.

        `precision` is relative to the prior's (1: the data say nothing); `identifiable`
        is precision ≥ 2. Directions
        are eigenvectors of the Hessian in units of the prior: a row such as "+0.72
            strength −0.69 mass.w_plus" with
        low precision is a ridge: only the other combination of the two can be told.
        """
        if self.mean.ndim > 1 and recording is None:
            raise InputError(
                f"Name one of the {self.mean.shape[0]} recordings: "
                "directions(recording=0)."
            )
        at = ... if recording is None else recording
        prior = self.prior[at]
        scaled = (prior.unsqueeze(-1) * self.precision[at] * prior).numpy()
        values, vectors = eigh(scaled)
        rows = [
            (max(v, 0.0), _spelled(self.names, w), v >= WEAK)
            for v, w in zip(values, vectors.T, strict=True)
        ]
        return pd.DataFrame(rows, columns=["precision", "direction", "identifiable"])


def _spelled(names: tuple[str, ...], weights: np.ndarray, most: int = 4) -> str:
    order = np.argsort(-np.abs(weights))[:most]
    weights = weights * np.sign(weights[order[0]])
    shown = [f"{weights[i]:+.2f} {names[i]}" for i in order if abs(weights[i]) > 0.1]
    return " ".join(shown).replace("-", "−")


def laplace(fit: Fit, step: float = 1e-3) -> Posterior:
    """Laplace's approximation: the Hessian of minus the log posterior at the best
    point, by differences of gradients.

    step: of the differences, in prior standard deviations. Every coordinate costs two
    gradients of the objective, so regional parameters take a while and free connection
    weights are refused. Warns where the search had not arrived, and where the limit of
    stability, not the data, bounds a coordinate. Raises InputError for estimates that
    come from the simulated method, or more than 1000 coordinates.
    """
    if "simulated" in fit.method:
        raise InputError(
            "Curvature is that of the analytic method: fit with method='analytic'."
        )
    problem, names = fit.problem, tuple(fit.coordinates())
    if len(names) > 1000:
        raise InputError(
            f"{len(names)} coordinates are too many for a Hessian; use `profile` for "
            "those of interest."
        )
    unit, mean = prior_sd(problem), joined(fit.theta)
    slope, curvature = derivatives(problem, mean, step)
    found = Posterior(
        problem,
        names,
        mean,
        curvature / unit.unsqueeze(-1) / unit,
        _prior_sd_at(problem, mean),
    )
    short = (
        (slope / unit).unsqueeze(-2) @ found.covariance @ (slope / unit).unsqueeze(-1)
    ).squeeze((-2, -1)) / 2
    if (short > 0.1).any():
        warnings.warn(
            "The fit had not arrived: minus the log posterior would still fall by "
            f"{short.max().item():.2g}. Take more "
            "steps or optimiser='Newton'; intervals around this point mean little.",
            stacklevel=2,
        )
    if (fit.loop_gain > WALL * LOOP_GAIN).any():
        warnings.warn(
            f"A fit ended at loop gain {fit.loop_gain.max().item():.3f}, where the "
            f"search stops ({LOOP_GAIN:g}): the "
            "limit of stability bounds its estimates as much as the data do.",
            stacklevel=2,
        )
    return found


def _prior_sd_at(problem: Problem, mean: Tensor) -> Tensor:
    """1 / √curvature of minus the log prior; the prior's standard deviation where it
    does not curve upwards."""
    row = mean.detach().clone().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(
            -problem.log_prior(split(problem, row)).sum(), row, create_graph=True
        )
        (curved,) = torch.autograd.grad(
            slope.sum(), row
        )  # priors are independent: the Hessian is diagonal
    return torch.where(
        curved > 0, curved.clamp_min(1e-12).rsqrt(), prior_sd(problem).to(row)
    )


TAILS = 6
"""Degrees of freedom of the proposals: tails heavier than the posterior's, so that no
weight is boundless."""


def reweighed(
    posterior: Posterior, count: int, seed: int = 0, proposals: int = 200
) -> tuple[Theta, Tensor]:
    """Draws of the posterior itself, skewed where it is: Laplace's, drawn with heavier
    tails, chosen anew by weight.

    Sampling importance resampling (Rubin 1988), with a t distribution in place of the
    normal one. Right for a few coordinates; every proposal costs one evaluation of the
    objective, and those without a stable equilibrium weigh nothing.

    Returns draws (count, *batch, size) by path, and the effective share of the
    proposals (*batch): the normal approximation is good near 1, and below 0.1 neither
    it nor these draws should be trusted.
    """
    problem, size = posterior.problem, posterior.mean.shape[-1]
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(
        proposals, *posterior.mean.shape[:-1], size + TAILS, generator=generator
    ).to(posterior.mean)
    z = normal[..., :size] / normal[..., size:].square().mean(-1, keepdim=True).sqrt()
    rows = posterior.mean + (
        torch.linalg.cholesky(posterior.covariance) @ z.unsqueeze(-1)
    ).squeeze(-1)
    heights = []
    with torch.no_grad():
        for part in rows.split(CHUNK // 2):
            found = problem.analytic(split(problem, part))
            heights.append(
                torch.where(
                    found.stable & torch.isfinite(found.loss), -found.loss, -torch.inf
                )
            )
    of_proposal = -(TAILS + size) / 2 * torch.log1p(z.square().sum(-1) / TAILS)
    weights = torch.softmax(torch.cat(heights) - of_proposal, 0).nan_to_num(
        1 / proposals
    )
    chosen = torch.multinomial(
        weights.reshape(proposals, -1).T, count, replacement=True, generator=generator
    ).T
    chosen = chosen.reshape(count, *weights.shape[1:], 1).expand(count, *rows.shape[1:])
    return split(problem, rows.gather(0, chosen)), 1 / weights.square().sum(
        0
    ) / proposals


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
    """Profile likelihood of one coordinate: the best that all others can do while it is
    held at each of `points`.

    coordinate: a name of `fit.coordinates()`; spread: how far to go, in posterior
        standard deviations
    Returns a row a point: value, `rise` of minus the log posterior above its lowest,
    and `inside`, whether the point belongs to the 90 % interval (rise < 1.35). A flat
    profile is a parameter that the data do not determine, however narrow its Laplace
    interval may look.
    """
    names = fit.coordinates()
    if coordinate not in names:
        raise InputError(
            f"No coordinate {coordinate!r}; there are: {', '.join(names[:12])} …"
        )
    if fit.fc_r.ndim:
        raise InputError("A profile is of a fit to one recording.")
    posterior = posterior or laplace(fit)
    k, centre = names.index(coordinate), joined(fit.theta)
    offsets = (
        torch.linspace(-spread, spread, points, dtype=centre.dtype) * posterior.sd[k]
    )
    # The others begin where the normal approximation expects them, given the one that
    # is held.
    along = posterior.covariance[:, k] / posterior.covariance[k, k]
    held = centre[k] + offsets
    begin = centre + offsets.unsqueeze(-1) * along
    free = torch.ones_like(centre)
    free[k] = 0.0

    def assess(theta: Theta, _: int):  # type: ignore[no-untyped-def]
        row = joined(theta) * free + held.unsqueeze(-1) * (1 - free)
        return fit.problem.analytic(split(fit.problem, row))

    found = search(
        assess,
        split(fit.problem, begin),
        method="profile",
        steps=steps,
        rate=rate * float(posterior.sd.mean()),
        show_progress=show_progress,
    )
    rise = found.loss - found.loss.min()
    values = posterior._values(begin)[:, k]
    return pd.DataFrame({"value": values, "rise": rise, "inside": rise < 1.353})
