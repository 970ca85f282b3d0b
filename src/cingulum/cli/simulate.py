"""cingulum simulate: BOLD for given parameters."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, add_command

DESCRIPTION = """\
Run the two-state reduced Wong-Wang network on a connectome and write BOLD in percent,
region × time.
Inhibition is balanced to 3 Hz unless mass.J_i is set."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "simulate",
        summary="write simulated BOLD for given parameters",
        description=DESCRIPTION,
        example="cingulum simulate --weights sc.tsv --tr 0.72 --duration 600 --set "
        "strength=0.4 --out bold.npy",
    )
    parser.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="SC",
        help="connection weights, region × region",
    )
    parser.add_argument("--tr", type=float, required=True, help="repetition time, s")
    parser.add_argument(
        "--duration", type=float, required=True, help="length of the recording, s"
    )
    parser.add_argument(
        "--estimates", type=Path, metavar="FIT", help="take parameters from a fit.json"
    )
    parser.add_argument(
        "--set",
        action="append",
        type=_assignment,
        metavar="NAME=VALUE",
        help="a parameter, such as "
        "strength=0.4, noise=0.01 or mass.w_plus=1.5; may be repeated",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help=".npy, .tsv or .csv"
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.pipeline.single_recording import SimulationOptions, simulate_recording

    simulate_recording(
        arguments.weights,
        arguments.out,
        SimulationOptions(
            arguments.tr,
            arguments.duration,
            arguments.estimates,
            dict(arguments.set or []),
            arguments.seed,
        ),
        show_progress=True,
    )
    print(arguments.out.resolve())


def _assignment(text: str) -> tuple[str, float]:
    # Whether there is such a parameter is known once the model is built.
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=NUMBER, such as strength=0.4; came {text!r}"
        ) from None
