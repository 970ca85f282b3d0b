"""cingulum synthesize: a cohort with planted truth."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Argument, add_arguments, describe

DESCRIPTION = """\
Write a BIDS dataset of a synthetic back-pain cohort: two visits a patient, BOLD from
our own simulator in fMRIPrep's names, CBF in ASLPrep's, pulse, pain ratings. The
planted truth lies in sourcedata/."""


ARGUMENTS = (
    Argument("out", type=Path, metavar="OUT", help="new folder to write"),
    # As many as Lee et al. 2019 studied.
    Argument(
        "--patients", type=int, default=53, metavar="N", help="default: %(default)s"
    ),
    # A null cohort shows whether chance is found where there is nothing else.
    Argument(
        "--effect",
        default="lee2019",
        choices=["lee2019", "none"],
        help="effects of the size published "
        "by Lee et al. 2019, or none: a null cohort (default: %(default)s)",
    ),
    Argument("--seed", type=int, default=0, help="default: %(default)s"),
    # Coarser than real recordings, so that a cohort takes little space and time.
    Argument(
        "--voxel",
        type=float,
        default=6.0,
        help="voxel size, 4 to 9 mm (default: %(default)s)",
    ),
    Argument(
        "--volumes",
        type=int,
        default=120,
        help="BOLD volumes a visit (default: %(default)s)",
    ),
    Argument(
        "--tr",
        type=float,
        default=3.0,
        help="repetition time, s (default: %(default)s)",
    ),
)

EXAMPLE = "cingulum synthesize cohort --patients 20 --effect none --seed 7"


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
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
