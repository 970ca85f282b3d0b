"""Arterial spin labelling: from the difference signal to blood flow, and back. Pure
functions, SI units inside.

Symbols: f blood flow (ml/100 g/min); ΔM label-control difference and M0 equilibrium
magnetisation of tissue (same arbitrary unit); PLD delay after labelling, τ label
duration, Δt arterial arrival time (s); α efficiency of labelling; T1b, T1t of blood and
tissue (s); λ blood-tissue partition coefficient (ml/g).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PER_100_G_MIN = 6000.0
"""ml/g/s to ml/100 g/min."""

T1_BLOOD = {1.5: 1.35, 3.0: 1.65, 7.0: 2.087}
"""s, by field strength in T: Alsop et al. 2015, doi:10.1002/mrm.25197; 7 T Zhang et al.
2013, doi:10.1002/mrm.24550."""

T1_TISSUE = {1.5: 1.197, 3.0: 1.607, 7.0: 1.939}
"""s, grey matter, by field strength: Wright et al. 2008,
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
    that of blood: where arrival or T1 differ it is biased (60 in grey matter reads
        about 45 at usual settings), and that is the equation's doing.
    """
    return (
        PER_100_G_MIN
        * lam
        * dM
        * np.exp(pld / t1b)
        / (2 * alpha * t1b * M0 * (1 - np.exp(-tau / t1b)))
    )


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
    tau: label duration (s), one or one a delay; alpha, t1b, t1t, lam: as above
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
        arrived = np.clip(
            t - np.asarray(arrival), 0, self.tau
        )  # seconds of label in the tissue
        if self.pulsed:
            gain = rate - 1 / self.t1b
            held = (
                np.exp(gain * arrival - rate * t)
                * arrived
                * _expm1_over(gain * arrived)
            )
        else:
            held = np.exp(
                -np.asarray(arrival) / self.t1b - rate * (t - arrival - arrived)
            ) * -np.expm1(-rate * arrived)
            held = held / rate
        return 2 * self.alpha * flow / self.lam * np.where(arrived > 0, held, 0.0)


ARRIVAL = (1.3, 0.7)
"""s: mean and SD of arrival beforehand, about what FSL's BASIL assumes. It counts by
the noise of the run: without noise it says nothing, in noise it keeps flow from being
    found at whatever arrival the noise suggests."""


def invert(
    ratio: np.ndarray,
    t: np.ndarray,
    kinetics: Kinetics,
    *,
    prior: tuple[float, float] = ARRIVAL,
    steps: int = 40,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Least squares of the kinetic model: f (voxel,), arrival (voxel,) in s, and
    residual SD of ΔM/M0 (voxel,).

    ratio: ΔM/M0 (voxel, delay); t: seconds after the label began, (delay,) or (voxel,
        delay)
    prior: mean and SD of arrival, weighed by the noise of all voxels together (their
    median residual) A grid over arrival (f is almost linear, given arrival) and then
    damped Gauss-Newton steps. f may come out negative: cut at zero, noise would be flow
    (pure noise read 60). Arrival is NaN where f ≤ 0.
    """
    t = np.broadcast_to(np.asarray(t, dtype=float), ratio.shape)
    free = max(ratio.shape[1] - 2, 1)
    cost = _refined(ratio, t, kinetics, prior, 0.0, steps)[2]
    noise = float(np.median(cost)) / free / prior[1] ** 2
    f, arrival, _ = _refined(ratio, t, kinetics, prior, noise, steps)
    left = ratio - kinetics.difference(f[:, None], arrival[:, None], t)
    return f, np.where(f > 0, arrival, np.nan), np.sqrt((left**2).sum(1) / free)


def _refined(
    ratio: np.ndarray,
    t: np.ndarray,
    kinetics: Kinetics,
    prior: tuple[float, float],
    noise: float,
    steps: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flow, arrival and penalised sum of squares: the grid's best point, then damped
    Gauss-Newton steps."""

    def of(f: np.ndarray, arrival: np.ndarray) -> np.ndarray:
        left = ratio - kinetics.difference(f[:, None], arrival[:, None], t)
        return (left**2).sum(1) + noise * (arrival - prior[0]) ** 2

    f, arrival = _on_grid(ratio, t, kinetics, prior, noise)
    cost, damping, latest = of(f, arrival), np.full(len(ratio), 1e-3), t.max(1)
    for _ in range(steps):
        model = kinetics.difference(f[:, None], arrival[:, None], t)
        by_f = (
            kinetics.difference(f[:, None] + 1e-3, arrival[:, None], t) - model
        ) / 1e-3
        by_arrival = (
            kinetics.difference(f[:, None], arrival[:, None] + 1e-6, t) - model
        ) / 1e-6
        left = ratio - model
        a, b, d = (
            (by_f**2).sum(1),
            (by_f * by_arrival).sum(1),
            (by_arrival**2).sum(1) + noise,
        )
        p, q = (
            (by_f * left).sum(1),
            (by_arrival * left).sum(1) - noise * (arrival - prior[0]),
        )
        a, d = a * (1 + damping) + 1e-30, d * (1 + damping) + 1e-30
        det = a * d - b * b
        new_f = np.clip(f + (d * p - b * q) / det, -MOST, MOST)
        new_arrival = np.clip(arrival + (a * q - b * p) / det, 0, latest)
        new_cost = of(new_f, new_arrival)
        better = new_cost < cost
        f, arrival = np.where(better, new_f, f), np.where(better, new_arrival, arrival)
        cost = np.where(better, new_cost, cost)
        damping = np.clip(np.where(better, damping / 5, damping * 5), 1e-12, 1e6)
    return f, arrival, cost


MOST = 500.0
"""ml/100 g/min, either sign: where the search ends."""


def _on_grid(
    ratio: np.ndarray,
    t: np.ndarray,
    kinetics: Kinetics,
    prior: tuple[float, float],
    noise: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Best flow and arrival of a grid of arrivals."""
    typical = 60.0
    f, arrival, cost = (
        np.zeros(len(ratio)),
        np.full(len(ratio), prior[0]),
        (ratio**2).sum(1),
    )
    for candidate in np.arange(0.05, t.max(), 0.05):
        unit = kinetics.difference(typical, candidate, t) / typical
        power = (unit**2).sum(1)
        flow = np.clip(
            (unit * ratio).sum(1) / np.where(power > 0, power, 1), -MOST, MOST
        )
        found = ((ratio - flow[:, None] * unit) ** 2).sum(1) + noise * (
            candidate - prior[0]
        ) ** 2
        better = found < cost
        f, arrival = np.where(better, flow, f), np.where(better, candidate, arrival)
        cost = np.where(better, found, cost)
    return f, arrival


def _expm1_over(x: np.ndarray) -> np.ndarray:
    """(e^x − 1)/x, 1 at x = 0."""
    small = np.abs(x) < 1e-8
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 + x / 2, np.expm1(safe) / safe)
