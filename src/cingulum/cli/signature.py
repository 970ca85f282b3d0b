"""cingulum signature: weights applied to new data, weights exported."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cingulum.cli.options import (
    Commands,
    command,
    dataset_options,
    executor,
    executor_options,
)


def add(commands: Commands) -> None:
    made = command(
        commands,
        "signature",
        "score new data with published or own weights; export weights",
        "apply: scores of every scan, and decisions of every participant with two "
        "visits, with the weights of a\n"
        "signature: one of ours, or a folder with the published maps of Lee et al. "
        "2019. Data in other units, with\n"
        "little coverage or the wrong way round are refused.\n"
        "export: signs the weights of a `cingulum run … group`: maps, columns, hashes "
        "and a model card; no code.",
        "cingulum signature apply --signature lee2019 --bids dataset --out scored\n"
        "  cingulum signature export results --out signature",
    )
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    apply = verbs.add_parser("apply", help="score new data")
    apply.add_argument(
        "--signature",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the signature",
    )
    data = apply.add_mutually_exclusive_group(required=True)
    data.add_argument(
        "--bids",
        type=Path,
        metavar="DIR",
        help="dataset with derivatives; features are measured first",
    )
    data.add_argument(
        "--scans",
        type=Path,
        metavar="TABLE",
        help="table of scans: participant_id, session_id, one "
        "column a modality (NIfTI file or number), pain where known",
    )
    apply.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where scores go"
    )
    dataset_options(apply)
    executor_options(apply)
    apply.set_defaults(run=_apply_signature)
    export = verbs.add_parser("export", help="sign the weights of a run")
    export.add_argument(
        "run_dir", type=Path, metavar="RUN_DIR", help="output of `cingulum run … group`"
    )
    export.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="new folder"
    )
    export.add_argument("--name", help="of the signature (default: the run's title)")
    export.set_defaults(run=_export_signature)


def _apply_signature(given: argparse.Namespace) -> int:
    from cingulum.io.visit import read_filters
    from cingulum.pipeline.signature_scoring import apply_to_bids, apply_to_table

    if given.scans:
        summary = apply_to_table(given.signature, given.scans, given.out)
    else:
        filters = (
            read_filters(given.bids_filter_file) if given.bids_filter_file else None
        )
        summary = apply_to_bids(
            given.signature,
            given.bids,
            given.out,
            participants=given.participant_label,
            filters=filters,
            derivatives=given.derivatives,
            sessions=given.session_label,
            executor=executor(given),
            work=given.work_dir,
            show_progress=True,
        )
    for name, figures in summary["models"].items():
        if not figures["decided"]:
            continue
        known = (
            f", right in {100 * figures['accuracy']:.1f} % of {figures['pain_known']}"
            if "accuracy" in figures
            else ""
        )
        print(
            f"{name:12} second visit higher in {figures['second_visit_higher']} of "
            f"{figures['decided']}{known}"
        )
    for flag in summary["flags"]:
        print(f"flag: {flag}", file=sys.stderr)
    print((given.out / "summary.json").resolve())
    return 3 if summary["failures"] else 0


def _export_signature(given: argparse.Namespace) -> None:
    from cingulum.pipeline.signature_scoring import export

    print(export(given.run_dir, given.out, given.name).resolve())
