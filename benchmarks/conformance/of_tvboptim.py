"""Drifts by tvboptim; run by the Python that has it.

    python of_tvboptim.py GIVEN.npz ANSWER.npz

The same files as `of_tvb.py`. Regions are joined by plain numpy here: tvboptim's
couplings need its whole simulator.
"""

import sys
from importlib.metadata import version

import jax
import numpy as np

jax.config.update("jax_enable_x64", True)

from tvboptim.experimental.network_dynamics.core.bunch import Bunch  # noqa: E402
from tvboptim.experimental.network_dynamics.dynamics import tvb  # noqa: E402


class KernelArguments:
    """One mass of the file: its states, its parameters as attributes, and sums over the
    network."""

    def __init__(self, arrays, mass):
        self.x, self.joint = arrays[mass], float(arrays["strength"]) * arrays["W"]
        for key in arrays:
            if key.startswith(f"{mass}."):
                setattr(self, key.removeprefix(f"{mass}."), arrays[key])

    def summed(self, sent):
        return self.joint @ sent

    def differences(self, sent):
        return (self.joint * (sent[None, :] - sent[:, None])).sum(1)


def drift(model, x, *delayed, **values):
    """tvboptim's derivative of states (state, region) in its own time unit, its
    defaults changed by `values`."""
    number = {"instant": 0, "delayed": 0} | model.COUPLING_INPUTS
    inputs = Bunch(
        delayed=np.stack([*delayed, *[0 * x[0]] * (number["delayed"] - len(delayed))]),
        instant=np.zeros((number["instant"], x.shape[1])),
    )
    found = model.dynamics(
        0.0, x, Bunch({**model.DEFAULT_PARAMS, **values}), inputs, Bunch()
    )
    return np.asarray(found[0] if isinstance(found, tuple) else found)


def wong_wang(m):
    return 1000 * drift(
        tvb.ReducedWongWang(),
        m.x,
        m.summed(m.x[0]),
        a=m.a / 1000,
        b=m.b / 1000,
        d=m.d * 1000,
        gamma=m.gamma,
        tau_s=m.tau_S * 1000,
        w=m.w,
        J_N=m.J_N,
        I_o=m.I_0,
    )


def _exc_inh(m, c, **gains):
    return 1000 * drift(
        tvb.WongWangExcInh(),
        m.x,
        c,
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


def reduced_wong_wang(m):
    return _exc_inh(m, m.summed(m.x[0]), w_p=m.w_plus, J_N=m.J_N, J_i=m.J_i, G=1.0)


def gain_wong_wang(m):
    return _exc_inh(
        m,
        m.differences(m.x[0]),
        w_p=m.g_EE / m.g_EI,
        J_N=m.g_EI,
        J_i=m.g_IE,
        G=1 / m.g_EI,
    )


def wilson_cowan(m):
    return drift(
        tvb.WilsonCowan(),
        m.x,
        m.summed(m.x[0]),
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


def jansen_rit(m):
    fires = 2 * m.e_0 / (1 + np.exp(m.r * (m.v_0 - (m.x[1] - m.x[2])))) / 1000
    found = drift(
        tvb.JansenRit(),
        np.concatenate([m.x[:3], m.x[3:] / 1000]),
        m.summed(fires),
        A=m.A,
        B=m.B,
        a=m.a / 1000,
        b=m.b / 1000,
        v0=m.v_0,
        nu_max=m.e_0 / 1000,
        r=m.r,
        J=m.C,
        a_2=m.c_2,
        a_3=m.c_3,
        a_4=m.c_4,
        mu=m.p / 1000,
    )
    return np.concatenate([1000 * found[:3], 1e6 * found[3:]])


def hopf(m):
    scale = np.sqrt(m.growth)
    c = [scale * m.differences(sent) for sent in m.x]
    return (
        drift(tvb.SupHopf(), scale * m.x, *c, a=m.a, omega=2 * np.pi * m.frequency)
        / scale
    )


def montbrio_pazo_roxin(m):
    values = {"tau": m.tau, "Delta": m.Delta, "eta": m.eta, "J": m.J, "I": m.I}
    return drift(tvb.MontbrioPazoRoxin(), m.x, m.tau * m.summed(m.x[0]), **values)


def kuramoto(m):
    theta = m.x[0]
    pull = (m.joint * np.sin(theta[None, :] - theta[:, None])).sum(1)
    return drift(tvb.Kuramoto(), m.x, pull, omega=2 * np.pi * m.frequency)


def linear(m):
    return drift(tvb.Linear(), m.x, m.gain / m.tau * m.summed(m.x[0]), gamma=-1 / m.tau)


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


def main(given, answer):
    arrays = dict(np.load(given))
    found = {mass: f(KernelArguments(arrays, mass)) for mass, f in MASSES.items()}
    np.savez(answer, version=f"tvboptim {version('tvboptim')}", **found)


if __name__ == "__main__":
    main(*sys.argv[1:])
