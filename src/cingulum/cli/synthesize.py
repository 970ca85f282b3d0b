"""cingulum synthesize: a cohort with planted truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "synthesize",
        "write a synthetic cohort with planted truth",
        "Write a BIDS dataset of a synthetic back-pain cohort: two visits a patient, "
        "BOLD from our own simulator in\n"
        "fMRIPrep's names, CBF in ASLPrep's, pulse, pain ratings. The planted truth "
        "lies in sourcedata/.",
        "cingulum synthesize cohort --patients 20 --effect none --seed 7",
    )
    made.add_argument("out", type=Path, metavar="OUT", help="new folder to write")
    made.add_argument(
        "--patients", type=int, default=53, metavar="N", help="default: %(default)s"
    )
    made.add_argument(
        "--effect",
        default="lee2019",
        choices=["lee2019", "none"],
        help="effects of the size published "
        "by Lee et al. 2019, or none: a null cohort (default: %(default)s)",
    )
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument(
        "--voxel",
        type=float,
        default=6.0,
        help="voxel size, 4 to 9 mm (default: %(default)s)",
    )
    made.add_argument(
        "--volumes",
        type=int,
        default=120,
        help="BOLD volumes a visit (default: %(default)s)",
    )
    made.add_argument(
        "--tr",
        type=float,
        default=3.0,
        help="repetition time, s (default: %(default)s)",
    )
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from cingulum.datasets import CohortSettings, synthesize

    settings = CohortSettings(
        given.patients, given.effect, given.seed, given.voxel, given.volumes, given.tr
    )
    print(synthesize(given.out, settings, show_progress=True).resolve())
