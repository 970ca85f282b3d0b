"""Where a brain rests, whether it stays there, and the connectivity that noise makes around that point.

Regions see each other only through their outputs, so every network quantity reduces to one region × region matrix:
with local Jacobian L, input gain b = ∂drift/∂u and output gain c = ∂output/∂x of each region, the zero-frequency
response of a region to input is h = −c L⁻¹ b, and the network's is (1 − diag(h) G C)⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain, confine
from cingulum.errors import ConvergenceError, InputError
from cingulum.measures import correlation


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The brain near a point: how each region answers input and noise, and how regions are joined."""

    local: Float[Tensor, "*batch region state state"]
    inward: Float[Tensor, "*batch region state"]
    outward: Float[Tensor, "*batch region state"]
    coupling: Float[Tensor, "*batch region region"]

    @property
    def gain(self) -> Float[Tensor, "*batch region"]:
        """h: change of a region's output for a lasting change of its input."""
        return -(self.outward * torch.linalg.solve(self.local, self.inward)).sum(-1)

    @property
    def loop(self) -> Float[Tensor, "*batch region region"]:
        """Gain of one passage through the network, diag(h) G C: its largest eigenvalue reaches 1 at a fold."""
        return self.gain.unsqueeze(-1) * self.coupling

    @property
    def local_growth(self) -> Float[Tensor, "*batch region"]:
        """Growth rate (1/s) of the slowest mode of each region by itself; negative when the region is stable."""
        return torch.linalg.eigvals(self.local).real.amax(-1)

    def slow_noise(self, noise: Tensor) -> Float[Tensor, "*batch region"]:
        """Amplitude with which a region's own noise reaches its output at zero frequency."""
        return noise * torch.linalg.solve(self.local.mT, self.outward).norm(dim=-1)

    def jacobian(self) -> Float[Tensor, "*batch n n"]:
        """Of the whole network, n = states × regions, states outermost."""
        *batch, n, s, _ = self.local.shape
        eye = torch.eye(n, dtype=self.local.dtype, device=self.local.device)
        blocks = torch.einsum("...nst,nm->...sntm", self.local, eye)
        joined = torch.einsum("...ns,...nm,...mt->...sntm", self.inward, self.coupling, self.outward)
        return (blocks + joined).reshape(*batch, s * n, s * n)


def local_rates(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Tensor:
    """Eigenvalues (1/s) of each region by itself at states x, its input held: (*batch, region, state)."""
    with torch.enable_grad():
        states, u = _variable(x.detach()), brain.coupling(x).detach()
        rates = brain.mass.drift(states, u)
        local = [torch.autograd.grad(rate.sum(), states, retain_graph=True)[0] for rate in rates]
    return torch.linalg.eigvals(torch.stack(local).movedim((0, 1), (-2, -1)).detach())


def linearise(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Linearisation:
    """First derivatives of the brain at states x, differentiable in its parameters. Delays do not enter.

    Raises InputError for a mass with several coupling variables.
    """
    if brain.mass.couplings > 1:
        raise InputError(
            f"{type(brain.mass).__name__} has {brain.mass.couplings} coupling variables: its linearisation is not "
            "available; simulate it."
        )
    keep = torch.is_grad_enabled() and brain.drift(x).requires_grad
    with torch.enable_grad():
        # Copies, so that derivatives are by states and input separately although input follows from states.
        states, u = _variable(x), _variable(brain.coupling(x))
        rates, output = brain.mass.drift(states, u), brain.mass.output(states)
        by = [torch.autograd.grad(rate.sum(), (states, u), create_graph=keep, retain_graph=True) for rate in rates]
        outward = torch.autograd.grad(output.sum(), states, create_graph=keep)[0]
    strength = torch.as_tensor(brain.strength, dtype=x.dtype, device=x.device)
    coupling = (strength.unsqueeze(-1) if strength.ndim else strength) * brain.connectome.weights
    return Linearisation(
        local=torch.stack([of_state for of_state, _ in by]).movedim((0, 1), (-2, -1)),
        inward=torch.stack([of_input for _, of_input in by], -1),
        outward=outward.movedim(0, -1),
        coupling=coupling,
    )


def _variable(x: Tensor) -> Tensor:
    return x.clone() if x.requires_grad else x.clone().requires_grad_()


def fixed_point(
    brain: Brain,
    start: Float[Tensor, "state *batch region"] | None = None,
    *,
    tolerance: float | None = None,
    damping: float = 50.0,
    steps: int = 200,
) -> Float[Tensor, "state *batch region"]:
    """States at which the drift vanishes, reached from `start` (default: the resting states).

    Newton steps, damped as if implicit time steps were taken that lengthen while the drift falls (pseudo-transient
    continuation): so the equilibrium is the one that the dynamics themselves would approach.
    The result carries exact gradients with respect to the brain's parameters (implicit differentiation).

    tolerance: largest drift left, per second; default 1e-8, or what float32 can resolve
    damping: 1/s; the first steps are implicit time steps of 1/damping. 0 is plain Newton, which also finds saddles
    Raises ConvergenceError when no equilibrium is found.
    """
    x = brain.resting_state() if start is None else start
    tolerance = max(1e-8, 500 * torch.finfo(x.dtype).eps) if tolerance is None else tolerance
    with torch.no_grad():
        held: Tensor | float = damping
        previous = None
        for _ in range(steps):
            residual = brain.drift(x)
            size = residual.abs().amax((0, -1))
            if size.max() < tolerance:
                break
            if previous is not None:
                held = (held * (size / previous).clamp(0.01, 10.0)).clamp_max(1e4)
            previous = size
            x = confine(brain.mass, x + newton_step(linearise(brain, x), residual, held))
        else:
            raise ConvergenceError(
                f"No equilibrium found in {steps} steps (largest drift {residual.abs().max().item():.2g} /s); the "
                "brain may oscillate. Lower the coupling strength, or start nearer to the state you expect."
            )
        here = linearise(brain, x)
    return x + newton_step(here, brain.drift(x))


def newton_step(
    at: Linearisation, residual: Float[Tensor, "state *batch region"], damping: Tensor | float = 0.0
) -> Float[Tensor, "state *batch region"]:
    """The step that would cancel the residual if the brain were linear (and every state decayed by `damping` more)."""
    r = residual.movedim(0, -1)
    extra = torch.as_tensor(damping, dtype=r.dtype, device=r.device)[..., None, None, None]
    at = replace(at, local=at.local - extra * torch.eye(r.shape[-1], dtype=r.dtype, device=r.device))
    own = -torch.linalg.solve(at.local, r)
    output = (at.outward * own).sum(-1, keepdim=True)
    eye = torch.eye(at.coupling.shape[-1], dtype=r.dtype, device=r.device)
    change = torch.linalg.solve(eye - at.loop, output)
    step = own - torch.linalg.solve(at.local, at.inward) * (at.coupling @ change)
    return step.movedim(-1, 0)


def slow_covariance(at: Linearisation, noise: Tensor) -> Float[Tensor, "*batch region region"]:
    """Zero-frequency cross-spectrum of the outputs: what a slow observer such as BOLD sees."""
    eye = torch.eye(at.coupling.shape[-1], dtype=at.coupling.dtype, device=at.coupling.device)
    mixing = torch.linalg.solve(eye - at.loop, torch.diag_embed(at.slow_noise(noise)))
    return mixing @ mixing.mT


def analytic_fc(brain: Brain, x: Tensor | None = None) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity of the linearised brain at its equilibrium, in closed form.

    BOLD is slow against the neurons, so its correlations are those of the zero-frequency cross-spectrum
    A⁻¹ Q A⁻ᵀ; a haemodynamic response shared by all regions cancels. Valid for small noise and a stable equilibrium.
    """
    at = linearise(brain, fixed_point(brain) if x is None else x)
    return correlation(slow_covariance(at, torch.as_tensor(brain.noise, dtype=at.local.dtype)))


@dataclass(frozen=True)
class Stability:
    """How the brain returns to its equilibrium, per second, and the time step that this allows."""

    slowest: float
    fastest: float
    stable: bool
    largest_step: float


def stability(brain: Brain, x: Float[Tensor, "state region"]) -> Stability:
    """Eigenvalues of the network's Jacobian at one equilibrium: slowest and fastest rates of return.

    `largest_step` is the longest explicit Euler step (s) under which every mode still decays.
    """
    with torch.no_grad():
        rates = torch.linalg.eigvals(linearise(brain, x).jacobian())
        longest = (-2 * rates.real / rates.abs() ** 2).min().item()
    return Stability(
        -rates.real.max().item(), rates.abs().max().item(), bool((rates.real < 0).all()), max(longest, 0.0)
    )
