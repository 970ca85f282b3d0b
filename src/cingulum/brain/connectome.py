"""Connectome: which regions are connected, how strongly, and over what distance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.errors import InputError


@dataclass(frozen=True, eq=False)
class Connectome:
    """Structural connections between regions.

    weights: (*batch, region, region), symmetric, not negative; the diagonal is ignored
        and set to zero
    regions: one name per region
    lengths: tract lengths in mm, (region, region) or with the axes of the weights,
        optional

    Raises InputError for weights that are not square, not finite, negative, all zero or
    asymmetric.
    """

    weights: Float[Tensor, "*batch region region"]
    regions: tuple[str, ...]
    lengths: Float[Tensor, "... region region"] | None = None

    def __post_init__(self) -> None:
        check_weights(self.weights, len(self.regions))
        # A region's input from itself belongs to its mass, not to the tracts.
        own = torch.diag_embed(self.weights.diagonal(dim1=-2, dim2=-1))
        object.__setattr__(self, "weights", self.weights - own)

    def normalised(self) -> Connectome:
        """Scaled so that the regions' summed weights average one: coupling strengths
        become comparable."""
        mean_strength = self.weights.sum(-1).mean(-1)
        return replace(self, weights=self.weights / mean_strength[..., None, None])


def check_weights(weights: Tensor, n: int) -> None:
    """Refuse weights that cannot be a tractography connectome, saying which rule they
    break."""
    # In this order: each check relies on those before it.
    _check_shape(weights, n)
    _check_finite(weights)
    _check_not_negative(weights)
    _check_not_empty(weights)
    _check_symmetry(weights)


def _check_shape(weights: Tensor, n: int) -> None:
    if weights.ndim < 2 or weights.shape[-2:] != (n, n):
        raise InputError(
            f"A connectome of {n} regions needs weights of shape ({n}, {n}); got "
            f"{tuple(weights.shape)}."
        )


def _check_finite(weights: Tensor) -> None:
    if not torch.isfinite(weights).all():
        raise InputError(
            "Connectome weights must be finite; some are NaN or infinite. Set absent "
            "connections to 0."
        )


def _check_not_negative(weights: Tensor) -> None:
    if (weights < 0).any():
        raise InputError(
            "Connectome weights must not be negative; the smallest is "
            f"{weights.min().item():.4g}. "
            "Give tract counts or densities, not correlations or log-odds."
        )


def _check_not_empty(weights: Tensor) -> None:
    if not (weights.sum((-2, -1)) > 0).all():
        raise InputError(
            "The connectome has no connection at all: expected at least one positive "
            "weight."
        )


def _check_symmetry(weights: Tensor) -> None:
    asymmetry = (weights - weights.mT).abs().max() / weights.abs().max()
    # Rounding of float32 files is no asymmetry.
    if asymmetry > 1e-5:
        raise InputError(
            "Connectome weights must be symmetric (tractography has no direction); "
            f"the largest asymmetry is {asymmetry.item():.1%} of the largest weight. "
            "Symmetrise with (W + W.T) / 2 if that is what you mean."
        )


def distance_rule(
    positions: Float[Tensor, "region 3"],
    regions: tuple[str, ...],
    scale: float = 40.0,
    homotopic: float = 1.0,
) -> Connectome:
    """A connectome from coordinates alone: weights fall off exponentially with
    distance, mirrored pairs are joined.

    For synthetic brains, and where no tractography exists. The exponential distance
    rule is that of Ercsey-Ravasz et al. 2013, doi:10.1016/j.neuron.2013.07.036; `scale`
    in mm, `homotopic` is the weight added between regions that mirror each other across
    the midline (within 8 mm).
    """
    lengths = torch.cdist(positions, positions)
    weights = torch.exp(-lengths / scale) + homotopic * _mirrored(positions)
    # Distances are rounded differently in the two directions.
    weights = (weights + weights.mT) / 2
    return Connectome(weights.fill_diagonal_(0.0), regions, lengths).normalised()


def _mirrored(positions: Tensor) -> Tensor:
    """Which pairs of regions mirror each other across the midline, within 8 mm."""
    reflected = positions * positions.new_tensor([-1.0, 1.0, 1.0])
    near_mirror = torch.cdist(positions, reflected) < 8.0
    across_midline = positions[:, :1] * positions[:, :1].mT < 0
    return near_mirror & across_midline
