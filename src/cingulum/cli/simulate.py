"""cingulum simulate: BOLD for given parameters."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "simulate",
        "write simulated BOLD for given parameters",
        "Run the two-state reduced Wong-Wang network on a connectome and write BOLD in "
        "percent, region × time.\n"
        "Inhibition is balanced to 3 Hz unless mass.J_i is set.",
        "cingulum simulate --weights sc.tsv --tr 0.72 --duration 600 --set "
        "strength=0.4 --out bold.npy",
    )
    made.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="SC",
        help="connection weights, region × region",
    )
    made.add_argument("--tr", type=float, required=True, help="repetition time, s")
    made.add_argument(
        "--duration", type=float, required=True, help="length of the recording, s"
    )
    made.add_argument(
        "--estimates", type=Path, metavar="FIT", help="take parameters from a fit.json"
    )
    made.add_argument(
        "--set",
        action="append",
        type=_assignment,
        metavar="NAME=VALUE",
        help="a parameter, such as "
        "strength=0.4, noise=0.01 or mass.w_plus=1.5; may be repeated",
    )
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".npy, .tsv or .csv"
    )
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from cingulum.pipeline.single_recording import simulate_recording

    simulate_recording(
        given.weights,
        given.out,
        tr=given.tr,
        duration=given.duration,
        estimates=given.estimates,
        values=dict(given.set or []),
        seed=given.seed,
        show_progress=True,
    )
    print(given.out.resolve())


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=NUMBER, such as strength=0.4; came {text!r}"
        ) from None
