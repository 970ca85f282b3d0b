"""cingulum signature: weights applied to new data, weights exported."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from cingulum.cli.options import (
    DATASET_ARGUMENTS,
    EXECUTOR_ARGUMENTS,
    Argument,
    add_arguments,
    chosen_executor,
    chosen_filters,
    describe,
)

if TYPE_CHECKING:
    from cingulum.io.files import JsonObject

Figures: TypeAlias = "JsonObject"
"""A part of summary.json."""

DESCRIPTION = """\
apply: scores of every scan, and decisions of every participant with two visits, with
the weights of a signature: one of ours, or a folder with the published maps of Lee et
al. 2019. Data in other units, with little coverage or the wrong way round are refused.
export: signs the weights of a `cingulum run … group`: maps, columns, hashes and a
model card; no code."""


EXAMPLE = (
    "cingulum signature apply --signature weights --bids dataset --out "
    "scored\n"
    "  cingulum signature export results --out signature"
)


SIGNATURE_ARGUMENT = Argument(
    "--signature",
    type=Path,
    required=True,
    metavar="DIR",
    help="folder of the signature",
)

DATA_ARGUMENTS = (
    Argument(
        "--bids",
        type=Path,
        metavar="DIR",
        help="dataset with derivatives; features are measured first",
    ),
    Argument(
        "--scans",
        type=Path,
        metavar="TABLE",
        help="table of scans: participant_id, session_id, one "
        "column a modality (NIfTI file or number), pain where known",
    ),
)

SCORES_ARGUMENT = Argument(
    "--out", type=Path, required=True, metavar="DIR", help="where scores go"
)

EXPORT_ARGUMENTS = (
    Argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="output of `cingulum run … group`"
    ),
    Argument("--out", type=Path, required=True, metavar="DIR", help="new folder"),
    Argument("--name", help="of the signature (default: the run's title)"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    verbs = parser.add_subparsers(title="verbs", metavar="VERB", required=True)
    _add_apply_options(verbs.add_parser("apply", help="score new data"))
    export = verbs.add_parser("export", help="sign the weights of a run")
    add_arguments(export, EXPORT_ARGUMENTS)
    export.set_defaults(execute=execute_export)


def _add_apply_options(parser: argparse.ArgumentParser) -> None:
    add_arguments(parser, [SIGNATURE_ARGUMENT])
    # Images or a table: with both, it would be open which is scored.
    data = parser.add_mutually_exclusive_group(required=True)
    add_arguments(data, DATA_ARGUMENTS)
    add_arguments(parser, (SCORES_ARGUMENT, *DATASET_ARGUMENTS, *EXECUTOR_ARGUMENTS))
    parser.set_defaults(execute=execute_apply)


def execute_apply(arguments: argparse.Namespace) -> int:
    summary = _apply(arguments)
    _print_decisions(summary["models"])
    # Suspicious data are scored, but not without a word.
    for flag in summary["flags"]:
        print(f"flag: {flag}", file=sys.stderr)
    print((arguments.out / "summary.json").resolve())
    return 3 if summary["failures"] else 0


def _print_decisions(models: Figures) -> None:
    for name, figures in models.items():
        # Nothing is decided where nobody has two visits with this modality.
        if figures["decided"]:
            print(f"{name:12} {_decisions(figures)}")


def _apply(arguments: argparse.Namespace) -> Figures:
    from cingulum.pipeline.signature_scoring import apply_to_table

    if arguments.scans:
        return apply_to_table(arguments.signature, arguments.scans, arguments.out)
    return _apply_to_dataset(arguments)


def _apply_to_dataset(arguments: argparse.Namespace) -> Figures:
    from cingulum.pipeline.feature_export import VisitSelection
    from cingulum.pipeline.paths import RunPaths, StudyRun
    from cingulum.pipeline.signature_scoring import apply_to_bids

    selection = VisitSelection(
        arguments.participant_label,
        arguments.session_label,
        chosen_filters(arguments),
    )
    paths = RunPaths.of(
        arguments.bids, arguments.out, arguments.derivatives, arguments.work_dir
    )
    run = StudyRun(paths, chosen_executor(arguments), show_progress=True)
    return apply_to_bids(arguments.signature, selection, run)


def _decisions(figures: Figures) -> str:
    """How many second visits were judged more painful, and how often that is right."""
    decided = figures["decided"]
    return (
        f"second visit higher in {figures['second_visit_higher']} of {decided}"
        f"{_accuracy(figures)}"
    )


def _accuracy(figures: Figures) -> str:
    # Known only where the new data have pain ratings.
    if "accuracy" not in figures:
        return ""
    percent = 100 * figures["accuracy"]
    return f", right in {percent:.1f} % of {figures['pain_known']}"


def execute_export(arguments: argparse.Namespace) -> None:
    from cingulum.pipeline.signature_export import export_signature

    print(export_signature(arguments.run_dir, arguments.out, arguments.name).resolve())
