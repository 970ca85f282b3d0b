"""cingulum predict: an evaluation from any table."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cingulum.cli.options import Commands, at_least, command
from cingulum.errors import InputError


def add(commands: Commands) -> None:
    made = command(
        commands,
        "predict",
        "evaluate a prediction from any table of features",
        "Takes a table with a row a scan (.tsv or .csv, from `cingulum features` or "
        "anywhere else) and writes\n"
        "summary.json, predictions.tsv (every prediction, out of fold), report.html "
        "and, paired, weights.tsv.\n\n"
        "designs:\n"
        "  paired   which of a participant's two visits had the higher outcome? "
        "Support vector machines on\n"
        "           differences, one participant left out at a time, nested fusion of "
        "modalities; p by swapping\n"
        "           participants' visits\n"
        "  between  how high is the outcome of a participant never seen? Ridge (or "
        "SVR, kernel ridge), participants\n"
        "           never on both sides of a split; p by exchanging participants' "
        "outcomes\n\n"
        "Scaling, confounds and harmonisation are fitted inside the folds. Needs 10 "
        "participants.",
        "cingulum predict features.tsv --outcome pain --group participant_id --design "
        "paired --out prediction",
    )
    made.add_argument(
        "table", type=Path, metavar="FEATURES", help="table with a header, a row a scan"
    )
    made.add_argument(
        "--outcome",
        required=True,
        metavar="COLUMN",
        help="what is to be predicted: numbers",
    )
    made.add_argument(
        "--group",
        default="participant_id",
        metavar="COLUMN",
        help="who a row belongs to (default: %(default)s)",
    )
    made.add_argument(
        "--design",
        choices=["paired", "between"],
        default="paired",
        help="default: %(default)s",
    )
    made.add_argument(
        "--order",
        metavar="COLUMN",
        help="which visit is the first (default: session_id, else the order "
        "of the rows)",
    )
    made.add_argument(
        "--features",
        nargs="+",
        metavar="COLUMN",
        help="only these columns; * and ? are wildcards "
        "(default: every numeric column that is not used otherwise)",
    )
    made.add_argument(
        "--modality",
        action="append",
        type=_modality,
        metavar="NAME=COLUMN,…",
        help="columns of one "
        "modality; may be repeated (default: as the table's .json groups them, else "
        "one)",
    )
    made.add_argument(
        "--controls",
        nargs="+",
        metavar="NAME",
        help="modalities or columns scored by themselves and "
        "kept out of the fusion (default: motion and quality, where the .json has "
        "them)",
    )
    made.add_argument(
        "--confounds",
        nargs="+",
        metavar="COLUMN",
        help="regressed out of the features in every fold",
    )
    made.add_argument(
        "--site",
        metavar="COLUMN",
        help="participants exchange outcomes inside their site only",
    )
    made.add_argument(
        "--harmonise",
        action="store_true",
        help="between: take location and scale of sites out",
    )
    made.add_argument(
        "--fusion",
        choices=["stacked", "kernels", "log_odds"],
        default="stacked",
        help="of modalities: a second machine as published, weighted kernels, log-odds "
        "that add (default: %(default)s)",
    )
    made.add_argument(
        "--missing",
        choices=["complete", "log_odds"],
        default="complete",
        help="participants that lack a modality: left out, or kept, by log-odds of the "
        "rest (default: %(default)s)",
    )
    made.add_argument(
        "--model",
        choices=["ridge", "kernel_ridge", "svr"],
        default="ridge",
        help="between (default: %(default)s)",
    )
    made.add_argument(
        "--folds",
        type=int,
        metavar="N",
        help="default: paired, one participant at a "
        "time, beyond 100 participants 20; between, 10",
    )
    made.add_argument(
        "-C",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="C",
        help="penalty of the machines; several are tuned inside the folds (default: 1)",
    )
    made.add_argument(
        "--raw",
        action="store_true",
        help="features in their own units instead of scaled in every fold",
    )
    made.add_argument(
        "--permutations", type=int, default=5000, help="default: %(default)s"
    )
    made.add_argument(
        "--stop-after",
        type=int,
        metavar="H",
        help="stop once H permutations were as good (Besag and "
        "Clifford 1991): exact, and quick where there is nothing",
    )
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument(
        "--n-jobs", type=int, metavar="N", help="threads (default: one a core)"
    )
    made.add_argument(
        "--force", action="store_true", help="also with fewer than 10 participants"
    )
    made.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where results go"
    )
    made.set_defaults(run=run)


def _modality(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, columns = text.partition("=")
    if not name or not columns:
        raise argparse.ArgumentTypeError(
            f"expected NAME=COLUMN,COLUMN such as hrv=hrv_rmssd,hrv_sdnn; came {text!r}"
        )
    return name, tuple(columns.split(","))


def run(given: argparse.Namespace) -> None:
    from cingulum.pipeline.prepared_table import Request
    from cingulum.pipeline.table_prediction import predict

    at_least(given.permutations, 19, "--permutations", "p of .05 needs that many")
    if given.n_jobs is not None:
        at_least(given.n_jobs, 1, "--n-jobs", "a thread does the work")
    named = [name for name, _ in given.modality or ()]
    if len(set(named)) < len(named):
        raise InputError(
            "--modality: a name came twice. Put all its columns into one: "
            "NAME=COLUMN,COLUMN."
        )
    request = Request(
        given.outcome,
        given.group,
        given.design,
        given.order,
        tuple(given.features or ()),
        dict(given.modality or ()),
        tuple(given.controls or ()),
        tuple(given.confounds or ()),
        given.site,
        given.harmonise,
        given.fusion,
        given.missing,
        given.model,
        given.folds,
        tuple(given.C),
        not given.raw,
        given.permutations,
        given.stop_after,
        seed=given.seed,
        force=given.force,
    )
    summary = predict(
        given.table, given.out, request, jobs=given.n_jobs, show_progress=True
    )
    for what, which in summary["left_out"].items():
        print(
            f"left out, {what}: "
            f"{', '.join(map(str, which)) if isinstance(which, list) else which}",
            file=sys.stderr,
        )
    for name, columns in summary["columns"].items():
        more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
        print(f"{name}: {', '.join(columns[:12])}{more}", file=sys.stderr)
    print(f"\n{summary['lead']}\n")
    for check in summary["audit"]:
        if check["verdict"] != "pass":
            print(
                f"{'LEAK AUDIT FAILED' if check['verdict'] == 'fail' else 'warning'}: "
                f"{check['words']}"
            )
    for note in summary["notes"]:
        print(f"note: {note}")
    print(
        f"Report:  {(given.out / 'report.html').resolve()}\nNumbers: "
        f"{(given.out / 'summary.json').resolve()}"
    )
