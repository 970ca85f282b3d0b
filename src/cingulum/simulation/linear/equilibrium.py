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
from jaxtyping import Float, Inexact
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import as_tensor_like, confine
from cingulum.brain.mass_contract import check_brain
from cingulum.errors import ConvergenceError
from cingulum.measures import correlation
from cingulum.simulation.linear.jacobian import (
    as_matrices,
    as_variable,
    derivatives,
    local_drift,
)
from cingulum.simulation.linear.root_finding import pseudo_transient, solve_vector


@dataclass(frozen=True, eq=False)
class Linearisation:
    """The brain near a point: how each region answers input and noise, and how regions
    are joined.

    local: L, Jacobian of a region's drift by its states, input held
    input_gain: b, derivative of the drift by the input
    output_gain: c, derivative of the output by the states
    activity_gain: derivative of what drives the sensor by the states
    coupling: strength times weights

    With several coupling variables the network's rows run over (region, coupling),
    couplings innermost.
    """

    local: Float[Tensor, "*batch region state state"]
    input_gain: Float[Tensor, "*batch region state coupling"]
    output_gain: Float[Tensor, "*batch region coupling state"]
    activity_gain: Float[Tensor, "*batch region state"]
    coupling: Float[Tensor, "*#batch region region"]

    @property
    def gain(self) -> Float[Tensor, "*batch region coupling coupling"]:
        """h: change of a region's outputs for a lasting change of its inputs."""
        return -self.output_gain @ torch.linalg.solve(self.local, self.input_gain)

    @property
    def loop(self) -> Float[Tensor, "*batch n n"]:
        """Gain of one passage through the network, diag(h) G C: its largest eigenvalue
        reaches 1 at a fold."""
        return loop_matrix(self.gain, self.coupling)

    @property
    def local_growth(self) -> Float[Tensor, "*batch region"]:
        """Growth rate (1/s) of the slowest mode of each region by itself; negative when
        the region is stable."""
        return torch.linalg.eigvals(self.local).real.amax(-1)

    def jacobian(self) -> Float[Tensor, "*batch n n"]:
        """Of the whole network, n = states × regions, states outermost."""
        *batch, n, s, _ = self.local.shape
        blocks = self._own_blocks() + self._joining_blocks()
        return blocks.reshape(*batch, s * n, s * n)

    def _own_blocks(self) -> Float[Tensor, "*batch state region state region"]:
        """What the states of each region do to each other."""
        identity = identity_like(self.local, self.local.shape[-3])
        return torch.einsum("...nst,nm->...sntm", self.local, identity)

    def _joining_blocks(self) -> Float[Tensor, "*batch state region state region"]:
        """What the states of each region do to those of all others."""
        return torch.einsum(
            "...nsk,...nm,...mkt->...sntm",
            self.input_gain,
            self.coupling,
            self.output_gain,
        )


def identity_like(matrix: Tensor, size: int | None = None) -> Tensor:
    """An identity matrix of the matrix's dtype and device, and of its size unless
    another is given."""
    size = matrix.shape[-1] if size is None else size
    return torch.eye(size, dtype=matrix.dtype, device=matrix.device)


def loop_matrix(
    gain: Inexact[Tensor, "*#batch region k l"],
    coupling: Inexact[Tensor, "*#batch region region"],
) -> Inexact[Tensor, "*members n n"]:
    """One passage through the network: what the regions send, joined by the coupling
    and answered with the gain; rows (region, k)."""
    k = gain.shape[-1]
    # With one coupling variable the loop is a plain product of rows.
    if k == 1:
        return gain[..., 0] * coupling
    loop = torch.einsum("...nkl,...nm->...nkml", gain, coupling)
    return loop.reshape(*loop.shape[:-4], loop.shape[-4] * k, -1)


def local_rates(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Tensor:
    """Eigenvalues (1/s) of each region by itself at states x, its input held: (*batch,
    region, state)."""
    with torch.enable_grad():
        u = brain.coupling(x)
    return torch.linalg.eigvals(local_drift(brain.mass, x, u).jacobian)


def linearise(brain: Brain, x: Float[Tensor, "state *batch region"]) -> Linearisation:
    """First derivatives of the brain at states x, differentiable in its parameters.

    Delays do not enter: they change neither equilibria nor the answer to a lasting
    input.
    """
    differentiable = torch.is_grad_enabled() and brain.drift(x).requires_grad
    mass = brain.mass
    with torch.enable_grad():
        # Copies, so that derivatives are by states and input separately although input
        # follows from states.
        states = as_variable(x)
        u = as_variable(brain.coupling(x))
        rates = mass.drift(states, u)
        signals = mass.output(states)
        by_state, by_input = derivatives(
            rates, (states, u), differentiable=differentiable
        )
        (output_gain,) = derivatives(signals, (states,), differentiable=differentiable)
        (activity_gain,) = derivatives(
            [mass.activity(states)], (states,), differentiable=differentiable
        )
    return Linearisation(
        local=as_matrices(by_state),
        input_gain=as_matrices(by_input),
        output_gain=as_matrices(output_gain),
        activity_gain=activity_gain[0].movedim(0, -1),
        coupling=_coupling_matrix(brain, x),
    )


def _coupling_matrix(brain: Brain, like: Tensor) -> Tensor:
    strength = as_tensor_like(brain.strength, like)
    if strength.ndim:
        # Weights have one axis more than parameters: (*batch, receiver, sender).
        strength = strength.unsqueeze(-1)
    return strength * brain.connectome.weights


def fixed_point(
    brain: Brain,
    start: Float[Tensor, "state *batch region"] | None = None,
    *,
    tolerance: float | None = None,
    damping: float = 50.0,
    steps: int = 200,
    strict: bool = True,
) -> Float[Tensor, "state *members region"]:
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

    Raises InputError for a mass that breaks its own declarations.
    """
    x = brain.resting_state() if start is None else brain.batched(start)
    check_brain(brain, x)
    tolerance = _resolvable(x.dtype) if tolerance is None else tolerance
    with torch.no_grad():
        settled, drift = _settle(brain, x, tolerance, damping, steps)
        if strict and not drift < tolerance:
            raise _no_equilibrium(steps, drift)
        at = linearise(brain, settled)
    # The Jacobian is a constant here: one step of which only the drift has a gradient
    # gives the gradient of the equilibrium (implicit function theorem).
    return settled + newton_step(at, brain.drift(settled))


def _no_equilibrium(steps: int, drift: float) -> ConvergenceError:
    return ConvergenceError(
        f"No equilibrium found in {steps} steps (largest drift {drift:.2g} /s); the "
        "brain may oscillate. Lower the coupling strength, or start nearer to the "
        "state you expect."
    )


def _resolvable(dtype: torch.dtype) -> float:
    """The largest drift (1/s) that counts as none: 1e-8, or what the dtype can
    resolve."""
    return max(1e-8, 500 * torch.finfo(dtype).eps)


def _settle(
    brain: Brain, x: Tensor, tolerance: float, damping: float, steps: int
) -> tuple[Tensor, float]:
    """The equilibrium that the dynamics approach from x, and the largest drift left;
    with shorter and shorter first steps until one succeeds."""

    def advance(x: Tensor, drift: Tensor, current_damping: Tensor | float) -> Tensor:
        step = newton_step(linearise(brain, x), drift, current_damping)
        return confine(brain.mass, x + step)

    for first_damping in _first_dampings(damping):
        settled, drift = pseudo_transient(
            brain.drift,
            advance,
            x,
            damping=first_damping,
            tolerance=tolerance,
            max_steps=steps,
        )
        if drift < tolerance:
            break
    return settled, drift


def _first_dampings(damping: float) -> tuple[float, ...]:
    """The dampings to begin with, one after the other until a search succeeds."""
    # Without damping there is no first step to shorten.
    if not damping:
        return (damping,)
    # Around a limit cycle long first steps lead nowhere; shorter ones follow the flow
    # more closely.
    return damping, 4 * damping, 20 * damping


def newton_step(
    at: Linearisation,
    residual: Float[Tensor, "state *batch region"],
    damping: Tensor | float = 0.0,
) -> Float[Tensor, "state *batch region"]:
    """The step that would cancel the residual if the brain were linear (and every state
    decayed by `damping` more)."""
    column = residual.movedim(0, -1).unsqueeze(-1)
    at = _more_damped(at, damping)
    # Each region by itself first, then what its step does to all others.
    own_step = -torch.linalg.solve(at.local, column)
    change = _output_change(at, (at.output_gain @ own_step).squeeze(-1))
    received = (at.coupling @ change).unsqueeze(-1)
    step = own_step - torch.linalg.solve(at.local, at.input_gain) @ received
    return step.squeeze(-1).movedim(-1, 0)


def _output_change(
    at: Linearisation, sent: Float[Tensor, "*batch region coupling"]
) -> Float[Tensor, "*batch region coupling"]:
    """Change of every output once all regions have answered to what was `sent`."""
    loop = at.loop
    change = solve_vector(identity_like(loop) - loop, sent.flatten(-2))
    return change.reshape(sent.shape)


def _more_damped(at: Linearisation, damping: Tensor | float) -> Linearisation:
    """The same brain, every state of which decays by `damping` (1/s, one value or one
    per batch member) more."""
    extra = as_tensor_like(damping, at.local)
    decay = extra[..., None, None, None] * identity_like(at.local)
    return replace(at, local=at.local - decay)


def noise_amplitude(brain: Brain, like: Tensor) -> Float[Tensor, "*batch region state"]:
    """Amplitude of the noise on every state; one region stands for all where the noise
    is not regional."""
    # Amplitudes, not variances: Q is the product of this with its transpose.
    shares = like.new_tensor([state.noise for state in brain.mass.states])
    noise = as_tensor_like(brain.noise, like)
    if noise.ndim == 0:
        noise = noise.reshape(1)
    return noise.unsqueeze(-1) * shares


def slow_covariance(
    brain: Brain, at: Linearisation
) -> Float[Tensor, "*batch region region"]:
    """Zero-frequency cross-spectrum of activity: what a slow observer such as BOLD
    sees, up to its own gain."""
    amplitude = torch.diag_embed(noise_amplitude(brain, at.local))
    state_noise = torch.linalg.solve(at.local, amplitude)
    activity_row = at.activity_gain.unsqueeze(-2)
    by_input = torch.linalg.solve(at.local, at.input_gain)
    return network_covariance(
        at.loop,
        at.output_gain @ state_noise,
        (activity_row @ state_noise).squeeze(-2),
        -(activity_row @ by_input).squeeze(-2),
        at.coupling,
    )


def network_covariance(
    loop: Tensor,
    output_noise: Tensor,
    activity_noise: Tensor,
    activity_response: Tensor,
    coupling: Tensor,
) -> Tensor:
    """Covariance of the joined regions' activity. Real, or complex (a cross-spectrum at
    one frequency).

    loop: (…, n·k, n·k), gain of one passage through the network
    output_noise: (…, n, k, noise), outputs of a region by itself per unit of each noise
    activity_noise: (…, n, noise), the same for its activity
    activity_response: (…, n, k), activity of a region by itself per unit of each input
    coupling: (…, n, n)
    """
    open_loop = identity_like(loop) - loop
    if _is_output(output_noise, activity_noise):
        # The sensor records what is sent: one solve is enough.
        amplitude = power(activity_noise).sqrt().to(loop.dtype)
        total = torch.linalg.solve(open_loop, torch.diag_embed(amplitude))
        return total @ total.mH
    mixing = _network_response(open_loop, activity_response, coupling)
    from_network = torch.einsum("...nmk,...mkq->...nmq", mixing, output_noise)
    own = torch.diag_embed(activity_noise.movedim(-1, -2)).movedim(-3, -1)
    total = (from_network + own).flatten(-2)
    return total @ total.mH


def _network_response(
    open_loop: Tensor, activity_response: Tensor, coupling: Tensor
) -> Tensor:
    """Activity of each region per unit of each output of each other, all passages
    through the network together: (…, n, n, k)."""
    n, k = activity_response.shape[-2:]
    direct = activity_response.unsqueeze(-2) * coupling.unsqueeze(-1)
    direct = direct.reshape(*direct.shape[:-2], n * k)
    mixing = torch.linalg.solve(open_loop, direct, left=False)
    return mixing.reshape(*mixing.shape[:-1], n, k)


def _is_output(output_noise: Tensor, activity_noise: Tensor) -> bool:
    """Whether noise moves activity exactly as it moves the only output."""
    if output_noise.shape[-2] != 1:
        return False
    if output_noise.shape[-1] != activity_noise.shape[-1]:
        return False
    return torch.equal(output_noise[..., 0, :], activity_noise)


def power(z: Tensor) -> Tensor:
    """Sum of squared moduli over the last axis."""
    if z.is_complex():
        return (z.real.square() + z.imag.square()).sum(-1)
    return z.square().sum(-1)


def analytic_fc(
    brain: Brain, x: Tensor | None = None
) -> Float[Tensor, "*batch region region"]:
    """Functional connectivity of the linearised brain at its equilibrium, in closed
    form.

    BOLD is slow against the neurons, so its correlations are those of the
    zero-frequency cross-spectrum A⁻¹ Q A⁻ᵀ; a haemodynamic response shared by all
    regions cancels. Valid for small noise and a stable equilibrium.
    """
    if x is None:
        x = fixed_point(brain)
    return correlation(slow_covariance(brain, linearise(brain, x)))
