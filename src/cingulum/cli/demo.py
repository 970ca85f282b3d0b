"""cingulum demo: the whole story once."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, add_command, print_results

DESCRIPTION = """\
Fit a brain model to Human Connectome data, make a synthetic cohort, measure, predict,
and write a report.
Takes about three minutes on two cores; a second run uses the cohort again."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "demo",
        summary="the whole story once: real brains, a synthetic cohort, a report",
        description=DESCRIPTION,
        example="cingulum demo --offline --out demo-output",
    )
    parser.add_argument(
        "--offline",
        action="store_true",
        help="do not use the network (without cached data: a synthetic connectome, and "
        "the report says so)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        help="folder to write to (default: %(default)s)",
    )
    # As many as Lee et al. 2019 studied.
    parser.add_argument(
        "--patients",
        type=int,
        default=53,
        help="patients in the cohort (default: %(default)s)",
    )
    # A fifth of a study's, so that the demo ends within minutes.
    parser.add_argument(
        "--permutations",
        type=int,
        default=1000,
        help="sign flips (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the cohort and the permutations (default: %(default)s)",
    )
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.datasets import CohortSettings
    from cingulum.demonstration import run_demo

    summary = run_demo(
        arguments.out,
        offline=arguments.offline,
        settings=CohortSettings(arguments.patients, seed=arguments.seed),
        permutations=arguments.permutations,
    )
    print(f"\n{summary['lead']}\n")
    print_results(arguments.out)
