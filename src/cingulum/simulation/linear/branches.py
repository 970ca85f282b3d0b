"""How equilibria of one region move, appear and vanish as parameters change: curves,
folds, and stability maps.

Figure 2 of Griffiths et al. 2022, computed instead of drawn. A region is studied by
itself (input 0).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cingulum.brain.dynamics import Dynamics, State, get, with_values, zero_input
from cingulum.brain.mass_contract import check_mass
from cingulum.errors import ConvergenceError, InputError
from cingulum.simulation.linear.equilibrium import identity_like
from cingulum.simulation.linear.jacobian import (
    LocalDrift,
    leading,
    local_drift,
    system_jacobian,
)
from cingulum.simulation.linear.root_finding import (
    Iterate,
    capped_newton,
    newton,
    regional_step,
)

LONGEST_STEP = 0.02
SHORTEST_STEP = 1e-7
"""Steps along a curve, as a share of the parameter's range and the states' scale."""


@dataclass(frozen=True, eq=False)
class Curve:
    """Equilibria along one parameter.

    table: one row per point, in the order of each curve: `branch`, the parameter, every
        state, `growth` (1/s, leading eigenvalue), `frequency` (Hz, 0 for a real one)
        and `stable`
    folds, hopfs: the bifurcations met, refined to rounding: the parameter, every state,
        and for a Hopf its frequency
    """

    parameter: str
    table: pd.DataFrame
    folds: pd.DataFrame
    hopfs: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Equilibria:
    """Where Newton's method ended from many starts: states, (state, plane, start);
    leading eigenvalues and whether the end is an equilibrium, (plane, start)."""

    x: Tensor
    lead: Tensor
    converged: Tensor


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
    for share in (0.0, 1.0):
        for z in system.ends(share):
            if not _is_known(z, branches):
                branches.append(_follow(system, z, step, most))
    if not branches:
        raise ConvergenceError(
            f"No equilibrium at {parameter} = {low} or {high}: widen the range."
        )
    return _curve(system, branches)


def _is_known(z: np.ndarray, branches: list[np.ndarray]) -> bool:
    """Whether an equilibrium at an end of the range is an end of a curve followed
    already."""
    return any(_is_end(z, points) for points in branches)


def _is_end(z: np.ndarray, points: np.ndarray) -> bool:
    """Whether z is the first or the last point of a curve."""
    # Last points are one step beyond the range, hence the wide tolerance.
    return np.allclose(z, points[-1], atol=0.05) or np.allclose(z, points[0])


def _follow(system: _System, z: np.ndarray, step: float, most: int) -> np.ndarray:
    """The points of one curve, from an end of the range until the parameter leaves
    it."""
    into_range = 1 if z[-1] == 0 else -1
    tangent = system.tangent(z, into_range * np.eye(len(z))[-1])
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
            raise InputError(f"Continuation needs low < high; got {low} and {high}.")
        # Refuses a name that the mass does not have.
        get(mass, parameter)
        self.mass = mass
        self.parameter = parameter
        self.low = low
        self.high = high
        self.state_names = [state.name for state in mass.states]

    def value(self, share: float) -> float:
        """The parameter's value at a share of its range."""
        return float(self.low + share * (self.high - self.low))

    def drift(self, z: Tensor) -> Tensor:
        value = self.low + z[-1] * (self.high - self.low)
        mass = with_values(self.mass, {self.parameter: value})
        x = z[:-1].unsqueeze(-1)
        return mass.drift(x, zero_input(mass, x[0])).squeeze(-1)

    def residual(self, z: np.ndarray) -> np.ndarray:
        # Gradients stay enabled, as in the Jacobian: a mass may be evaluated by another
        # formula where none are wanted.
        return self.drift(torch.as_tensor(z, dtype=torch.float64)).detach().numpy()

    def jacobian(self, z: np.ndarray) -> np.ndarray:
        """By states and, in the last column, by the parameter's share."""
        point = torch.as_tensor(z, dtype=torch.float64)
        return system_jacobian(self.drift, point).numpy()

    def state_jacobian(self, z: np.ndarray) -> np.ndarray:
        return self.jacobian(z)[:, :-1]

    def solve_bordered(
        self, z: np.ndarray, last_row: np.ndarray, right: np.ndarray
    ) -> np.ndarray:
        """Solve with the Jacobian and a last row that makes it square: it is regular at
        folds too."""
        return np.linalg.solve(np.vstack([self.jacobian(z), last_row]), right)

    def ends(self, share: float) -> list[np.ndarray]:
        """Every equilibrium at one end of the range."""
        mass = with_values(self.mass, {self.parameter: self.value(share)})
        states = equilibria(mass)[self.state_names].to_numpy()
        return [np.append(x, share) for x in states]

    def tangent(self, z: np.ndarray, along: np.ndarray) -> np.ndarray:
        """Unit tangent of the curve at z, on the side of `along`."""
        direction = self.solve_bordered(z, along, np.eye(len(z))[-1])
        return direction / np.linalg.norm(direction)

    def advance(
        self, z: np.ndarray, tangent: np.ndarray, step: float
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """The next point of the curve, its tangent, and the step to try from there."""
        while step > SHORTEST_STEP:
            search = self.correct(z + step * tangent, tangent)
            if search.converged:
                next_tangent = self.tangent(search.root, tangent)
                # A sharp turn wants shorter steps.
                if next_tangent @ tangent > 0.95:
                    return search.root, next_tangent, min(step * 1.3, LONGEST_STEP)
            step /= 2
        raise ConvergenceError(
            f"The curve cannot be followed beyond {self.parameter} = "
            f"{self.value(z[-1]):.6g}."
        )

    def correct(self, guess: np.ndarray, tangent: np.ndarray) -> Iterate[np.ndarray]:
        """The curve's point in the plane through the guess that the tangent is normal
        to."""

        def step(z: np.ndarray) -> np.ndarray:
            off_plane = tangent @ (z - guess)
            missing = np.append(self.residual(z), off_plane)
            return self.solve_bordered(z, tangent, -missing)

        return newton(step, guess, tolerance=1e-11, max_steps=12)

    def rates(self, z: np.ndarray) -> np.ndarray:
        return np.linalg.eigvals(self.state_jacobian(z))

    def fold(self, z: np.ndarray) -> float:
        """Vanishes where an eigenvalue is zero."""
        return float(np.linalg.det(self.state_jacobian(z)))

    def lead(self, z: np.ndarray) -> float:
        """Vanishes where the leading eigenvalue crosses the imaginary axis."""
        return float(self.rates(z).real.max())

    def refine(self, z: np.ndarray, test: Callable[[np.ndarray], float]) -> np.ndarray:
        """The point of the curve near z at which `test` vanishes (Newton with a
        numerical last row)."""

        def step(z: np.ndarray) -> np.ndarray:
            missing = np.append(self.residual(z), test(z))
            return self.solve_bordered(z, _central_differences(test, z), -missing)

        search = newton(step, z, tolerance=1e-10, max_steps=30)
        if search.converged:
            return search.root
        raise ConvergenceError(
            f"A bifurcation near {self.parameter} = {self.value(search.root[-1]):.6g} "
            "could not be located."
        )


def _central_differences(
    test: Callable[[np.ndarray], float], z: np.ndarray
) -> np.ndarray:
    # A step of 1e-6 balances truncation against rounding in double precision.
    offsets = 1e-6 * np.eye(len(z))
    return np.array([(test(z + h) - test(z - h)) / 2e-6 for h in offsets])


def _curve(system: _System, branches: list[np.ndarray]) -> Curve:
    tables = []
    folds: list[list[float]] = []
    hopfs: list[list[float]] = []
    for number, points in enumerate(branches):
        leads = np.array([_leading(system.rates(z)) for z in points])
        tables.append(_branch_table(system, number, points, leads))
        branch_folds, branch_hopfs = _bifurcations(system, points, leads)
        folds += branch_folds
        hopfs += branch_hopfs
    columns = [system.parameter, *system.state_names, "frequency"]
    return Curve(
        system.parameter,
        pd.concat(tables, ignore_index=True),
        pd.DataFrame(folds, columns=columns).drop(columns="frequency"),
        pd.DataFrame(hopfs, columns=columns),
    )


def _leading(rates: np.ndarray) -> complex:
    return rates[rates.real.argmax()]


def _branch_table(
    system: _System, number: int, points: np.ndarray, leads: np.ndarray
) -> pd.DataFrame:
    """The points of one curve that lie in the range, as rows."""
    share = points[:, -1]
    table = pd.DataFrame(points[:, :-1], columns=system.state_names)
    table.insert(0, "branch", number)
    table.insert(1, system.parameter, [system.value(s) for s in share])
    table["growth"] = leads.real
    table["frequency"] = np.abs(leads.imag) / (2 * np.pi)
    table["stable"] = leads.real < 0
    return table[(share >= 0) & (share <= 1)]


def _bifurcations(
    system: _System, points: np.ndarray, leads: np.ndarray
) -> tuple[list[list[float]], list[list[float]]]:
    """Folds and Hopf points between successive points of one curve."""
    folds = []
    hopfs = []
    determinants = [system.fold(z) for z in points]
    for i in range(len(points) - 1):
        pair = points[i : i + 2]
        if determinants[i] * determinants[i + 1] < 0:
            folds.append(_locate(system, pair, system.fold))
        elif _is_hopf(leads[i], leads[i + 1]):
            hopfs.append(_locate(system, pair, system.lead))
    return folds, hopfs


def _is_hopf(before: complex, after: complex) -> bool:
    """Whether a complex pair crosses the imaginary axis between two points."""
    oscillates = before.imag != 0 and after.imag != 0
    return oscillates and before.real * after.real < 0


def _locate(
    system: _System, pair: np.ndarray, test: Callable[[np.ndarray], float]
) -> list[float]:
    """Parameter, states and frequency of the bifurcation between two points."""
    # Determinants may be of any size; Newton's method wants order one.
    scale = max(abs(test(pair[0])), abs(test(pair[1])))
    z = system.refine(pair.mean(0), lambda z: test(z) / scale)
    frequency = np.abs(system.rates(z).imag).max() / (2 * np.pi)
    return [system.value(z[-1]), *z[:-1], frequency]


def equilibria(
    mass: Dynamics, starts: int = 64, tolerance: float = 1e-9
) -> pd.DataFrame:
    """Every equilibrium of one region found by Newton's method from many starts, with
    its stability.

    Starts are spread over the domain that the states declare, or over ±20 resting
    values where they declare none; an equilibrium that no start leads to is missed.
    """
    search = _solve(mass, _spread(mass, starts), tolerance)
    names = [state.name for state in mass.states]
    table = _ends_table(search, names)
    # Ends that agree to six digits of each state's scale are one equilibrium.
    scale = table[names].abs().max().clip(lower=1e-12)
    repeated = table[names].div(scale).round(6).duplicated()
    return table[~repeated].sort_values(names[0]).reset_index(drop=True)


def _ends_table(search: Equilibria, names: list[str]) -> pd.DataFrame:
    """Converged ends of the first member of the plane, one row per start."""
    lead = search.lead[0]
    table = pd.DataFrame(search.x[:, 0].T.numpy(), columns=names)
    table["growth"] = lead.real.numpy()
    table["frequency"] = lead.imag.abs().numpy() / (2 * np.pi)
    table["stable"] = table["growth"] < 0
    return table[search.converged[0].numpy()]


def stability_map(
    mass: Dynamics,
    first: tuple[str, np.ndarray],
    second: tuple[str, np.ndarray],
    starts: int = 96,
) -> pd.DataFrame:
    """How many equilibria one region has over a plane of two parameters, all, and
    stable ones (figure 2B).

    first, second: (parameter, values). Returns a table with one row per pair: both
    parameters, `equilibria` and `stable`; two or more stable ones mean bistability.
    `cingulum.report.bifurcations.stability_plane` draws it.
    """
    first_name, first_values = first
    second_name, second_values = second
    first_grid, second_grid = np.meshgrid(first_values, second_values, indexing="ij")
    plane = {first_name: first_grid.ravel(), second_name: second_grid.ravel()}
    size = first_grid.size
    search = _solve(_over_plane(mass, plane), _spread(mass, starts), 1e-9, size)
    counts = [_count(search, i) for i in range(size)]
    counts_table = pd.DataFrame(counts, columns=["equilibria", "stable"])
    return pd.concat([pd.DataFrame(plane, dtype=float), counts_table], axis=1)


def _over_plane(mass: Dynamics, plane: dict[str, np.ndarray]) -> Dynamics:
    """The mass with all pairs of values: the batch axis is the plane, the region axis
    is left to the starts."""
    values = {}
    for name, grid in plane.items():
        values[name] = torch.as_tensor(grid, dtype=torch.float64).reshape(-1, 1)
    return with_values(mass, values)


def _count(search: Equilibria, member: int) -> tuple[int, int]:
    """Distinct equilibria of one member of the plane, and how many are stable."""
    converged = search.converged[member]
    states = search.x[:, member, converged]
    growth = search.lead[member, converged].real
    # Ends that agree to five decimals are one equilibrium.
    keys = (states * 1e5).round().T.tolist()
    stable = {}
    for key, rate in zip(keys, growth.tolist(), strict=True):
        stable[tuple(key)] = rate < 0
    return len(stable), sum(stable.values())


def _spread(mass: Dynamics, starts: int) -> Tensor:
    """Starts (state, start), evenly over the domain of the states, rest among them."""
    sobol = torch.quasirandom.SobolEngine(len(mass.states), scramble=False)
    # The first point of the sequence is the corner of the domain.
    shares = sobol.draw(starts + 1, dtype=torch.float64)[1:].T
    rows = []
    for state, share in zip(mass.states, shares, strict=True):
        low, high = _domain(state)
        rows.append(low + (high - low) * share)
    rows[0][0] = mass.states[0].rest
    return torch.stack(rows)


def _domain(state: State) -> tuple[float, float]:
    """Bounds of a state, 20 resting values away where it declares none."""
    margin = 20 * max(abs(state.rest), 0.05)
    low = state.rest - margin if state.low is None else state.low
    high = state.rest + margin if state.high is None else state.high
    return low, high


def _solve(
    mass: Dynamics, starts: Tensor, tolerance: float, plane: int = 1
) -> Equilibria:
    """Newton's method from every start in every member of the plane."""
    x = starts.unsqueeze(1).expand(-1, plane, -1).clone()
    check_mass(mass, x[0])

    def step(x: Tensor) -> Tensor:
        local = _uncoupled(mass, x)
        return regional_step(local.jacobian, local.rates)

    x = capped_newton(step, x, steps=80)
    local = _uncoupled(mass, x)
    # A drift is small against the rates at which states move.
    size = 1 + local.jacobian.abs().amax((-1, -2))
    is_root = local.rates.abs().amax(0) < 1e3 * tolerance * size
    lead, _ = leading(torch.linalg.eigvals(local.jacobian))
    return Equilibria(x, lead, is_root & _in_domain(mass, x))


def _uncoupled(mass: Dynamics, x: Tensor) -> LocalDrift:
    """Drift and Jacobian of regions that receive nothing."""
    local = local_drift(mass, x, zero_input(mass, x[0]))
    # A flat direction gets no infinite step.
    ridge = 1e-14 * identity_like(local.jacobian)
    return LocalDrift(local.rates, local.jacobian + ridge)


def _in_domain(mass: Dynamics, x: Tensor) -> Tensor:
    """Whether every state is inside the domain that it declares."""
    inside = torch.ones_like(x[0], dtype=torch.bool)
    for state, component in zip(mass.states, x, strict=True):
        if state.low is not None:
            inside &= component >= state.low
        if state.high is not None:
            inside &= component <= state.high
    return inside
