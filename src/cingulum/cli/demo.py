"""cingulum demo: the whole story once."""

from __future__ import annotations

import argparse
from pathlib import Path

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "demo",
        "the whole story once: real brains, a synthetic cohort, a report",
        "Fit a brain model to Human Connectome data, make a synthetic cohort, measure, "
        "predict, and write a report.\n"
        "Takes about three minutes on two cores; a second run uses the cohort again.",
        "cingulum demo --offline --out demo-output",
    )
    made.add_argument(
        "--offline",
        action="store_true",
        help="do not use the network (without cached data: a synthetic "
        "connectome, and the report says so)",
    )
    made.add_argument(
        "--out",
        type=Path,
        default=Path("demo-output"),
        help="folder to write to (default: %(default)s)",
    )
    made.add_argument(
        "--patients",
        type=int,
        default=53,
        help="patients in the cohort (default: %(default)s)",
    )
    made.add_argument(
        "--permutations",
        type=int,
        default=1000,
        help="sign flips (default: %(default)s)",
    )
    made.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the cohort and the permutations (default: %(default)s)",
    )
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from cingulum.datasets import CohortSettings
    from cingulum.demo import demo

    settings = CohortSettings(given.patients, seed=given.seed)
    summary = demo(
        given.out,
        offline=given.offline,
        settings=settings,
        permutations=given.permutations,
    )
    print(f"\n{summary['lead']}\n")
    print(f"Report:  {(given.out / 'report.html').resolve()}")
    print(f"Numbers: {(given.out / 'summary.json').resolve()}")
