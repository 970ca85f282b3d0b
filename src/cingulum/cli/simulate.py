"""cingulum simulate: BOLD for given parameters."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Argument, add_arguments, describe

DESCRIPTION = """\
Run the two-state reduced Wong-Wang network on a connectome and write BOLD in percent,
region × time.
Inhibition is balanced to 3 Hz unless mass.J_i is set."""


def _assignment(text: str) -> tuple[str, float]:
    # Whether there is such a parameter is known once the model is built.
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected NAME=NUMBER, such as strength=0.4; got {text!r}"
        ) from None


ARGUMENTS = (
    Argument(
        "--weights",
        type=Path,
        required=True,
        metavar="SC",
        help="connection weights, region × region",
    ),
    Argument("--tr", type=float, required=True, help="repetition time, s"),
    Argument(
        "--duration", type=float, required=True, help="length of the recording, s"
    ),
    Argument(
        "--estimates", type=Path, metavar="FIT", help="take parameters from a fit.json"
    ),
    # Masses have different parameters, so that there is no option for each.
    Argument(
        "--set",
        action="append",
        type=_assignment,
        metavar="NAME=VALUE",
        help="a parameter, such as "
        "strength=0.4, noise=0.01 or mass.w_plus=1.5; may be repeated",
    ),
    Argument("--seed", type=int, default=0, help="default: %(default)s"),
    Argument(
        "--out", type=Path, required=True, metavar="FILE", help=".npy, .tsv or .csv"
    ),
)

EXAMPLE = (
    "cingulum simulate --weights sc.tsv --tr 0.72 --duration 600 --set "
    "strength=0.4 --out bold.npy"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
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
