"""What commands share: options of datasets and of workers, and what is printed at the
end."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cingulum.errors import InputError

# Torch and loky wait until a command runs, so that help comes at once.
if TYPE_CHECKING:
    from cingulum.io.bids_index import EntityQuery
    from cingulum.parallel import Executor


class Argument:
    """An option or positional of a command: the words that `add_argument` takes.

    Tables of them are read before any parser is built, so that a command is described
    where it is declared.
    """

    def __init__(self, *flags: str, **settings: Any) -> None:
        self.flags = flags
        self.settings = settings


def add_arguments(
    parser: argparse._ActionsContainer, arguments: Iterable[Argument]
) -> None:
    """Give a parser, or a group of its options, what a table lists."""
    for argument in arguments:
        parser.add_argument(*argument.flags, **argument.settings)


def describe(parser: argparse.ArgumentParser, description: str, example: str) -> None:
    """What the help of a command says before and after its options."""
    # The parser exists already: its command was listed before its module was imported.
    parser.description = description
    parser.epilog = f"example:\n  {example}"


DATASET_ARGUMENTS = (
    # Names and short forms are those of fMRIPrep and other BIDS Apps.
    Argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without sub-",
    ),
    Argument(
        "--session-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without ses-",
    ),
    Argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="which of several files: JSON "
        'such as {"bold": {"task": "rest", "run": 1}}',
    ),
    # ASLPrep and fMRIPrep often write to folders of their own.
    Argument(
        "-d",
        "--derivatives",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="further derivative datasets, beside those below derivatives/",
    ),
)


EXECUTOR_ARGUMENTS = (
    # No default: processes and SLURM jobs have different ones (`Executor`).
    Argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="processes (default: one a core), or SLURM jobs (default: 1)",
    ),
    Argument(
        "--mem",
        type=float,
        metavar="GB",
        help="memory that all processes here may take together",
    ),
    Argument(
        "--time-limit",
        type=float,
        metavar="HOURS",
        help="end a task (a visit, a fit, a block of permutations) that takes longer, "
        "and go on without it (default: 12)",
    ),
    # Queue and account differ by site, so that Dask's own file has them.
    Argument(
        "--cluster",
        default="",
        metavar="WHERE",
        help="a Dask cluster instead of processes: local, slurm (queue and memory from "
        "~/.config/dask/jobqueue.yaml) or tcp://HOST:PORT of a running scheduler",
    ),
    # Clusters often have a fast disk for this, which is emptied from time to time.
    Argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where unfinished work is kept (default: OUT_DIR/work); may be removed "
        "when a study is done",
    ),
)


def chosen_executor(arguments: argparse.Namespace) -> Executor:
    """The workers that the options ask for."""
    from cingulum.parallel import Executor

    executor = Executor(arguments.cluster, arguments.n_jobs, arguments.mem)
    if arguments.time_limit is None:
        return executor
    return replace(executor, time_limit=arguments.time_limit)


def chosen_filters(
    arguments: argparse.Namespace,
) -> dict[str, EntityQuery] | None:
    """The content of --bids-filter-file, or nothing where there is none."""
    if not arguments.bids_filter_file:
        return None
    from cingulum.io.visit import read_filters

    return read_filters(arguments.bids_filter_file)


def require_at_least(number: int, minimum: int, name: str, reason: str) -> None:
    """Raises InputError for an option below its minimum."""
    if number < minimum:
        raise InputError(f"{name} must be at least {minimum} ({reason}); got {number}.")


def print_results(folder: Path) -> None:
    """Where the report and the numbers of a command are."""
    print(f"Report:  {(folder / 'report.html').resolve()}")
    print(f"Numbers: {(folder / 'summary.json').resolve()}")
