"""What a sensor records of the linearised brain, frequency by frequency: delays,
haemodynamics, noise, leadfield."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from cingulum.brain.brain import Brain
from cingulum.brain.dynamics import Response, as_tensor_like, resting
from cingulum.brain.sensor import Sensor
from cingulum.errors import ConvergenceError
from cingulum.simulation.linear.equilibrium import (
    Linearisation,
    fixed_point,
    identity_like,
    linearise,
    loop_matrix,
    network_covariance,
    noise_amplitude,
)
from cingulum.simulation.linear.jacobian import (
    as_matrices,
    as_variable,
    derivatives,
    local_drift,
)
from cingulum.simulation.linear.root_finding import newton, regional_step, solve_vector

ALIASED_SHARE = 1e-4
"""Power above half the sampling rate, as a share of that below, that is left out."""


def cross_spectrum(
    brain: Brain,
    frequencies: Float[Tensor, "frequency"],
    x: Tensor | None = None,
    at: Linearisation | None = None,
) -> Complex[Tensor, "*batch frequency channel channel"]:
    """Two-sided cross-spectral density of the recorded signal at each frequency (unit²
    per Hz, complex).

    frequencies: Hz, below half the sampling rate
    x: equilibrium, if known

    Differentiable in every parameter, conduction speed and regional haemodynamics
    included. Exact for a linear brain; valid for small noise around a stable
    equilibrium. Sampling folds frequencies above half the sampling rate back (one
    sideband on either side is kept, where the sensor lets it through), and measurement
    noise is white.
    """
    x = fixed_point(brain) if x is None else x
    at = linearise(brain, x) if at is None else at
    rate = 1 / brain.sensor.tr
    total = _regional_spectrum(brain, at, x, frequencies)
    for k in (-1, 1):
        sideband = frequencies + k * rate
        if _passes(brain, x, frequencies, sideband):
            total = total + _regional_spectrum(brain, at, x, sideband)
    total = _through_leadfield(brain.sensor, total)
    return total + _measurement_noise(brain, total)


def _through_leadfield(sensor: Sensor, spectrum: Tensor) -> Tensor:
    """The cross-spectrum of channels, where regions are not recorded one by one."""
    if sensor.leadfield is None:
        return spectrum
    leadfield = sensor.leadfield.to(spectrum.dtype)
    return leadfield @ spectrum @ leadfield.mT


def _passes(brain: Brain, x: Tensor, frequencies: Tensor, sideband: Tensor) -> bool:
    """Whether the sensor lets enough of a sideband through to matter."""
    with torch.no_grad():
        below = _largest_gain(brain, x, frequencies)
        above = _largest_gain(brain, x, sideband)
    return bool((above / below) ** 2 > ALIASED_SHARE)


def _largest_gain(brain: Brain, x: Tensor, f: Tensor) -> Tensor:
    """The sensor's largest gain at any of the frequencies, in any region."""
    activity = brain.mass.activity(x)
    return transfer_function(brain.sensor.response, activity, f).abs().max()


def _regional_spectrum(
    brain: Brain, at: Linearisation, x: Tensor, f: Float[Tensor, "frequency"]
) -> Tensor:
    """Cross-spectral density behind the sensor's response, region by region."""
    activity = activity_spectrum(brain, at, f)
    response = transfer_function(brain.sensor.response, brain.mass.activity(x), f)
    return response.unsqueeze(-1) * activity * response.conj().unsqueeze(-2)


def activity_spectrum(
    brain: Brain, at: Linearisation, f: Float[Tensor, "frequency"]
) -> Complex[Tensor, "*batch frequency region region"]:
    """Cross-spectral density of the regions' activity, before any sensor."""
    omega = _angular(f, at.local.dtype)
    # What follows has a frequency axis before that of regions:
    # (*batch, frequency, region, …).
    resolvent = torch.linalg.inv(_shifted(omega, at.local))
    amplitude = noise_amplitude(brain, at.local)[..., None, :, None, :]
    state_noise = resolvent * amplitude
    output_gain = at.output_gain.unsqueeze(-4).to(resolvent.dtype)
    activity_row = at.activity_gain[..., None, :, None, :].to(resolvent.dtype)
    by_input = resolvent @ at.input_gain.unsqueeze(-4).to(resolvent.dtype)
    coupling = _delayed_coupling(brain, at.coupling, omega)
    return network_covariance(
        loop_matrix(output_gain @ by_input, coupling),
        output_gain @ state_noise,
        (activity_row @ state_noise).squeeze(-2),
        (activity_row @ by_input).squeeze(-2),
        coupling,
    )


def _angular(f: Float[Tensor, "frequency"], dtype: torch.dtype) -> Tensor:
    """iω: what a time derivative is at each frequency."""
    return 2j * math.pi * f.to(dtype)


def _shifted(
    omega: Complex[Tensor, "frequency"],
    local: Float[Tensor, "*batch region state state"],
) -> Complex[Tensor, "*batch frequency region state state"]:
    """iω − L, for every frequency."""
    return omega[:, None, None, None] * identity_like(local) - local.unsqueeze(-4)


def _delayed_coupling(
    brain: Brain, coupling: Tensor, omega: Complex[Tensor, "frequency"]
) -> Tensor:
    """The coupling at each frequency, where a delay is a turn of phase."""
    delays = brain.delays()
    coupling = coupling.unsqueeze(-3).to(omega.dtype)
    if delays is None:
        return coupling
    phase = omega[:, None, None] * delays.unsqueeze(-3).to(coupling.real.dtype)
    return coupling * torch.exp(-phase)


def transfer_function(
    response: Response,
    drive: Float[Tensor, "*batch region"],
    f: Float[Tensor, "frequency"],
) -> Complex[Tensor, "*batch frequency region"]:
    """How the sensor's response answers activity that varies around `drive`, at each
    frequency (complex)."""
    at = _linear_response(response, drive)
    matrix = _shifted(_angular(f, at.local.dtype), at.local)
    # (*batch, frequency, region, state)
    input_gain = at.input_gain.unsqueeze(-3).to(matrix.dtype)
    output_gain = at.output_gain.unsqueeze(-3).to(matrix.dtype)
    return (output_gain * solve_vector(matrix, input_gain)).sum(-1)


@dataclass(frozen=True, eq=False)
class _LinearResponse:
    """A sensor's response near its rest: Jacobian, and derivatives by the input and of
    the output."""

    local: Float[Tensor, "*batch region state state"]
    input_gain: Float[Tensor, "*batch region state"]
    output_gain: Float[Tensor, "*batch region state"]


def _linear_response(response: Response, drive: Tensor) -> _LinearResponse:
    y = rest_under(response, drive)
    differentiable = torch.is_grad_enabled()
    with torch.enable_grad():
        states = as_variable(y)
        u = as_variable(drive)
        rates = response.drift(states, u)
        signal = response.output(states)
        local, input_gain = derivatives(
            rates, (states, u), differentiable=differentiable
        )
        (output_gain,) = derivatives([signal], (states,), differentiable=differentiable)
    return _LinearResponse(
        as_matrices(local), input_gain.movedim(0, -1), output_gain[0].movedim(0, -1)
    )


def rest_under(
    response: Response, drive: Float[Tensor, "*batch region"]
) -> Float[Tensor, "state *batch region"]:
    """States of a response under lasting activity: Newton's method, region by region;
    carries exact gradients."""

    def step(y: Tensor) -> Tensor:
        return _response_step(response, y.detach(), drive)

    tolerance = max(1e-10, 500 * torch.finfo(drive.dtype).eps)
    y = resting(response, drive)
    # The first step never decides: at weak activity it is short wherever it leads.
    y = y + step(y).detach()
    search = newton(step, y, tolerance=tolerance, max_steps=49, relative=True)
    if not search.converged:
        raise _no_rest(response, drive)
    # Only the last step carries gradients, by the implicit function theorem.
    return search.x.detach() + search.step


def _no_rest(response: Response, drive: Tensor) -> ConvergenceError:
    return ConvergenceError(
        f"{type(response).__name__} finds no rest under activity up to "
        f"{drive.abs().max().item():.3g}: the sensor "
        "expects activity of order one (see the mass's `activity`)."
    )


def _response_step(response: Response, y: Tensor, drive: Tensor) -> Tensor:
    """Newton's step, differentiable in `drive` and the response's parameters, the
    Jacobian held constant."""
    jacobian = local_drift(response, y, drive).jacobian
    return regional_step(jacobian, response.drift(y, drive))


def _measurement_noise(brain: Brain, like: Tensor) -> Tensor:
    """White measurement noise: the same power at every frequency, on the diagonal."""
    noise = as_tensor_like(brain.sensor.noise, like.real)
    level = noise.square() * brain.sensor.tr
    if level.ndim:
        # (*batch, frequency, channel)
        level = level.unsqueeze(-2)
    spread = level + torch.zeros_like(like.real[..., 0])
    return torch.diag_embed(spread).to(like.dtype)
