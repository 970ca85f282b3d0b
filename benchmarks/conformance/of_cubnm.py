"""Paths, BOLD, inhibition, FC and FCD by cuBNM; run by the Python that has it.

    python of_cubnm.py GIVEN.npz ANSWER.npz

GIVEN has W, strength, duration, tr (s), and a `signal` (region, volume) with `window`
and `step` for FC and FCD. ANSWER has its noise (2, region, ms, 10), and S_E, S_I, bold
(volume, region) of the path that this noise makes from 0.001 with its defaults (sigma
0.01 per √ms, steps of 0.1 ms, haemodynamics every ms); J_i of its feedback inhibition.
"""

import sys
from importlib.metadata import version

import numpy as np
from cubnm.sim import rWWSimGroup
from cubnm.utils import calculate_fc, calculate_fcd


def group(given, **options):
    duration = float(given["duration"])
    made = rWWSimGroup(
        duration=duration,
        TR=float(given["tr"]),
        sc=given["W"],
        states_ts=True,
        noise_out=True,
        noise_segment_length=duration,
        do_fcd=False,
        gof_terms=["+fc_corr"],
        force_cpu=True,
        bold_remove_s=0,
        **options,
    )
    made.N = 1
    made.param_lists["G"] = given["strength"].reshape(1)
    made._set_default_params()
    made.run()
    return made


def main(given, answer):
    given = dict(np.load(given))
    path, inhibited = group(given, do_fic=False), group(given, do_fic=True)
    found = {name: path.sim_states[name][0] for name in ("S_E", "S_I")}
    signal, window, step = given["signal"], int(given["window"]), int(given["step"])
    np.savez(
        answer,
        version=f"cubnm {version('cubnm')}",
        noise=path.get_noise(),
        bold=path.sim_bold[0],
        J_i=inhibited.param_lists["wIE"][0],
        fc=calculate_fc(signal.copy(), return_tril=False),
        fcd=calculate_fcd(signal.copy(), window, step, return_tril=False),
        **found,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
