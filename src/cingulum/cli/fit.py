"""cingulum fit: one recording, one brain."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "fit",
        "fit a brain model to one recording",
        "Estimate coupling, regional excitation and regional noise of the two-state "
        "reduced Wong-Wang network from\n"
        "the first part of a recording, run the fitted brain freely, and hold it "
        "against the held-out rest, the\n"
        "connectome itself, a linear network of equal size and the recording's own "
        "reliability.",
        "cingulum fit --weights sc.tsv --bold bold.npy --tr 0.72 --out fitted",
    )
    made.add_argument(
        "--weights",
        type=Path,
        required=True,
        metavar="SC",
        help="connection weights, region × region: "
        ".npy, .npz, .tsv or .csv; symmetric, not negative",
    )
    made.add_argument(
        "--bold",
        type=Path,
        required=True,
        help="recording, region × time or time × region",
    )
    made.add_argument("--tr", type=float, required=True, help="repetition time, s")
    made.add_argument(
        "--holdout",
        type=float,
        default=0.5,
        help="share of the recording, at its end, that the fit "
        "never sees (default: %(default)s)",
    )
    made.add_argument(
        "--scheme",
        choices=["cingulum", "griffiths2022"],
        default="cingulum",
        help="griffiths2022: also "
        "re-run the published training scheme (variant A) on the same part, labelled "
        "as a comparison; "
        "takes minutes (default: %(default)s)",
    )
    made.add_argument(
        "--minutes",
        type=float,
        default=64.0,
        help="free-running simulation (default: %(default)s)",
    )
    made.add_argument(
        "--seed", type=int, default=0, help="of the simulation (default: %(default)s)"
    )
    made.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="DIR",
        help="new folder for fit.json, fc_model.tsv, fit.png",
    )
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from cingulum.pipeline.single_recording import fit_recording

    options = {
        "tr": given.tr,
        "holdout": given.holdout,
        "seed": given.seed,
        "minutes": given.minutes,
    }
    options["scheme"] = given.scheme
    content = fit_recording(
        given.weights, given.bold, given.out, show_progress=True, **options
    )
    for name, r in content["fc_r"].items():
        print(f"{name:24} {'–' if r is None else f'{r:.3f}'}")
    print(f"\n{(given.out / 'fit.json').resolve()}")
