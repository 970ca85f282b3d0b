"""What a sensor records of the linearised brain, frequency by frequency: delays,
haemodynamics, noise, leadfield."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cingulum.brain.brain import Brain, resting
from cingulum.brain.dynamics import Dynamics
from cingulum.errors import ConvergenceError
from cingulum.simulation.linear.equilibrium import (
    Linearisation,
    fixed_point,
    joined_covariance,
    linearise,
    noise_amplitude,
    through,
)


def cross_spectrum(
    brain: Brain,
    frequencies: Float[Tensor, "frequency"],
    x: Tensor | None = None,
    at: Linearisation | None = None,
) -> Float[Tensor, "*batch frequency channel channel"]:
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
    total = _of_regions(brain, at, x, frequencies)
    for k in (-1, 1):
        if _reaches(brain, x, frequencies, frequencies + k * rate):
            total = total + _of_regions(brain, at, x, frequencies + k * rate)
    if brain.sensor.leadfield is not None:
        leadfield = brain.sensor.leadfield.to(total.dtype)
        total = leadfield @ total @ leadfield.mT
    return total + _measurement(brain, total)


def _reaches(brain: Brain, x: Tensor, kept: Tensor, folded: Tensor) -> bool:
    """Whether the sensor lets enough of the folded frequencies through to matter (a
    ten-thousandth of the power)."""
    with torch.no_grad():
        passed = [
            transfer_function(brain.sensor.response, brain.mass.activity(x), f).abs()
            for f in (kept, folded)
        ]
    return bool((passed[1].max() / passed[0].max()) ** 2 > 1e-4)


def _of_regions(
    brain: Brain, at: Linearisation, x: Tensor, f: Float[Tensor, "frequency"]
) -> Tensor:
    activity = activity_spectrum(brain, at, f)
    response = transfer_function(brain.sensor.response, brain.mass.activity(x), f)
    return response.unsqueeze(-1) * activity * response.conj().unsqueeze(-2)


def activity_spectrum(
    brain: Brain, at: Linearisation, f: Float[Tensor, "frequency"]
) -> Float[Tensor, "*batch frequency region region"]:
    """Cross-spectral density of the regions' activity, before any sensor."""
    omega = 2j * math.pi * f.to(at.local.dtype)
    local = at.local.unsqueeze(-4)
    eye = torch.eye(local.shape[-1], dtype=local.dtype, device=local.device)
    resolvent = torch.linalg.inv(
        omega[:, None, None, None] * eye - local
    )  # (*batch, frequency, region, state, state)
    shaken = resolvent * noise_amplitude(brain, at.local)[..., None, :, None, :]
    outward, inward, seen = (
        at.outward.unsqueeze(-4),
        at.inward.unsqueeze(-4),
        at.seen[..., None, :, None, :],
    )
    inward, outward, seen = (
        part.to(resolvent.dtype) for part in (inward, outward, seen)
    )
    answered = resolvent @ inward
    coupling = _delayed(brain, at.coupling, omega)
    loop = through(outward @ answered, coupling)
    return joined_covariance(
        loop,
        outward @ shaken,
        (seen @ shaken).squeeze(-2),
        (seen @ answered).squeeze(-2),
        coupling,
    )


def _delayed(
    brain: Brain, coupling: Tensor, omega: Float[Tensor, "frequency"]
) -> Tensor:
    delays = brain.delays()
    coupling = coupling.unsqueeze(-3).to(omega.dtype)
    if delays is None:
        return coupling
    return coupling * torch.exp(
        -omega[:, None, None] * delays.unsqueeze(-3).to(coupling.real.dtype)
    )


def transfer_function(
    response: Dynamics,
    drive: Float[Tensor, "*batch region"],
    f: Float[Tensor, "frequency"],
) -> Float[Tensor, "*batch frequency region"]:
    """How the sensor's response answers activity that varies around `drive`, at each
    frequency (complex)."""
    y = rest_under(response, drive)
    keep = torch.is_grad_enabled()
    with torch.enable_grad():
        states = y.clone() if y.requires_grad else y.detach().requires_grad_()
        u = drive.clone() if drive.requires_grad else drive.detach().requires_grad_()
        rates, signal = response.drift(states, u), response.output(states)
        by = [_both(rate, states, u, keep) for rate in rates]
        outward = torch.autograd.grad(signal.sum(), states, create_graph=keep)[
            0
        ].movedim(0, -1)
    local = torch.stack([of_state for of_state, _ in by]).movedim((0, 1), (-2, -1))
    inward = torch.stack([of_input for _, of_input in by], -1)
    omega = 2j * math.pi * f.to(local.dtype)
    eye = torch.eye(local.shape[-1], dtype=local.dtype, device=local.device)
    matrix = omega[:, None, None, None] * eye - local.unsqueeze(-4)
    answer = torch.linalg.solve(
        matrix, inward.unsqueeze(-3).unsqueeze(-1).to(matrix.dtype)
    ).squeeze(-1)
    return (outward.unsqueeze(-3).to(answer.dtype) * answer).sum(-1)


def _both(rate: Tensor, states: Tensor, u: Tensor, keep: bool) -> tuple[Tensor, Tensor]:
    return torch.autograd.grad(
        rate.sum(),
        (states, u),
        create_graph=keep,
        retain_graph=True,
        materialize_grads=True,
    )  # type: ignore[return-value]


def rest_under(
    response: Dynamics, drive: Float[Tensor, "*batch region"]
) -> Float[Tensor, "state *batch region"]:
    """States of a response under lasting activity: Newton's method, region by region;
    carries exact gradients."""
    y, tolerance = (
        resting(response, drive),
        max(1e-10, 500 * torch.finfo(drive.dtype).eps),
    )
    for step in range(50):
        change = _newton(response, y.detach(), drive)
        if step and change.abs().max() < tolerance * (1 + y.abs().max()):
            return y.detach() + change
        y = y + change.detach()
    raise ConvergenceError(
        f"{type(response).__name__} finds no rest under activity up to "
        f"{drive.abs().max().item():.3g}: the sensor "
        "expects activity of order one (see the mass's `activity`)."
    )


def _newton(response: Dynamics, y: Tensor, drive: Tensor) -> Tensor:
    with torch.enable_grad():
        states = y.detach().requires_grad_()
        rates = response.drift(states, drive.detach())
        rows = [
            torch.autograd.grad(
                r.sum(), states, retain_graph=True, materialize_grads=True
            )[0]
            for r in rates
        ]
    local = torch.stack(rows).movedim((0, 1), (-2, -1)).detach()
    residual = response.drift(y, drive).movedim(0, -1).unsqueeze(-1)
    return -torch.linalg.solve(local, residual).squeeze(-1).movedim(-1, 0)


def _measurement(brain: Brain, like: Tensor) -> Tensor:
    noise = torch.as_tensor(
        brain.sensor.noise, dtype=like.real.dtype, device=like.device
    )
    level = noise.square() * brain.sensor.tr
    level = level.unsqueeze(-2) if level.ndim else level  # (*batch, frequency, channel)
    return torch.diag_embed(level + torch.zeros_like(like.real[..., 0])).to(like.dtype)
