"""cingulum fit: one recording, one brain."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from cingulum.cli.options import Argument, add_arguments, describe

DESCRIPTION = """\
Estimate coupling, regional excitation and regional noise of the two-state reduced
Wong-Wang network from the first part of a recording, run the fitted brain freely, and
hold it against the held-out rest, the connectome itself, a linear network of equal
size and the recording's own reliability."""


EXAMPLE = "cingulum fit --weights sc.tsv --bold bold.npy --tr 0.72 --out fitted"


RECORDING_ARGUMENTS = (
    Argument(
        "--weights",
        type=Path,
        required=True,
        metavar="SC",
        help="connection weights, region × region: "
        ".npy, .npz, .tsv or .csv; symmetric, not negative",
    ),
    Argument(
        "--bold",
        type=Path,
        required=True,
        help="recording, region × time or time × region",
    ),
    Argument("--tr", type=float, required=True, help="repetition time, s"),
)


FIT_ARGUMENTS = (
    # What the fit never used can judge it.
    Argument(
        "--holdout",
        type=float,
        default=0.5,
        help="share of the recording, at its end, that the fit never sees (default: "
        "%(default)s)",
    ),
    Argument(
        "--scheme",
        choices=["cingulum", "griffiths2022"],
        default="cingulum",
        help="griffiths2022: also re-run the published training scheme (variant A) on "
        "the same part, labelled as a comparison; takes minutes (default: %(default)s)",
    ),
    Argument(
        "--minutes",
        type=float,
        default=64.0,
        help="free-running simulation (default: %(default)s)",
    ),
    Argument(
        "--seed", type=int, default=0, help="of the simulation (default: %(default)s)"
    ),
    Argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="new folder for fit.json, fc_model.tsv, fit.png and model/",
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, (*RECORDING_ARGUMENTS, *FIT_ARGUMENTS))
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.pipeline.single_recording import FitOptions, fit_recording

    content = fit_recording(
        arguments.weights,
        arguments.bold,
        arguments.out,
        FitOptions(
            arguments.tr,
            arguments.holdout,
            arguments.seed,
            arguments.minutes,
            arguments.scheme,
        ),
        show_progress=True,
    )
    _print_correlations(content["fc_r"])
    print(f"\n{(arguments.out / 'fit.json').resolve()}")


def _print_correlations(correlations: Mapping[str, float | None]) -> None:
    for name, correlation in correlations.items():
        # None where nothing was held out, or no reliability is known.
        shown = "–" if correlation is None else f"{correlation:.3f}"
        print(f"{name:24} {shown}")
