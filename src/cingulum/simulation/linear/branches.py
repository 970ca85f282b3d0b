"""How equilibria of one region move, appear and vanish as parameters change: curves,
folds, and stability maps.

Figure 2 of Griffiths et al. 2022, computed instead of drawn. A region is taken by
itself (input 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, get, with_values
from cingulum.errors import ConvergenceError, InputError


@dataclass(frozen=True, eq=False)
class Curve:
    """Equilibria along one parameter.

    table: a row a point, in the order of each curve: `branch`, the parameter, every
        state, `growth` (1/s, leading eigenvalue), `frequency` (Hz, 0 for a real one)
        and `stable`
    folds, hopfs: the bifurcations met, refined to rounding: the parameter, every state,
        and for a Hopf its frequency
    """

    parameter: str
    table: pd.DataFrame
    folds: pd.DataFrame
    hopfs: pd.DataFrame


def continuation(
    mass: Dynamics,
    parameter: str,
    low: float,
    high: float,
    *,
    step: float = 0.01,
    most: int = 5000,
) -> Curve:
    """Follow every equilibrium that exists at `low` or `high` round all folds until the
    parameter leaves (low, high).

    Pseudo-arclength continuation (Keller 1977): the parameter is an unknown like the
    states, so that folds are no obstacle. `step` is the length of a first step, as a
    share of the parameter's range and the states' own scale. A curve that is closed
    inside the range is missed.
    """
    system = _System(mass, parameter, low, high)
    branches: list[np.ndarray] = []
    for begin in (0.0, 1.0):
        for z in system.ends(begin):
            if not any(
                np.allclose(z, points[-1], atol=0.05) or np.allclose(z, points[0])
                for points in branches
            ):
                branches.append(_follow(system, z, step, most))
    if not branches:
        raise ConvergenceError(
            f"No equilibrium at {parameter} = {low} or {high}: widen the range."
        )
    return _curve(system, branches)


def _follow(system: _System, z: np.ndarray, step: float, most: int) -> np.ndarray:
    inwards = np.eye(len(z))[-1] * (1 if z[-1] == 0 else -1)
    tangent = system.tangent(z, inwards)
    points = [z]
    for _ in range(most):
        z, tangent, step = system.advance(z, tangent, step)
        points.append(z)
        if not 0 <= z[-1] <= 1:
            break
    return np.array(points)


class _System:
    """Drift of one region as a function of (states, share of the parameter's range)."""

    def __init__(self, mass: Dynamics, parameter: str, low: float, high: float) -> None:
        if not high > low:
            raise InputError(f"Continuation needs low < high; came {low} and {high}.")
        get(mass, parameter)
        self.mass, self.parameter, self.low, self.high = mass, parameter, low, high
        self.states = len(mass.states)

    def value(self, share: float) -> float:
        return float(self.low + share * (self.high - self.low))

    def drift(self, z: Tensor) -> Tensor:
        mass = with_values(
            self.mass, {self.parameter: self.low + z[-1] * (self.high - self.low)}
        )
        return local_drift(mass, z[:-1].unsqueeze(-1)).squeeze(-1)

    def residual(self, z: np.ndarray) -> np.ndarray:
        return self.drift(torch.as_tensor(z, dtype=torch.float64)).detach().numpy()

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        return torch.autograd.functional.jacobian(
            self.drift, torch.as_tensor(z, dtype=torch.float64)
        ).numpy()

    def ends(self, share: float) -> list[np.ndarray]:
        """Every equilibrium at one end of the range."""
        found = equilibria(with_values(self.mass, {self.parameter: self.value(share)}))
        return [
            np.append(x, share)
            for x in found[[s.name for s in self.mass.states]].to_numpy()
        ]

    def tangent(self, z: np.ndarray, along: np.ndarray) -> np.ndarray:
        direction = np.linalg.solve(
            np.vstack([self.jacobian(z), along]), np.eye(len(z))[-1]
        )
        return direction / np.linalg.norm(direction)

    def advance(
        self, z: np.ndarray, tangent: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        while step > 1e-7:
            ahead, ok = self.correct(z + step * tangent, tangent)
            if ok:
                new = self.tangent(ahead, tangent)
                if new @ tangent > 0.95:  # a sharp turn wants shorter steps
                    return ahead, new, min(step * 1.3, 0.02)
            step /= 2
        raise ConvergenceError(
            f"The curve cannot be followed beyond {self.parameter} = "
            f"{self.value(z[-1]):.6g}."
        )

    def correct(
        self, guess: np.ndarray, tangent: np.ndarray
    ) -> tuple[np.ndarray, bool]:
        z = guess
        for _ in range(12):
            change = np.linalg.solve(
                np.vstack([self.jacobian(z), tangent]),
                -np.append(self.residual(z), tangent @ (z - guess)),
            )
            z = z + change
            if np.abs(change).max() < 1e-11:
                return z, True
        return z, False

    def rates(self, z: np.ndarray) -> np.ndarray:
        return np.linalg.eigvals(self.jacobian(z)[:, : self.states])

    def fold(self, z: np.ndarray) -> float:
        """Vanishes where an eigenvalue is zero."""
        return float(np.linalg.det(self.jacobian(z)[:, : self.states]))

    def lead(self, z: np.ndarray) -> float:
        """Vanishes where the leading eigenvalue crosses the imaginary axis."""
        return float(self.rates(z).real.max())

    def refine(self, z: np.ndarray, test: Callable[[np.ndarray], float]) -> np.ndarray:
        """The point of the curve near z at which `test` vanishes (Newton with a
        numerical last row)."""
        for _ in range(30):
            slope = np.array(
                [(test(z + h) - test(z - h)) / 2e-6 for h in 1e-6 * np.eye(len(z))]
            )
            change = np.linalg.solve(
                np.vstack([self.jacobian(z), slope]),
                -np.append(self.residual(z), test(z)),
            )
            z = z + change
            if np.abs(change).max() < 1e-10:
                return z
        raise ConvergenceError(
            f"A bifurcation near {self.parameter} = {self.value(z[-1]):.6g} could not "
            "be located."
        )


def _curve(system: _System, branches: list[np.ndarray]) -> Curve:
    names = [s.name for s in system.mass.states]
    tables, folds, hopfs = [], [], []
    for number, points in enumerate(branches):
        rates = [system.rates(z) for z in points]
        lead = np.array([r[r.real.argmax()] for r in rates])
        table = pd.DataFrame(points[:, :-1], columns=names)
        table.insert(0, "branch", number)
        table.insert(
            1, system.parameter, [system.value(share) for share in points[:, -1]]
        )
        table["growth"], table["frequency"] = lead.real, np.abs(lead.imag) / (2 * np.pi)
        table["stable"] = lead.real < 0
        tables.append(table[(points[:, -1] >= 0) & (points[:, -1] <= 1)])
        turn = np.array([system.fold(z) for z in points])
        for i in range(len(points) - 1):
            if turn[i] * turn[i + 1] < 0:
                folds.append(_located(system, points[i : i + 2], system.fold))
            elif (
                lead[i].real * lead[i + 1].real < 0
                and lead[i].imag != 0
                and lead[i + 1].imag != 0
            ):
                hopfs.append(_located(system, points[i : i + 2], system.lead))
    columns = [system.parameter, *names, "frequency"]
    return Curve(
        system.parameter,
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(folds, columns=columns).drop(columns="frequency"),
        pd.DataFrame(hopfs, columns=columns),
    )


def _located(
    system: _System, pair: np.ndarray, test: Callable[[np.ndarray], float]
) -> list[float]:
    scale = max(abs(test(pair[0])), abs(test(pair[1])))
    z = system.refine(pair.mean(0), lambda z: test(z) / scale)
    frequency = np.abs(system.rates(z).imag).max() / (2 * np.pi)
    return [system.value(z[-1]), *z[:-1], frequency]


def local_drift(mass: Dynamics, x: Tensor) -> Tensor:
    """Drift of regions by themselves."""
    u = torch.zeros_like(x[0])
    return mass.drift(
        x, u if mass.couplings == 1 else u.expand(mass.couplings, *u.shape)
    )


def equilibria(
    mass: Dynamics, starts: int = 64, tolerance: float = 1e-9
) -> pd.DataFrame:
    """Every equilibrium of one region found by Newton's method from many starts, with
    its stability.

    Starts are spread over the domain that the states declare, or over ±20 resting
    values where they declare none; an equilibrium that no start leads to is missed.
    """
    found = _solve(mass, _spread(mass, starts), tolerance)
    x, lead, ok = (part[..., 0, :] for part in found)
    table = pd.DataFrame(x.T.numpy(), columns=[s.name for s in mass.states])
    table["growth"], table["frequency"] = (
        lead.real.numpy(),
        lead.imag.abs().numpy() / (2 * np.pi),
    )
    table["stable"] = table["growth"] < 0
    table = table[ok.numpy()]
    names = [s.name for s in mass.states]
    keys = table[names].div(table[names].abs().max().clip(lower=1e-12)).round(6)
    return table[~keys.duplicated()].sort_values(names[0]).reset_index(drop=True)


def stability_map(
    mass: Dynamics,
    first: tuple[str, np.ndarray],
    second: tuple[str, np.ndarray],
    starts: int = 96,
) -> pd.DataFrame:
    """How many equilibria one region has over a plane of two parameters, all, and
    stable ones (figure 2B).

    first, second: (parameter, values). Returns a table with a row for every pair: both
    parameters, `equilibria` and `stable`; two or more stable ones mean bistability.
    `cingulum.report.bifurcations.stability_plane` draws it.
    """
    (one, a), (two, b) = first, second
    grid_a, grid_b = (
        torch.as_tensor(g, dtype=torch.float64).reshape(-1, 1)
        for g in np.meshgrid(a, b, indexing="ij")
    )
    # The batch axis is the plane, the region axis the starts.
    x, lead, ok = _solve(
        with_values(mass, {one: grid_a, two: grid_b}),
        _spread(mass, starts),
        1e-9,
        len(grid_a),
    )
    rows = [_count(x[:, i], lead[i], ok[i]) for i in range(len(grid_a))]
    table = pd.DataFrame(rows, columns=["equilibria", "stable"])
    table.insert(0, one, grid_a[:, 0].numpy())
    table.insert(1, two, grid_b[:, 0].numpy())
    return table


def _count(x: Tensor, lead: Tensor, ok: Tensor) -> tuple[int, int]:
    keys = (x[:, ok] * 1e5).round().T.tolist()
    stable = {tuple(k): g.item() < 0 for k, g in zip(keys, lead[ok].real, strict=True)}
    return len(stable), sum(stable.values())


def _spread(mass: Dynamics, starts: int) -> Tensor:
    sobol = torch.quasirandom.SobolEngine(len(mass.states), scramble=False)
    share = sobol.draw(starts + 1, dtype=torch.float64)[1:].T
    rows = []
    for state, s in zip(mass.states, share, strict=True):
        wide = 20 * max(abs(state.rest), 0.05)
        low = state.low if state.low is not None else state.rest - wide
        high = state.high if state.high is not None else state.rest + wide
        rows.append(low + (high - low) * s)
    rows[0][0] = mass.states[0].rest
    return torch.stack(rows)


def _solve(
    mass: Dynamics, starts: Tensor, tolerance: float, plane: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton from every start in every member of the plane: states, leading
    eigenvalues, and which arrived."""
    x = starts.unsqueeze(1).expand(-1, plane, -1).clone()
    for _ in range(80):
        rates, local = _local(mass, x)
        step = (
            -torch.linalg.solve(local, rates.movedim(0, -1).unsqueeze(-1))
            .squeeze(-1)
            .movedim(-1, 0)
        )
        scale = (
            (step.abs() / (0.2 + 0.5 * x.abs())).amax(0).clamp_min(1.0)
        )  # no leaps over other equilibria
        x = x + torch.nan_to_num(step / scale, 0.0, 0.0, 0.0)
    rates, local = _local(mass, x)
    lead = torch.linalg.eigvals(local)
    lead = lead.gather(-1, lead.real.argmax(-1, keepdim=True)).squeeze(-1)
    size = 1 + local.abs().amax((-1, -2))
    ok = (rates.abs().amax(0) < 1e3 * tolerance * size) & _inside(mass, x)
    return x, lead, ok


def _inside(mass: Dynamics, x: Tensor) -> Tensor:
    ok = torch.ones_like(x[0], dtype=torch.bool)
    for state, component in zip(mass.states, x, strict=True):
        ok &= component >= (-torch.inf if state.low is None else state.low)
        ok &= component <= (torch.inf if state.high is None else state.high)
    return ok


def _local(mass: Dynamics, x: Tensor) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        states = x.detach().requires_grad_()
        rates = local_drift(mass, states)
        rows = [
            torch.autograd.grad(
                r.sum(), states, retain_graph=True, materialize_grads=True
            )[0]
            for r in rates
        ]
    eye = 1e-14 * torch.eye(
        len(rows), dtype=x.dtype
    )  # a flat direction gets no infinite step
    return rates.detach(), torch.stack(rows).movedim((0, 1), (-2, -1)) + eye
