"""What commands share: options of datasets and of workers, and what is printed at the
end."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cingulum.errors import InputError

# Torch and loky wait until a command runs, so that help comes at once.
if TYPE_CHECKING:
    from cingulum.parallel import Executor

Commands = Any
"""What argparse's `add_subparsers` gives: it has no public name for it."""


def add_command(
    commands: Commands, name: str, *, summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A command with its line in the overview, its description and an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    # Names and short forms are those of fMRIPrep and other BIDS Apps.
    parser.add_argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without sub-",
    )
    parser.add_argument(
        "--session-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without ses-",
    )
    parser.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="which of several files: JSON "
        'such as {"bold": {"task": "rest", "run": 1}}',
    )
    parser.add_argument(
        "-d",
        "--derivatives",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="further derivative datasets, beside those below derivatives/",
    )


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    # No default: processes and SLURM jobs have different ones (`Executor`).
    parser.add_argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="processes (default: one a core), or SLURM jobs (default: 1)",
    )
    parser.add_argument(
        "--mem",
        type=float,
        metavar="GB",
        help="memory that all processes here may take together",
    )
    parser.add_argument(
        "--cluster",
        default="",
        metavar="WHERE",
        help="a Dask cluster instead of processes: local, slurm (queue and memory from "
        "~/.config/dask/jobqueue.yaml) or tcp://HOST:PORT of a running scheduler",
    )
    parser.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where unfinished work is kept (default: OUT_DIR/work); may be removed "
        "when a study is done",
    )


def chosen_executor(arguments: argparse.Namespace) -> Executor:
    """The workers that the options ask for."""
    from cingulum.parallel import Executor

    return Executor(arguments.cluster, arguments.n_jobs, arguments.mem)


def chosen_filters(
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Any]] | None:
    """The content of --bids-filter-file, or nothing where there is none."""
    if not arguments.bids_filter_file:
        return None
    from cingulum.io.visit import read_filters

    return read_filters(arguments.bids_filter_file)


def require_at_least(number: int, minimum: int, name: str, reason: str) -> None:
    """Raises InputError for an option below its minimum."""
    if number < minimum:
        raise InputError(
            f"{name} must be at least {minimum} ({reason}); came {number}."
        )


def print_results(folder: Path) -> None:
    """Where the report and the numbers of a command are."""
    print(f"Report:  {(folder / 'report.html').resolve()}")
    print(f"Numbers: {(folder / 'summary.json').resolve()}")
