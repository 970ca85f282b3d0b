"""cingulum predict: an evaluation from any table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cingulum.cli.options import (
    Commands,
    add_command,
    print_results,
    require_at_least,
)
from cingulum.errors import InputError

if TYPE_CHECKING:
    from cingulum.pipeline.table_request import Request
    from cingulum.report.table_results import TableResults, TableUse

COLUMNS_NAMED = 12
"""Columns of a modality that are printed; summary.json names them all."""

DESCRIPTION = """\
Takes a table with a row a scan (.tsv or .csv, from `cingulum features` or anywhere
else) and writes summary.json, predictions.tsv (every prediction, out of fold),
report.html and, paired, weights.tsv.

designs:
  paired   which of a participant's two visits had the higher outcome? Support vector
           machines on differences, one participant left out at a time, nested fusion
           of modalities; p by swapping participants' visits
  between  how high is the outcome of a participant never seen? Ridge (or SVR, kernel
           ridge), participants never on both sides of a split; p by exchanging
           participants' outcomes

Scaling, confounds and harmonisation are fitted inside the folds. Needs 10
participants."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "predict",
        summary="evaluate a prediction from any table of features",
        description=DESCRIPTION,
        example="cingulum predict features.tsv --outcome pain --group participant_id "
        "--design paired --out prediction",
    )
    _add_table_options(parser)
    _add_column_options(parser)
    _add_model_options(parser)
    _add_test_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where results go"
    )
    parser.set_defaults(execute=execute)


def _add_table_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "table", type=Path, metavar="FEATURES", help="table with a header, a row a scan"
    )
    parser.add_argument(
        "--outcome",
        required=True,
        metavar="COLUMN",
        help="what is to be predicted: numbers",
    )
    parser.add_argument(
        "--group",
        default="participant_id",
        metavar="COLUMN",
        help="who a row belongs to (default: %(default)s)",
    )
    parser.add_argument(
        "--design",
        choices=["paired", "between"],
        default="paired",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--order",
        metavar="COLUMN",
        help="which visit is the first (default: session_id, else the order "
        "of the rows)",
    )


def _add_column_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--features",
        nargs="+",
        metavar="COLUMN",
        help="only these columns; * and ? are wildcards "
        "(default: every numeric column that is not used otherwise)",
    )
    parser.add_argument(
        "--modality",
        action="append",
        type=_modality,
        metavar="NAME=COLUMN,…",
        help="columns of one "
        "modality; may be repeated (default: as the table's .json groups them, else "
        "one)",
    )
    parser.add_argument(
        "--controls",
        nargs="+",
        metavar="NAME",
        help="modalities or columns scored by themselves and "
        "kept out of the fusion (default: motion and quality, where the .json has "
        "them)",
    )
    parser.add_argument(
        "--confounds",
        nargs="+",
        metavar="COLUMN",
        help="regressed out of the features in every fold",
    )
    parser.add_argument(
        "--site",
        metavar="COLUMN",
        help="participants exchange outcomes inside their site only",
    )
    parser.add_argument(
        "--harmonise",
        action="store_true",
        help="between: take location and scale of sites out",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fusion",
        choices=["stacked", "kernels", "log_odds"],
        default="stacked",
        help="of modalities: a second machine as published, weighted kernels, log-odds "
        "that add (default: %(default)s)",
    )
    parser.add_argument(
        "--missing",
        choices=["complete", "log_odds"],
        default="complete",
        help="participants that lack a modality: left out, or kept, by log-odds of the "
        "rest (default: %(default)s)",
    )
    parser.add_argument(
        "--model",
        choices=["ridge", "kernel_ridge", "svr"],
        default="ridge",
        help="between (default: %(default)s)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="default: paired, one participant at a "
        "time, beyond 100 participants 20; between, 10",
    )
    parser.add_argument(
        "-C",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="C",
        help="penalty of the machines; several are tuned inside the folds (default: 1)",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="features in their own units instead of scaled in every fold",
    )


def _add_test_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--permutations", type=int, default=5000, help="default: %(default)s"
    )
    parser.add_argument(
        "--stop-after",
        type=int,
        metavar="H",
        help="stop once H permutations were as good (Besag and "
        "Clifford 1991): exact, and quick where there is nothing",
    )
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument(
        "--n-jobs", type=int, metavar="N", help="threads (default: one a core)"
    )
    parser.add_argument(
        "--force", action="store_true", help="also with fewer than 10 participants"
    )


def _modality(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, columns = text.partition("=")
    if not name or not columns:
        raise argparse.ArgumentTypeError(
            f"expected NAME=COLUMN,COLUMN such as hrv=hrv_rmssd,hrv_sdnn; came {text!r}"
        )
    return name, tuple(columns.split(","))


def execute(arguments: argparse.Namespace) -> None:
    from cingulum.pipeline.table_prediction import predict

    _check(arguments)
    results = predict(
        arguments.table,
        arguments.out,
        _request(arguments),
        jobs=arguments.n_jobs,
        show_progress=True,
    )
    _print_data(results.use)
    _print_findings(results)
    print_results(arguments.out)


def _check(arguments: argparse.Namespace) -> None:
    require_at_least(
        arguments.permutations, 19, "--permutations", "p of .05 needs that many"
    )
    if arguments.n_jobs is not None:
        require_at_least(arguments.n_jobs, 1, "--n-jobs", "a thread does the work")
    names = [name for name, _ in arguments.modality or ()]
    if len(set(names)) < len(names):
        raise InputError(
            "--modality: a name came twice. Put all its columns into one: "
            "NAME=COLUMN,COLUMN."
        )


def _request(arguments: argparse.Namespace) -> Request:
    """The options as the prediction takes them."""
    from cingulum.pipeline.table_request import (
        ColumnRoles,
        EvaluationOptions,
        ModelOptions,
        Question,
        Request,
    )

    return Request(
        Question(
            outcome=arguments.outcome,
            group=arguments.group,
            design=arguments.design,
            order=arguments.order,
        ),
        ColumnRoles(
            features=tuple(arguments.features or ()),
            modalities=dict(arguments.modality or ()),
            controls=tuple(arguments.controls or ()),
            confounds=tuple(arguments.confounds or ()),
            site=arguments.site,
        ),
        ModelOptions(
            harmonise=arguments.harmonise,
            fusion=arguments.fusion,
            missing=arguments.missing,
            model=arguments.model,
            folds=arguments.folds,
            C=tuple(arguments.C),
            scale=not arguments.raw,
        ),
        EvaluationOptions(
            permutations=arguments.permutations,
            stop_after=arguments.stop_after,
            seed=arguments.seed,
            force=arguments.force,
        ),
    )


def _print_data(use: TableUse) -> None:
    """What was left out, and which columns are used, on the error stream: the results
    alone go to the output."""
    for reason, left_out in use.left_out.items():
        names = left_out
        if not isinstance(left_out, int):
            names = ", ".join(str(name) for name in left_out)
        print(f"left out, {reason}: {names}", file=sys.stderr)
    for name, columns in use.columns.items():
        shown = ", ".join(columns[:COLUMNS_NAMED])
        if len(columns) > COLUMNS_NAMED:
            shown += f" and {len(columns) - COLUMNS_NAMED} more"
        print(f"{name}: {shown}", file=sys.stderr)


def _print_findings(results: TableResults) -> None:
    print(f"\n{results.lead}\n")
    for check in results.section.audit:
        if check.verdict == "fail":
            print(f"LEAK AUDIT FAILED: {check.words}")
        elif check.verdict != "pass":
            print(f"warning: {check.words}")
    for note in results.section.notes:
        print(f"note: {note}")
