"""cingulum demo: the whole story once."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Argument, add_arguments, describe, print_results

DESCRIPTION = """\
Fit a brain model to Human Connectome data, make a synthetic cohort whose truth is
known, measure, predict, and write a report; then ask the same of 33 real people in
heat pain (`cingulum fetch heatpain`), with a report of its own.
Takes about four minutes on two cores; a second run uses the cohort again."""


ARGUMENTS = (
    Argument(
        "--offline",
        action="store_true",
        help="do not use the network (without cached data: a synthetic connectome, and "
        "the report says so)",
    ),
    Argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        help="folder to write to (default: %(default)s)",
    ),
    # As many as Lee et al. 2019 studied.
    Argument(
        "--patients",
        type=int,
        default=53,
        help="patients in the cohort (default: %(default)s)",
    ),
    # A fifth of a study's, so that the demo ends within minutes.
    Argument(
        "--permutations",
        type=int,
        default=1000,
        help="sign flips (default: %(default)s)",
    ),
    Argument(
        "--seed",
        type=int,
        default=0,
        help="of the cohort and the permutations (default: %(default)s)",
    ),
)

EXAMPLE = "cingulum demo --offline --out demo-output"


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.datasets import CohortSettings
    from cingulum.demonstration import run_demo, run_heat_pain

    summary = run_demo(
        arguments.out,
        offline=arguments.offline,
        settings=CohortSettings(arguments.patients, seed=arguments.seed),
        permutations=arguments.permutations,
    )
    real = run_heat_pain(arguments.out / "heat_pain", offline=arguments.offline)
    # Real people first: they are what the synthetic ones are for.
    if real is not None:
        print(f"\nReal people. {real['lead']}\n")
        print_results(arguments.out / "heat_pain")
    print(f"\nSynthetic patients, whose truth is known. {summary['lead']}\n")
    print_results(arguments.out)
