"""Connectome: which regions are connected, how strongly, and over what distance."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.values import own_tensor
from cingulum.errors import InputError

ROUNDING = 1e-5
"""Asymmetry up to which weights are symmetric: that of float32 files."""


@dataclass(frozen=True, eq=False)
class Connectome:
    """Structural connections between regions.

    weights: (*batch, region, region), not negative: what row i receives from column j;
        the diagonal is ignored and set to zero. Tractography is symmetric; tracers and
        effective connectivity need not be
    regions: one name per region, no two alike
    lengths: tract lengths in mm, (region, region) or with the axes of the weights,
        optional

    Arrays of numbers of any kind are taken, and copied. Raises InputError for weights
    that are not square, not finite, negative, or all zero where there are two regions
    or more, and for lengths of another shape, negative or not finite.
    """

    weights: Float[Tensor, "*batch region region"]
    regions: tuple[str, ...]
    lengths: Float[Tensor, "... region region"] | None = None

    def __post_init__(self) -> None:
        regions = tuple(self.regions)
        _check_names(regions)
        weights = own_tensor(self.weights, "Connectome weights")
        check_weights(weights, len(regions))
        # A region's input from itself belongs to its mass, not to the tracts.
        own = torch.diag_embed(weights.diagonal(dim1=-2, dim2=-1))
        object.__setattr__(self, "weights", weights - own)
        object.__setattr__(self, "regions", regions)
        if self.lengths is not None:
            lengths = own_tensor(self.lengths, "Tract lengths")
            _check_lengths(lengths, weights)
            object.__setattr__(self, "lengths", lengths)

    @property
    def is_symmetric(self) -> bool:
        """Whether connections are as strong in both directions, but for rounding."""
        return _asymmetry(self.weights) <= ROUNDING

    def normalised(self) -> Connectome:
        """Scaled so that the regions' summed weights average one: coupling strengths
        become comparable."""
        mean_strength = self.weights.sum(-1).mean(-1)
        # A single region is connected to nothing.
        mean_strength = torch.where(mean_strength > 0, mean_strength, 1.0)
        return replace(self, weights=self.weights / mean_strength[..., None, None])


def check_weights(weights: Tensor, n: int) -> None:
    """Refuse weights that cannot be those of a connectome, saying which rule they
    break."""
    # In this order: each check relies on those before it.
    _check_shape(weights, n)
    _check_finite(weights)
    _check_not_negative(weights)
    # A single region has nothing to be connected to.
    if n > 1:
        _check_not_empty(weights)


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


def _check_names(regions: tuple[str, ...]) -> None:
    wrong = [name for name in regions if not isinstance(name, str) or not name.strip()]
    if wrong:
        raise InputError(f"Regions need names that are texts; got {wrong[0]!r}.")
    twice = [name for name, count in Counter(regions).items() if count > 1]
    if twice:
        raise InputError(
            f"Region names must differ; {len(twice)} occur more than once, the first "
            f"is {twice[0]!r}."
        )


def _check_lengths(lengths: Tensor, weights: Tensor) -> None:
    _check_length_shape(lengths, weights)
    known = lengths.detach()
    if not torch.isfinite(known).all() or (known < 0).any():
        raise InputError(
            "Tract lengths (mm) must be finite and not negative; the smallest is "
            f"{known.min().item():.4g}. Where a tract is missing, its weight is 0 and "
            "its length may be 0, too."
        )


def _check_length_shape(lengths: Tensor, weights: Tensor) -> None:
    n = weights.shape[-1]
    if lengths.ndim < 2 or lengths.shape[-2:] != (n, n):
        raise InputError(
            f"A connectome of {n} regions needs tract lengths of shape ({n}, {n}); got "
            f"{tuple(lengths.shape)}."
        )


def _asymmetry(weights: Tensor) -> float:
    """The largest difference between the two directions of a connection, relative to
    the largest weight."""
    largest = weights.detach().abs().max()
    if largest == 0:
        return 0.0
    return ((weights - weights.mT).detach().abs().max() / largest).item()


def check_symmetry(connectome: Connectome) -> None:
    """Refuse a directed connectome where connections have no direction: in
    tractography, one is a mistake. Raises InputError."""
    if connectome.is_symmetric:
        return
    raise InputError(
        "Connectome weights must be symmetric (tractography has no direction); "
        f"the largest asymmetry is {_asymmetry(connectome.weights):.1%} of the largest "
        "weight. Symmetrise with (W + W.T) / 2 if that is what you mean."
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
