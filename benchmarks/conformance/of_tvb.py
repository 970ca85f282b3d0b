"""Drifts by The Virtual Brain; run by the Python that has tvb-library, never by ours
(TVB is GPL).

    python of_tvb.py GIVEN.npz ANSWER.npz

GIVEN has W, strength, and for every mass its states `<Mass>` and parameters
`<Mass>.<name>` in Cingulum's units. TVB's own coupling functions join the regions.
ANSWER has a drift a mass, per second.
"""

import sys
from importlib.metadata import version

import numpy as np
from tvb.analyzers.fmri_balloon import BalloonModel
from tvb.simulator import coupling, models
from tvb.simulator.models.base import ModelNumbaDfun


class KernelArguments:
    """One mass of the file: its states, its parameters as attributes, and the
    network."""

    def __init__(self, arrays, mass):
        self.x, self.W, self.strength = (
            arrays[mass],
            arrays["W"],
            np.array([float(arrays["strength"])]),
        )
        for key in arrays:
            if key.startswith(f"{mass}."):
                setattr(self, key.removeprefix(f"{mass}."), arrays[key])

    def joined(self, function, sent=None):
        """What every region receives, (coupling, region): TVB's pre, weighted sum over
        senders, post."""
        sent = self.x if sent is None else sent
        if isinstance(
            function, coupling.SigmoidalJansenRit
        ):  # wants (to, coupling, from)
            pre = function.pre(None, sent[None])[:, 0]
            return function.post((self.W * pre).sum(1))[None]
        pre = function.pre(sent[:, :, None], sent[:, None, :])
        return function.post((self.W * pre).sum(2))


def drift(model, x, c):
    """TVB's derivative of states (state, region) in its own time unit."""
    model.configure()
    if isinstance(model, ModelNumbaDfun):  # has an axis of modes
        return model.dfun(x[..., None], c[..., None])[..., 0]
    return model.dfun(x, c)


def wong_wang(m):
    model = models.ReducedWongWang(
        a=m.a / 1000,
        b=m.b / 1000,
        d=m.d * 1000,
        gamma=m.gamma,
        tau_s=m.tau_S * 1000,
        w=m.w,
        J_N=m.J_N,
        I_o=m.I_0,
    )
    return 1000 * drift(model, m.x, m.joined(coupling.Scaling(a=m.strength)))


def _exc_inh(m, c, **gains):
    model = models.ReducedWongWangExcInh(
        a_e=m.a_E,
        b_e=m.b_E,
        d_e=m.d_E,
        gamma_e=m.gamma_E / 1000,
        tau_e=m.tau_E * 1000,
        W_e=m.W_E,
        a_i=m.a_I,
        b_i=m.b_I,
        d_i=m.d_I,
        gamma_i=m.gamma_I / 1000,
        tau_i=m.tau_I * 1000,
        W_i=m.W_I,
        I_o=m.I_0,
        **gains,
    )
    return 1000 * drift(model, m.x, c)


def reduced_wong_wang(m):
    c = m.joined(coupling.Scaling(a=np.ones(1)), m.x[:1])
    return _exc_inh(m, c, w_p=m.w_plus, J_N=m.J_N, J_i=m.J_i, G=m.strength)


def gain_wong_wang(m):
    c = m.joined(coupling.Difference(a=m.strength), m.x[:1])
    return _exc_inh(m, c, w_p=m.g_EE / m.g_EI, J_N=m.g_EI, J_i=m.g_IE, G=1 / m.g_EI)


def wilson_cowan(m):
    model = models.WilsonCowan(
        c_ee=m.c_1,
        c_ei=m.c_2,
        c_ie=m.c_3,
        c_ii=m.c_4,
        tau_e=m.tau_E,
        tau_i=m.tau_I,
        a_e=m.a_e,
        b_e=m.theta_e,
        a_i=m.a_i,
        b_i=m.theta_i,
        r_e=m.r_e,
        r_i=m.r_i,
        P=m.P,
        Q=m.Q,
        k_e=1 - 1 / (1 + np.exp(m.a_e * m.theta_e)),
        k_i=1 - 1 / (1 + np.exp(m.a_i * m.theta_i)),
    )
    return drift(model, m.x, m.joined(coupling.Scaling(a=m.strength), m.x[:1]))


def jansen_rit(m):
    model = models.JansenRit(
        A=m.A,
        B=m.B,
        a=m.a / 1000,
        b=m.b / 1000,
        v0=m.v_0,
        nu_max=m.e_0 / 1000,
        r=m.r,
        J=m.C,
        a_1=np.ones(1),
        a_2=m.c_2,
        a_3=m.c_3,
        a_4=m.c_4,
        mu=m.p / 1000,
    )
    fires = coupling.SigmoidalJansenRit(
        a=m.strength, cmin=np.zeros(1), cmax=2 * m.e_0 / 1000, midpoint=m.v_0, r=m.r
    )
    per_ms = np.concatenate([m.x[:3], m.x[3:] / 1000])
    found = drift(model, per_ms, m.joined(fires, m.x[1:3]))
    return np.concatenate([1000 * found[:3], 1e6 * found[3:]])


def hopf(m):
    scale = np.sqrt(m.growth)  # x √growth obeys the normal form with growth 1
    model = models.SupHopf(a=m.a, omega=2 * np.pi * m.frequency)
    c = scale * m.joined(coupling.Difference(a=m.strength))
    return drift(model, scale * m.x, c) / scale


def montbrio_pazo_roxin(m):
    model = models.MontbrioPazoRoxin(tau=m.tau, Delta=m.Delta, eta=m.eta, J=m.J, I=m.I)
    return drift(model, m.x, m.tau * m.joined(coupling.Scaling(a=m.strength)))


def kuramoto(m):
    model = models.Kuramoto(omega=2 * np.pi * m.frequency)
    return drift(model, m.x, m.joined(coupling.Kuramoto(a=m.strength)))


def linear(m):
    return drift(
        models.Linear(gamma=-1 / m.tau),
        m.x,
        m.gain / m.tau * m.joined(coupling.Scaling(a=m.strength)),
    )


MASSES = {
    "WongWang": wong_wang,
    "ReducedWongWang": reduced_wong_wang,
    "GainWongWang": gain_wong_wang,
    "WilsonCowan": wilson_cowan,
    "JansenRit": jansen_rit,
    "Hopf": hopf,
    "MontbrioPazoRoxin": montbrio_pazo_roxin,
    "Kuramoto": kuramoto,
    "Linear": linear,
}


def balloon(x, u):
    """Drift and percent signal of TVB's balloon analyser with its defaults."""
    model = BalloonModel()
    k_1, k_2, k_3 = model.compute_derived_parameters()
    _, _, v, q = x
    signal = model.V0 * (
        k_1 * (1 - q) + k_2 * (1 - q / v) + k_3 * (1 - v)
    )  # the line of `evaluate`
    return np.concatenate([model.balloon_dfun(x, u[None]), signal[None]])


def main(given, answer):
    arrays = dict(np.load(given))
    found = {mass: f(KernelArguments(arrays, mass)) for mass, f in MASSES.items()}
    found["balloon"] = balloon(arrays["balloon"], arrays["balloon.u"])
    np.savez(answer, version=f"tvb-library {version('tvb-library')}", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
