"""cingulum status: what is done, what failed, what is missing, and the command that
finishes it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from cingulum.cli.options import Argument, add_arguments, describe

if TYPE_CHECKING:
    import pandas as pd

DESCRIPTION = """\
Counts every visit and feature of an OUT_DIR of `cingulum run` or `cingulum features`,
during it or after.
Exit code 0 where everything is done, 3 where something failed or is missing."""

VISITS_NAMED = 3
"""Visits that a reason is followed by; the others are in failures.tsv."""


ARGUMENTS = (
    Argument("out_dir", type=Path, metavar="OUT_DIR", help="output folder"),
    Argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where it was given to the run",
    ),
)

EXAMPLE = "cingulum status results"


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    parser.set_defaults(execute=execute)


def execute(arguments: argparse.Namespace) -> int:
    from cingulum.cache.status import DONE, FAILED, status_table

    table = status_table(arguments.out_dir, arguments.work_dir)
    _print_counts(table)
    _print_failures(table[table["state"] == FAILED])
    _print_report_state(arguments.out_dir)
    if (table["state"] == DONE).all():
        return 0
    print(f"to finish: {_finishing_command(arguments.out_dir, arguments.work_dir)}")
    return 3


def _print_report_state(out_dir: Path) -> None:
    # The table counts measurements only; the report comes after all of them.
    report_exists = (out_dir / "report.html").is_file()
    print(f"report: {'report.html' if report_exists else 'not written yet'}")


def _print_counts(table: pd.DataFrame) -> None:
    """How many visits of each feature are done, failed or missing."""
    from cingulum.cache.status import DONE, FAILED, MISSING

    participants = table["participant"].nunique()
    visits = table.groupby(["participant", "session"]).ngroups
    print(f"{participants} participants, {visits} visits")
    counts = table.groupby(["feature", "state"]).size().unstack(fill_value=0)
    # A state that no visit is in is shown as 0.
    counts = counts.reindex(columns=[DONE, FAILED, MISSING], fill_value=0)
    print(counts.rename_axis(columns=None).to_string())


def _print_failures(failed: pd.DataFrame) -> None:
    """Each reason once, with the first visits that failed for it."""
    for reason, rows in failed.groupby("reason"):
        names = list(map(_visit_name, rows.participant, rows.session))
        print(f"failed ({len(names)}): {_first_visits(names)}: {reason}")


def _first_visits(names: list[str]) -> str:
    # A visit of which several features failed is named once.
    shown = ", ".join(dict.fromkeys(names[:VISITS_NAMED]))
    return f"{shown} …" if len(names) > VISITS_NAMED else shown


def _visit_name(participant: str, session: str) -> str:
    if not session:
        return f"sub-{participant}"
    return f"sub-{participant} ses-{session}"


def _finishing_command(out_dir: Path, work_dir: Path | None) -> str:
    """The command that measures what failed or is missing."""
    folder = _quoted(out_dir)
    work_option = f" --work-dir {_quoted(work_dir)}" if work_dir else ""
    study = (work_dir or out_dir / "work") / "study.toml"
    # `cingulum features` has no study file, and its options are not recorded.
    if not study.is_file():
        return (
            f"cingulum features BIDS_DIR {folder}{work_option}, with the options it "
            "was begun with"
        )
    return (
        f"cingulum run BIDS_DIR {folder} participant --study {_quoted(study)}"
        f"{work_option}"
    )


def _quoted(path: Path) -> str:
    """A path as it can be pasted into a shell."""
    return shlex.quote(str(path))
