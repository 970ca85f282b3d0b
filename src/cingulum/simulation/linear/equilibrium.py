"""Where a brain rests, whether it stays there, and the connectivity that noise makes
around that point.

Regions see each other only through their outputs, so every network quantity reduces to
one region × region matrix: with local Jacobian L, input gain b = ∂drift/∂u and output
gain c = ∂output/∂x of each region, the zero-frequency response of a region to input is
h = −c L⁻¹ b, and the network's is (1 − diag(h) G C)⁻¹.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain, confine
from cingulum.errors import ConvergenceError
from cingulum.measures import correlation


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The brain near a point: how each region answers input and noise, and how regions
    are joined.

    With several coupling variables the network's rows run over (region, coupling),
    couplings innermost.
    """

    local: Float[Tensor, "*batch region state state"]
    inward: Float[Tensor, "*batch region state coupling"]
    outward: Float[Tensor, "*batch region coupling state"]
    seen: Float[Tensor, "*batch region state"]
    coupling: Float[Tensor, "*batch region region"]

    @property
    def gain(self) -> Float[Tensor, "*batch region coupling coupling"]:
        """h: change of a region's outputs for a lasting change of its inputs."""
        return -self.outward @ torch.linalg.solve(self.local, self.inward)

    @property
    def loop(self) -> Float[Tensor, "*batch n n"]:
        """Gain of one passage through the network, diag(h) G C: its largest eigenvalue
        reaches 1 at a fold."""
        return through(self.gain, self.coupling)

    @property
    def local_growth(self) -> Float[Tensor, "*batch region"]:
        """Growth rate (1/s) of the slowest mode of each region by itself; negative when
        the region is stable."""
        return torch.linalg.eigvals(self.local).real.amax(-1)

    def jacobian(self) -> Float[Tensor, "*batch n n"]:
        """Of the whole network, n = states × regions, states outermost."""
        *batch, n, s, _ = self.local.shape
        eye = torch.eye(n, dtype=self.local.dtype, device=self.local.device)
        blocks = torch.einsum("...nst,nm->...sntm", self.local, eye)
        joined = torch.einsum(
            "...nsk,...nm,...mkt->...sntm", self.inward, self.coupling, self.outward
        )
        return (blocks + joined).reshape(*batch, s * n, s * n)


def through(
    gain: Float[Tensor, "*batch region k l"],
    coupling: Float[Tensor, "*batch region region"],
) -> Tensor:
    """One passage: what the regions send, joined by the coupling and answered with the
    gain; rows (region, k)."""
    k = gain.shape[-1]
    if k == 1:
        return gain[..., 0] * coupling
    loop = torch.einsum("...nkl,...nm->...nkml", gain, coupling)
    return loop.reshape(*loop.shape[:-4], loop.shape[-4] * k, -1)


def local_rates(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Tensor:
    """Eigenvalues (1/s) of each region by itself at states x, its input held: (*batch,
    region, state)."""
    with torch.enable_grad():
        states, u = _variable(x.detach()), brain.coupling(x).detach()
        rates = brain.mass.drift(states, u)
        local = [
            torch.autograd.grad(rate.sum(), states, retain_graph=True)[0]
            for rate in rates
        ]
    return torch.linalg.eigvals(torch.stack(local).movedim((0, 1), (-2, -1)).detach())


def linearise(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Linearisation:
    """First derivatives of the brain at states x, differentiable in its parameters.

    Delays do not enter: they change neither equilibria nor the answer to a lasting
        input.
    """
    keep = torch.is_grad_enabled() and brain.drift(x).requires_grad
    mass = brain.mass
    with torch.enable_grad():
        # Copies, so that derivatives are by states and input separately although input
        # follows from states.
        states, u = _variable(x), _variable(brain.coupling(x))
        rates, output = mass.drift(states, u), mass.output(states)
        output = output if mass.couplings > 1 else output.unsqueeze(0)
        by = [_derivatives(rate, (states, u), keep) for rate in rates]
        outward = [_derivatives(signal, (states,), keep)[0] for signal in output]
        seen = _derivatives(mass.activity(states), (states,), keep)[0]
    strength = torch.as_tensor(brain.strength, dtype=x.dtype, device=x.device)
    coupling = (
        strength.unsqueeze(-1) if strength.ndim else strength
    ) * brain.connectome.weights
    inward = torch.stack([of_input for _, of_input in by])
    return Linearisation(
        local=torch.stack([of_state for of_state, _ in by]).movedim((0, 1), (-2, -1)),
        inward=inward.movedim((0, 1), (-2, -1))
        if mass.couplings > 1
        else inward.movedim(0, -1).unsqueeze(-1),
        outward=torch.stack(outward).movedim((0, 1), (-2, -1)),
        seen=seen.movedim(0, -1),
        coupling=coupling,
    )


def _derivatives(
    value: Tensor, by: tuple[Tensor, ...], keep: bool
) -> tuple[Tensor, ...]:
    """Gradient of a sum; zero where it does not depend (a constant output, an angle
    that nothing pulls back)."""
    if not value.requires_grad:
        return tuple(torch.zeros_like(v) for v in by)
    found = torch.autograd.grad(
        value.sum(), by, create_graph=keep, retain_graph=True, materialize_grads=True
    )
    return tuple(found)


def _variable(x: Tensor) -> Tensor:
    return x.clone() if x.requires_grad else x.clone().requires_grad_()


def fixed_point(
    brain: Brain,
    start: Float[Tensor, "state *batch region"] | None = None,
    *,
    tolerance: float | None = None,
    damping: float = 50.0,
    steps: int = 200,
    strict: bool = True,
) -> Float[Tensor, "state *batch region"]:
    """States at which the drift vanishes, reached from `start` (default: the resting
    states).

    Newton steps, damped as if implicit time steps were taken that lengthen while the
    drift falls (pseudo-transient continuation): so the equilibrium is the one that the
    dynamics themselves would approach. The result carries exact gradients with respect
    to the brain's parameters (implicit differentiation).

    tolerance: largest drift left, per second; default 1e-8, or what float32 can resolve
    damping: 1/s; the first steps are implicit time steps of 1/damping, and shorter ones
        are tried where they lead nowhere (around a limit cycle). 0 is plain Newton,
        which also finds saddles
    strict: raise ConvergenceError when a batch member finds no equilibrium; if false,
        it stays where it got
    """
    x = brain.resting_state() if start is None else start
    tolerance = (
        max(1e-8, 500 * torch.finfo(x.dtype).eps) if tolerance is None else tolerance
    )
    with torch.no_grad():
        for held in (damping, 4 * damping, 20 * damping) if damping else (damping,):
            found, left = _descend(brain, x, tolerance, held, steps)
            if left < tolerance:
                break
        if strict and not left < tolerance:
            raise ConvergenceError(
                f"No equilibrium found in {steps} steps (largest drift {left:.2g} /s); "
                "the "
                "brain may oscillate. Lower the coupling strength, or start nearer to "
                "the state you expect."
            )
        here = linearise(brain, found)
    return found + newton_step(here, brain.drift(found))


def _descend(
    brain: Brain, x: Tensor, tolerance: float, damping: float, steps: int
) -> tuple[Tensor, float]:
    """Pseudo-transient continuation from x: where it ends, and the largest drift left
    there."""
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
    return x, size.max().item()


def newton_step(
    at: Linearisation,
    residual: Float[Tensor, "state *batch region"],
    damping: Tensor | float = 0.0,
) -> Float[Tensor, "state *batch region"]:
    """The step that would cancel the residual if the brain were linear (and every state
    decayed by `damping` more)."""
    r = residual.movedim(0, -1).unsqueeze(-1)
    extra = torch.as_tensor(damping, dtype=r.dtype, device=r.device)[
        ..., None, None, None
    ]
    at = replace(
        at,
        local=at.local - extra * torch.eye(r.shape[-2], dtype=r.dtype, device=r.device),
    )
    own = -torch.linalg.solve(at.local, r)
    sent = (at.outward @ own).squeeze(-1)  # (*batch, region, coupling)
    loop = at.loop
    eye = torch.eye(loop.shape[-1], dtype=r.dtype, device=r.device)
    change = torch.linalg.solve(eye - loop, sent.flatten(-2).unsqueeze(-1)).reshape(
        sent.shape
    )
    step = own - torch.linalg.solve(at.local, at.inward) @ (
        at.coupling @ change
    ).unsqueeze(-1)
    return step.squeeze(-1).movedim(-1, 0)


def noise_amplitude(brain: Brain, like: Tensor) -> Float[Tensor, "*batch region state"]:
    """Amplitude of the noise on every state; one region stands for all where the noise
    is not regional."""
    share = like.new_tensor([state.noise for state in brain.mass.states])
    noise = torch.as_tensor(brain.noise, dtype=like.dtype, device=like.device)
    return (noise.reshape(1) if noise.ndim == 0 else noise).unsqueeze(-1) * share


def slow_covariance(
    brain: Brain, at: Linearisation
) -> Float[Tensor, "*batch region region"]:
    """Zero-frequency cross-spectrum of activity: what a slow observer such as BOLD
    sees, up to its own gain."""
    shaken = torch.linalg.solve(
        at.local, torch.diag_embed(noise_amplitude(brain, at.local))
    )
    sent, seen = at.outward @ shaken, (at.seen.unsqueeze(-2) @ shaken).squeeze(-2)
    heard = -(at.seen.unsqueeze(-2) @ torch.linalg.solve(at.local, at.inward)).squeeze(
        -2
    )
    return joined_covariance(at.loop, sent, seen, heard, at.coupling)


def joined_covariance(
    loop: Tensor, sent: Tensor, seen: Tensor, heard: Tensor, coupling: Tensor
) -> Tensor:
    """Covariance of activity, when noise moves outputs by `sent` and activity by
    `seen`, and regions are joined.

    loop: (…, n·k, n·k); sent: (…, n, k, noise); seen: (…, n, noise); heard: (…, n, k),
    activity by input. Real or complex (a cross-spectrum at one frequency).
    """
    n, k = heard.shape[-2:]
    eye = torch.eye(loop.shape[-1], dtype=loop.dtype, device=loop.device)
    if (
        k == 1
        and sent.shape[-1] == seen.shape[-1]
        and torch.equal(sent[..., 0, :], seen)
    ):
        # The scanner sees what is sent: one solve is enough.
        mixing = torch.linalg.solve(
            eye - loop, torch.diag_embed(power(seen).sqrt().to(loop.dtype))
        )
        return mixing @ mixing.mH
    joined = heard.unsqueeze(-2) * coupling.unsqueeze(-1)  # (…, n, m, k)
    onto = torch.linalg.solve(
        eye - loop, joined.reshape(*joined.shape[:-2], n * k), left=False
    )
    blocks = onto.reshape(*onto.shape[:-1], n, k)
    of_noise = torch.einsum("...nmk,...mkq->...nmq", blocks, sent)
    own = torch.diag_embed(seen.movedim(-1, -2)).movedim(-3, -1)
    total = (of_noise + own).flatten(-2)
    return total @ total.mH


def power(z: Tensor) -> Tensor:
    """Sum of squared moduli over the last axis."""
    return (z.real.square() + z.imag.square() if z.is_complex() else z.square()).sum(-1)


def analytic_fc(
    brain: Brain, x: Tensor | None = None
) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity of the linearised brain at its equilibrium, in closed
    form.

    BOLD is slow against the neurons, so its correlations are those of the
    zero-frequency cross-spectrum A⁻¹ Q A⁻ᵀ; a haemodynamic response shared by all
    regions cancels. Valid for small noise and a stable equilibrium.
    """
    return correlation(
        slow_covariance(brain, linearise(brain, fixed_point(brain) if x is None else x))
    )
