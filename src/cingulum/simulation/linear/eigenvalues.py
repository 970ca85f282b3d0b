"""Stability as an object: how a brain returns to its equilibrium, and how far the
nearest bifurcation is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.simulation.linear.equilibrium import (
    Linearisation,
    fixed_point,
    identity_like,
    linearise,
)
from cingulum.simulation.linear.jacobian import leading


@dataclass(frozen=True, eq=False)
class Stability:
    """The spectrum of a brain's Jacobian at one equilibrium, read as a clinician reads
    a margin.

    rates: all eigenvalues (1/s), the leading (least stable) one first
    margin: distance of the leading one to the imaginary axis (1/s); 0 at a bifurcation,
        negative beyond it
    kind: which bifurcation would be met: `fold` (a real eigenvalue) or `hopf` (a pair:
        oscillation at `frequency`, Hz)
    loop_gain: gain of one passage through the network; 0 uncoupled, 1 at a fold of the
        network
    largest_step: the longest explicit Euler step (s) under which every mode still
        decays
    """

    rates: Tensor
    margin: float
    kind: str
    frequency: float
    loop_gain: float
    largest_step: float

    @property
    def stable(self) -> bool:
        return self.margin > 0

    @property
    def slowest(self) -> float:
        """Slowest rate of return, 1/s."""
        return self.margin

    @property
    def fastest(self) -> float:
        """Largest modulus of an eigenvalue, 1/s."""
        return self.rates.abs().max().item()

    def __str__(self) -> str:
        state = "stable" if self.stable else "UNSTABLE"
        bifurcation = "fold"
        if self.kind == "hopf":
            bifurcation = f"Hopf bifurcation at {self.frequency:.3g} Hz"
        return (
            f"{state}: leading eigenvalue {-self.margin:.3g} /s, nearest a "
            f"{bifurcation}; loop gain {self.loop_gain:.3f}; "
            f"explicit steps up to {1000 * self.largest_step:.3g} ms"
        )


def stability(
    brain: Brain, x: Float[Tensor, "state region"] | None = None
) -> Stability:
    """Eigenvalues of the network's Jacobian at one equilibrium, and what they say.

    x: the equilibrium (state, region); default is the one that the brain settles in.
        Delays do not enter.
    """
    with torch.no_grad():
        at = linearise(brain, fixed_point(brain) if x is None else x)
        rates = torch.linalg.eigvals(at.jacobian())
        loop_gain = torch.linalg.eigvals(at.loop).real.max().item()
    rates = rates[rates.real.argsort(descending=True)]
    lead = rates[0]
    frequency = _frequency(lead)
    return Stability(
        rates=rates,
        margin=-lead.real.item(),
        kind="hopf" if frequency else "fold",
        frequency=frequency,
        loop_gain=loop_gain,
        largest_step=_largest_euler_step(rates),
    )


def _frequency(rate: Tensor) -> float:
    """Frequency (Hz) of a mode, 0 for one that does not oscillate."""
    # Rounding gives real eigenvalues an imaginary part of some 1e-16 of their size.
    if not rate.imag.abs() > 1e-6 * rate.abs().clamp_min(1e-12):
        return 0.0
    return rate.imag.abs().item() / (2 * math.pi)


def _largest_euler_step(rates: Tensor) -> float:
    """The longest step (s) with |1 + dt λ| < 1 for every mode; 0 if one grows."""
    longest = (-2 * rates.real / rates.abs() ** 2).min().item()
    return max(longest, 0.0)


def growth(at: Linearisation) -> Float[Tensor, "*batch"]:
    """Real part of the leading eigenvalue (1/s), differentiable: the (negative)
    distance to the nearest bifurcation.

    The gradient is first-order perturbation, wᵀ dJ v / wᵀ v with left and right
    eigenvectors, which needs no differentiation of an eigendecomposition and does not
    mind degenerate eigenvalues elsewhere.
    """
    jacobian = at.jacobian()
    lead, right = _leading_mode(jacobian.detach())
    left = _left_eigenvector(jacobian.detach(), lead, right)
    value = torch.einsum("...i,...ij,...j->...", left, jacobian.to(left.dtype), right)
    value = value / (left * right).sum(-1)
    # The value is the eigensolver's, the gradient the perturbation's.
    return value.real + (lead.real - value.real).detach()


def _leading_mode(jacobian: Tensor) -> tuple[Tensor, Tensor]:
    """The eigenvalue of the largest real part, and its right eigenvector."""
    values, vectors = torch.linalg.eig(jacobian)
    lead, index = leading(values)
    column = index.unsqueeze(-2).expand(*vectors.shape[:-1], 1)
    return lead, vectors.gather(-1, column).squeeze(-1)


def _left_eigenvector(jacobian: Tensor, lead: Tensor, right: Tensor) -> Tensor:
    """The left eigenvector of an eigenvalue, by inverse iteration."""
    # A hair beside the eigenvalue, so that the matrix can be factorised.
    shift = (lead * (1 + 1e-7) + 1e-9)[..., None, None]
    transposed = jacobian.mT.to(right.dtype)
    factors = torch.linalg.lu_factor(transposed - shift * identity_like(transposed))
    left = right.conj()
    # Each iteration gains seven digits of the shift's distance.
    for _ in range(3):
        left = torch.linalg.lu_solve(*factors, left.unsqueeze(-1)).squeeze(-1)
        left = left / left.norm(dim=-1, keepdim=True)
    return left
