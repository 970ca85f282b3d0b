"""Arterial spin labelling: from the difference signal to blood flow, and back. Pure
functions, SI units inside.

Symbols: f blood flow (ml/100 g/min); ΔM label-control difference and M0 equilibrium
magnetisation of tissue (same arbitrary unit); PLD delay after labelling, τ label
duration, Δt arterial arrival time (s); α efficiency of labelling; T1b, T1t of blood and
tissue (s); λ blood-tissue partition coefficient (ml/g).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

PER_100_G_MIN = 6000.0
"""ml/g/s to ml/100 g/min."""

T1_BLOOD = {1.5: 1.35, 3.0: 1.65, 7.0: 2.087}
"""s, by field strength in T: Alsop et al. 2015, doi:10.1002/mrm.25197; 7 T Zhang et al.
2013, doi:10.1002/mrm.24550."""

T1_TISSUE = {1.5: 1.197, 3.0: 1.3, 7.0: 1.939}
"""s, grey matter, by field strength. 3 T: as in BASIL (Chappell et al. 2009,
doi:10.1109/TSP.2008.2005752), near 1.33 of Wansapura et al. 1999, since longer ones
(1.6 by MPRAGE) make flow 10 to 15 % too low. 1.5 and 7 T: Wright et al. 2008,
doi:10.1007/s10334-008-0104-8."""

PARTITION = 0.9
"""λ, ml/g (Alsop et al. 2015)."""


def single_delay_pcasl(
    dM: np.ndarray,
    M0: np.ndarray,
    *,
    pld: np.ndarray,
    tau: float,
    alpha: float,
    t1b: float,
    lam: float = PARTITION,
) -> np.ndarray:
    """f of (P)CASL at one delay: equation 1 of Alsop et al. 2015,
    doi:10.1002/mrm.25197.

    It assumes that all label has arrived and none has left, and that T1 of tissue is
    that of blood. Where arrival or T1 differ, it is biased (60 in grey matter reads
    about 45 at usual settings): a property of the equation, not an error of the data.
    """
    decay = np.exp(pld / t1b)
    delivered = 1 - np.exp(-tau / t1b)
    return PER_100_G_MIN * lam * dM * decay / (2 * alpha * t1b * M0 * delivered)


def single_delay_pasl(
    dM: np.ndarray,
    M0: np.ndarray,
    *,
    ti: np.ndarray,
    ti1: float,
    alpha: float,
    t1b: float,
    lam: float = PARTITION,
) -> np.ndarray:
    """f of PASL with a cut-off bolus (QUIPSS II, Q2TIPS): equation 2 of Alsop et al.
    2015."""
    return PER_100_G_MIN * lam * dM * np.exp(ti / t1b) / (2 * alpha * ti1 * M0)


@dataclass(frozen=True)
class Kinetics:
    """The general kinetic model of Buxton et al. 1998, doi:10.1002/mrm.1910400308,
    equations 1 to 5.

    pulsed: PASL (a bolus of length τ inverted at once) instead of continuous labelling
    tau: label duration (s), one for all delays or one for each
    alpha, t1b, t1t, lam: as above
    """

    pulsed: bool
    tau: float | np.ndarray
    alpha: float
    t1b: float
    t1t: float
    lam: float = PARTITION

    def difference(
        self, f: np.ndarray | float, arrival: np.ndarray | float, t: np.ndarray | float
    ) -> np.ndarray:
        """ΔM/M0 at time t (s) after the label began: τ + PLD for continuous, TI for
        pulsed labelling.

        ΔM = 2 α M0/λ f ∫ c(s) e^{−(t−s)/T1'} ds over the label arrived, 1/T1' = 1/T1t +
        f/λ, with delivery c = e^{−Δt/T1b} (continuous: all label is as old as its way)
        or e^{−s/T1b} (pulsed: all inverted at once).
        """
        flow = np.asarray(f, dtype=float) / PER_100_G_MIN
        rate = 1 / self.t1t + flow / self.lam
        integral = self._remaining_label(rate, arrival, t)
        return 2 * self.alpha * flow / self.lam * integral

    def _remaining_label(
        self, rate: np.ndarray, arrival: np.ndarray | float, t: np.ndarray | float
    ) -> np.ndarray:
        """The integral over label in the tissue that has not decayed yet."""
        # Seconds of label in the tissue.
        arrived = np.clip(t - np.asarray(arrival), 0, self.tau)
        remaining = self._pulsed if self.pulsed else self._continuous
        # Before arrival the formulas give rounding errors instead of zero.
        return np.where(arrived > 0, remaining(rate, arrival, t, arrived), 0.0)

    def _pulsed(
        self,
        rate: np.ndarray,
        arrival: np.ndarray | float,
        t: np.ndarray | float,
        arrived: np.ndarray,
    ) -> np.ndarray:
        """The integral over label that was inverted all at once."""
        gain = rate - 1 / self.t1b
        decay = np.exp(gain * arrival - rate * t)
        return decay * arrived * _expm1_over(gain * arrived)

    def _continuous(
        self,
        rate: np.ndarray,
        arrival: np.ndarray | float,
        t: np.ndarray | float,
        arrived: np.ndarray,
    ) -> np.ndarray:
        """The integral over label that decayed in the arteries for one arrival time."""
        decay = np.exp(-np.asarray(arrival) / self.t1b - rate * (t - arrival - arrived))
        return decay * -np.expm1(-rate * arrived) / rate


class ArrivalPrior(NamedTuple):
    """Mean and SD of arrival time before any data, s."""

    mean: float
    sd: float


class FlowEstimate(NamedTuple):
    """Flow (voxel,) in ml/100 g/min, arrival (voxel,) in s, and residual SD of ΔM/M0
    (voxel,)."""

    flow: np.ndarray
    arrival: np.ndarray
    residual: np.ndarray


ARRIVAL = ArrivalPrior(1.3, 0.7)
"""About what FSL's BASIL assumes. It counts by the noise of the run: without noise it
says nothing; in noise it keeps the fit from any arrival that the noise suggests."""

LARGEST_FLOW = 500.0
"""ml/100 g/min, either sign: where the search ends."""

F_STEP = 1e-3
ARRIVAL_STEP = 1e-6
"""ml/100 g/min and s: steps of the forward differences."""

GRID_STEP = 0.05
"""s between the arrivals that are tried first."""

TYPICAL_FLOW = 60.0
"""ml/100 g/min, at which the almost linear dependence on flow is taken."""


def invert(
    ratio: np.ndarray,
    t: np.ndarray,
    kinetics: Kinetics,
    *,
    prior: ArrivalPrior = ARRIVAL,
    steps: int = 40,
) -> FlowEstimate:
    """Least squares of the kinetic model: flow, arrival and residual of every voxel.

    ratio: ΔM/M0 (voxel, delay)
    t: seconds after the label began, (delay,) or (voxel, delay)
    prior: of arrival, weighed by the noise of all voxels together (their median
        residual)

    A grid over arrival (f is almost linear, given arrival) and then damped Gauss-Newton
    steps. f may be negative: cut at zero, noise would be flow (pure noise read 60).
    Arrival is NaN where f ≤ 0.
    """
    t = np.broadcast_to(np.asarray(t, dtype=float), ratio.shape)
    # Without the prior, the residual shows how noisy the run is.
    unpenalised = _LeastSquares(ratio, t, kinetics, prior, 0.0)
    cost = unpenalised.solve(steps).cost
    noise = float(np.median(cost)) / unpenalised.degrees_of_freedom
    problem = replace(unpenalised, penalty=noise / prior.sd**2)
    return problem.estimate(problem.solve(steps))


@dataclass(frozen=True, eq=False)
class _Candidate:
    """Flow, arrival and penalised sum of squares, each (voxel,)."""

    f: np.ndarray
    arrival: np.ndarray
    cost: np.ndarray

    def improved(self, other: _Candidate) -> _Candidate:
        """In every voxel, the one of two candidates with the lower cost."""
        better = other.cost < self.cost
        return _Candidate(
            np.where(better, other.f, self.f),
            np.where(better, other.arrival, self.arrival),
            np.where(better, other.cost, self.cost),
        )


class _Slopes(NamedTuple):
    """Derivatives (voxel, delay) of ΔM/M0."""

    by_f: np.ndarray
    by_arrival: np.ndarray


class _Step(NamedTuple):
    """Changes (voxel,) of flow and arrival."""

    f: np.ndarray
    arrival: np.ndarray


class _NormalEquations(NamedTuple):
    """(JᵀJ + damping · diag) δ = Jᵀr in every voxel, written out for two parameters:
    the symmetric matrix (a, b; b, d) and the right-hand side (p, q), each (voxel,)."""

    a: np.ndarray
    b: np.ndarray
    d: np.ndarray
    p: np.ndarray
    q: np.ndarray

    def solve(self) -> _Step:
        # Cramer's rule, for all voxels at once.
        determinant = self.a * self.d - self.b * self.b
        f = (self.d * self.p - self.b * self.q) / determinant
        arrival = (self.a * self.q - self.b * self.p) / determinant
        return _Step(f, arrival)


@dataclass(frozen=True, eq=False)
class _LeastSquares:
    """The sum of squares of ΔM/M0 in every voxel plus `penalty` times the squared
    distance of arrival from its prior mean.

    ratio, t: (voxel, delay)
    """

    ratio: np.ndarray
    t: np.ndarray
    kinetics: Kinetics
    prior: ArrivalPrior
    penalty: float

    def solve(self, steps: int) -> _Candidate:
        """The grid's best point, then damped Gauss-Newton steps (Levenberg and
        Marquardt), with a damping for each voxel."""
        start = self._best_on_grid()
        # On the grid, cost is that of the linear model.
        best = self._candidate(start.f, start.arrival)
        damping = np.full(len(self.ratio), 1e-3)
        for _ in range(steps):
            proposal = self._step(best, damping)
            improves = proposal.cost < best.cost
            best = best.improved(proposal)
            damping = np.where(improves, damping / 5, damping * 5)
            damping = np.clip(damping, 1e-12, 1e6)
        return best

    @property
    def degrees_of_freedom(self) -> int:
        # Two delays fit two parameters exactly; noise is then that of the whole run.
        return max(self.ratio.shape[1] - 2, 1)

    def estimate(self, best: _Candidate) -> FlowEstimate:
        """The solution as callers take it."""
        arrival = np.where(best.f > 0, best.arrival, np.nan)
        return FlowEstimate(best.f, arrival, self._residual_sd(best))

    def _residual_sd(self, best: _Candidate) -> np.ndarray:
        squares = (self.residual(best.f, best.arrival) ** 2).sum(1)
        return np.sqrt(squares / self.degrees_of_freedom)

    def residual(self, f: np.ndarray, arrival: np.ndarray) -> np.ndarray:
        return self.ratio - self._model(f, arrival)

    def _model(self, f: np.ndarray, arrival: np.ndarray) -> np.ndarray:
        return self.kinetics.difference(f[:, None], arrival[:, None], self.t)

    def _candidate(self, f: np.ndarray, arrival: np.ndarray) -> _Candidate:
        squares = (self.residual(f, arrival) ** 2).sum(1)
        return _Candidate(f, arrival, squares + self._penalty(arrival))

    def _penalty(self, arrival: np.ndarray | float) -> np.ndarray | float:
        return self.penalty * (arrival - self.prior.mean) ** 2

    def _best_on_grid(self) -> _Candidate:
        voxels = len(self.ratio)
        # Where no arrival explains anything, there is no flow.
        best = _Candidate(
            np.zeros(voxels),
            np.full(voxels, self.prior.mean),
            (self.ratio**2).sum(1),
        )
        for arrival in np.arange(GRID_STEP, self.t.max(), GRID_STEP):
            best = best.improved(self._at_arrival(arrival))
        return best

    def _at_arrival(self, arrival: float) -> _Candidate:
        """The best flow at a given arrival, by linear regression."""
        unit = self.kinetics.difference(TYPICAL_FLOW, arrival, self.t) / TYPICAL_FLOW
        f = _regression(unit, self.ratio)
        squares = ((self.ratio - f[:, None] * unit) ** 2).sum(1)
        arrivals = np.full(len(f), arrival)
        return _Candidate(f, arrivals, squares + self._penalty(arrival))

    def _step(self, at: _Candidate, damping: np.ndarray) -> _Candidate:
        """A damped Gauss-Newton step from a candidate, kept within the limits."""
        step = self._normal_equations(at, damping).solve()
        f = _within_limits(at.f + step.f)
        return self._candidate(f, np.clip(at.arrival + step.arrival, 0, self.t.max(1)))

    def _normal_equations(
        self, at: _Candidate, damping: np.ndarray
    ) -> _NormalEquations:
        model = self._model(at.f, at.arrival)
        slopes = self._slopes(at, model)
        residual = self.ratio - model
        pull = self.penalty * (at.arrival - self.prior.mean)
        curvature = _dot(slopes.by_arrival, slopes.by_arrival) + self.penalty
        return _NormalEquations(
            a=_damped(_dot(slopes.by_f, slopes.by_f), damping),
            b=_dot(slopes.by_f, slopes.by_arrival),
            d=_damped(curvature, damping),
            p=_dot(slopes.by_f, residual),
            q=_dot(slopes.by_arrival, residual) - pull,
        )

    def _slopes(self, at: _Candidate, model: np.ndarray) -> _Slopes:
        # Forward differences: the model has kinks where label arrives and ends.
        by_f = self._model(at.f + F_STEP, at.arrival) - model
        by_arrival = self._model(at.f, at.arrival + ARRIVAL_STEP) - model
        return _Slopes(by_f / F_STEP, by_arrival / ARRIVAL_STEP)


def _regression(unit: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """The flow (voxel,) whose multiple of the signal per unit of flow fits best."""
    power = _dot(unit, unit)
    # Before any label has arrived there is nothing to fit.
    return _within_limits(_dot(unit, ratio) / np.where(power > 0, power, 1))


def _dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Product sums over delays, (voxel,)."""
    return (x * y).sum(1)


def _damped(diagonal: np.ndarray, damping: np.ndarray) -> np.ndarray:
    # 1e-30 keeps voxels without any signal from dividing by zero.
    return diagonal * (1 + damping) + 1e-30


def _within_limits(f: np.ndarray) -> np.ndarray:
    return np.clip(f, -LARGEST_FLOW, LARGEST_FLOW)


def _expm1_over(x: np.ndarray) -> np.ndarray:
    """(e^x − 1)/x, 1 at x = 0."""
    small = np.abs(x) < 1e-8
    # Both branches are computed, so the second must not divide by zero.
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 + x / 2, np.expm1(safe) / safe)
