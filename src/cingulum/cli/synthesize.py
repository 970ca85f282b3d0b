"""cingulum synthesize: a cohort with planted truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, add_command

DESCRIPTION = """\
Write a BIDS dataset of a synthetic back-pain cohort: two visits a patient, BOLD from
our own simulator in fMRIPrep's names, CBF in ASLPrep's, pulse, pain ratings. The
planted truth lies in sourcedata/."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "synthesize",
        summary="write a synthetic cohort with planted truth",
        description=DESCRIPTION,
        example="cingulum synthesize cohort --patients 20 --effect none --seed 7",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="new folder to write")
    parser.add_argument(
        "--patients", type=int, default=53, metavar="N", help="default: %(default)s"
    )
    parser.add_argument(
        "--effect",
        default="lee2019",
        choices=["lee2019", "none"],
        help="effects of the size published "
        "by Lee et al. 2019, or none: a null cohort (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--voxel",
        type=float,
        default=6.0,
        help="voxel size, 4 to 9 mm (default: %(default)s)",
    )
    parser.add_argument(
        "--volumes",
        type=int,
        default=120,
        help="BOLD volumes a visit (default: %(default)s)",
    )
    parser.add_argument(
        "--tr",
        type=float,
        default=3.0,
        help="repetition time, s (default: %(default)s)",
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.datasets import CohortSettings, synthesize

    settings = CohortSettings(
        arguments.patients,
        arguments.effect,
        arguments.seed,
        arguments.voxel,
        arguments.volumes,
        arguments.tr,
    )
    print(synthesize(arguments.out, settings, show_progress=True).resolve())
