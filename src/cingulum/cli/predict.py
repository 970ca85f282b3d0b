"""cingulum predict: an evaluation from any table."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cingulum.cli.options import (
    Argument,
    add_arguments,
    describe,
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


EXAMPLE = (
    "cingulum predict features.tsv --outcome pain --group participant_id "
    "--design paired --out prediction"
)


def _modality(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, columns = text.partition("=")
    if not name or not columns:
        raise argparse.ArgumentTypeError(
            f"expected NAME=COLUMN,COLUMN such as hrv=hrv_rmssd,hrv_sdnn; got {text!r}"
        )
    return name, tuple(columns.split(","))


TABLE_ARGUMENTS = (
    Argument(
        "table", type=Path, metavar="FEATURES", help="table with a header, a row a scan"
    ),
    Argument(
        "--outcome",
        required=True,
        metavar="COLUMN",
        help="what is to be predicted: numbers",
    ),
    # The name that BIDS gives the column in all its tables.
    Argument(
        "--group",
        default="participant_id",
        metavar="COLUMN",
        help="who a row belongs to (default: %(default)s)",
    ),
    Argument(
        "--design",
        choices=["paired", "between"],
        default="paired",
        help="default: %(default)s",
    ),
    # A paired difference is the second visit minus the first.
    Argument(
        "--order",
        metavar="COLUMN",
        help="which visit is the first (default: session_id, else the order "
        "of the rows)",
    ),
    Argument(
        "--bids",
        type=Path,
        metavar="DIR",
        help="dataset whose sessions.tsv and participants.tsv have the outcome, or "
        "other columns that the table lacks",
    ),
)


COLUMN_ARGUMENTS = (
    Argument(
        "--features",
        nargs="+",
        metavar="COLUMN",
        help="only these columns; * and ? are wildcards "
        "(default: every numeric column that is not used otherwise)",
    ),
    Argument(
        "--modality",
        action="append",
        type=_modality,
        metavar="NAME=COLUMN,…",
        help="columns of one "
        "modality; may be repeated (default: as the table's .json groups them, else "
        "one)",
    ),
    Argument(
        "--controls",
        nargs="+",
        metavar="NAME",
        help="modalities or columns scored by themselves and "
        "kept out of the fusion (default: motion and quality, where the .json has "
        "them)",
    ),
    Argument(
        "--confounds",
        nargs="+",
        metavar="COLUMN",
        help="regressed out of the features in every fold",
    ),
    Argument(
        "--site",
        metavar="COLUMN",
        help="participants exchange outcomes inside their site only",
    ),
    Argument(
        "--family",
        metavar="COLUMN",
        help="participants of one family are left out together, and exchange outcomes "
        "as a whole",
    ),
    # The site's offset is in both visits of a participant, so that paired differences
    # have none.
    Argument(
        "--harmonise",
        action="store_true",
        help="between: take location and scale of sites out",
    ),
)


MODEL_ARGUMENTS = (
    Argument(
        "--fusion",
        choices=["stacked", "kernels", "log_odds"],
        default="stacked",
        help="of modalities: a second machine as published, weighted kernels, log-odds "
        "that add (default: %(default)s)",
    ),
    Argument(
        "--missing",
        choices=["complete", "log_odds"],
        default="complete",
        help="participants that lack a modality: left out, or kept, by log-odds of the "
        "rest (default: %(default)s)",
    ),
    Argument(
        "--model",
        choices=["ridge", "kernel_ridge", "svr"],
        default="ridge",
        help="between (default: %(default)s)",
    ),
    Argument(
        "--folds",
        type=int,
        metavar="N",
        help="default: paired, one participant at a "
        "time, beyond 100 participants 20; between, 10",
    ),
    # Several values cost an inner cross-validation in every fold.
    Argument(
        "-C",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="C",
        help="penalty of the machines; several are tuned inside the folds (default: 1)",
    ),
    # Weights of raw features can be read in their units.
    Argument(
        "--raw",
        action="store_true",
        help="features in their own units instead of scaled in every fold",
    ),
)


TEST_ARGUMENTS = (
    # The smallest p is then 1 in 5001.
    Argument("--permutations", type=int, default=5000, help="default: %(default)s"),
    Argument(
        "--stop-after",
        type=int,
        metavar="H",
        help="stop once H permutations were as good (Besag and "
        "Clifford 1991): exact, and quick where there is nothing",
    ),
    Argument("--seed", type=int, default=0, help="default: %(default)s"),
    Argument("--n-jobs", type=int, metavar="N", help="threads (default: one a core)"),
    # With so few, hardly any accuracy differs from chance.
    Argument(
        "--force", action="store_true", help="also with fewer than 10 participants"
    ),
)

ARGUMENTS = (
    *TABLE_ARGUMENTS,
    *COLUMN_ARGUMENTS,
    *MODEL_ARGUMENTS,
    *TEST_ARGUMENTS,
    Argument("--out", type=Path, required=True, metavar="DIR", help="where results go"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    parser.set_defaults(execute=execute)


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
    _check_modalities([name for name, _ in arguments.modality or ()])


def _check_modalities(names: Sequence[str]) -> None:
    # A dictionary of them would keep the last one without a word.
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
            bids=arguments.bids,
        ),
        ColumnRoles(
            features=tuple(arguments.features or ()),
            modalities=dict(arguments.modality or ()),
            controls=tuple(arguments.controls or ()),
            confounds=tuple(arguments.confounds or ()),
            site=arguments.site,
            family=arguments.family,
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
    """What was left out, and which columns are used, on the error stream: the output
    has the results only."""
    for reason, left_out in use.left_out.items():
        print(f"left out, {reason}: {_names_or_count(left_out)}", file=sys.stderr)
    for name, columns in use.columns.items():
        print(f"{name}: {_shortened(columns)}", file=sys.stderr)


def _names_or_count(left_out: Sequence[str] | int) -> str:
    # Of rows without an outcome, for example, only the number is known.
    if isinstance(left_out, int):
        return str(left_out)
    return ", ".join(map(str, left_out))


def _shortened(columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:COLUMNS_NAMED])
    if len(columns) > COLUMNS_NAMED:
        return f"{shown} and {len(columns) - COLUMNS_NAMED} more"
    return shown


def _print_findings(results: TableResults) -> None:
    print(f"\n{results.lead}\n")
    for check in results.section.audit:
        _print_check(check.verdict, check.words)
    for note in results.section.notes:
        print(f"note: {note}")


def _print_check(verdict: str, words: str) -> None:
    # Checks that passed are in the report only.
    if verdict == "pass":
        return
    heading = "LEAK AUDIT FAILED" if verdict == "fail" else "warning"
    print(f"{heading}: {words}")
