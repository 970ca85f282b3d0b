"""cingulum fetch: real data."""

from __future__ import annotations

import argparse

from cingulum.cli.options import Commands, add_command

DESCRIPTION = """\
Download Human Connectome group data (27 files, 5 MB) from the published wheel of
cubnm 0.1.0, check each file's SHA-256 and keep it in CINGULUM_DATA, or else the
user's cache. Nothing of the package is installed."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "fetch",
        summary="download real data",
        description=DESCRIPTION,
        example="CINGULUM_DATA=~/data cingulum fetch hcp",
    )
    parser.add_argument("dataset", choices=["hcp"], help="which data")
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.datasets import hcp

    print(hcp.TERMS)
    print(f"\n{hcp.fetch()}")
