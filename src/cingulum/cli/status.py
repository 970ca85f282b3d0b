"""cingulum status: what is done, what failed, what is missing, and the command that
finishes it."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from cingulum.cli.options import Commands, command


def add(commands: Commands) -> None:
    made = command(
        commands,
        "status",
        "what is done, failed or missing in an output folder, and how to finish",
        "Counts every visit and feature of an OUT_DIR of `cingulum run` or `cingulum "
        "features`, during it or after.\n"
        "Exit code 0 where everything is done, 3 where something failed or is missing.",
        "cingulum status results",
    )
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="output folder")
    made.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where it was given to the run",
    )
    made.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    from cingulum.cache import status

    table = status.state(given.out_dir, given.work_dir)
    counts = table.groupby(["feature", "state"]).size().unstack(fill_value=0)
    counts = counts.reindex(columns=["done", "failed", "missing"], fill_value=0)
    visits = table.groupby(["participant", "session"]).ngroups
    people = table["participant"].nunique()
    print(f"{people} participants, {visits} visits")
    print(counts.rename_axis(columns=None).to_string())
    for reason, rows in table[table["state"] == "failed"].groupby("reason"):
        names = [
            f"sub-{p}" + (f" ses-{s}" if s else "")
            for p, s in zip(rows.participant, rows.session, strict=True)
        ]
        shown = ", ".join(dict.fromkeys(names[:3])) + (" …" if len(names) > 3 else "")
        print(f"failed ({len(rows)}): {shown}: {reason}")
    missing, failed = (
        int((table["state"] == state).sum()) for state in ("missing", "failed")
    )
    report = (given.out_dir / "report.html").is_file()
    print(f"report: {'report.html' if report else 'not written yet'}")
    if missing or failed:
        out = shlex.quote(str(given.out_dir))
        work = (
            f" --work-dir {shlex.quote(str(given.work_dir))}" if given.work_dir else ""
        )
        study = (given.work_dir or given.out_dir / "work") / "study.toml"
        level = (
            f"cingulum run BIDS_DIR {out} participant --study "
            f"{shlex.quote(str(study))}{work}"
        )
        other = (
            f"cingulum features BIDS_DIR {out}{work}, with the options it was "
            "begun with"
        )
        print(f"to finish: {level if study.is_file() else other}")
        return 3
    return 0
