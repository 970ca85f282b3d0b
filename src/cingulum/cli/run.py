"""cingulum run: a BIDS App. Every option of a study is an option here; the study file
says the same at length."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cingulum.cli.options import (
    DATASET_ARGUMENTS,
    EXECUTOR_ARGUMENTS,
    Argument,
    add_arguments,
    chosen_executor,
    chosen_filters,
    describe,
)
from cingulum.pipeline.config import (
    SECTIONS,
    DatasetConfig,
    Option,
    StudyConfig,
    Values,
    options,
    read_study,
    with_connectome,
    with_options,
)

if TYPE_CHECKING:
    from cingulum.pipeline.paths import Run

DESCRIPTION = """\
participant: measure every visit, and fit brain models. group: measure what is
missing, then predict (or compare the fitted models) and write report.html, a page
for each participant, summary.json, features.tsv and maps.

Everything is kept as it is finished: after an interruption the same command goes on.
A visit that fails is recorded in failures.tsv, and the rest goes on (exit code 3).
`cingulum status OUT_DIR` tells how far it is.

The study: one TOML file (--study) and the options below, which win over it (--no-...
and none take back what it says); the whole study is written to OUT_DIR/study.toml.
The analysis "prediction" needs two visits a patient and their pain in
sub-<label>_sessions.tsv (columns session_id, pain; 0 to 100); "model" needs BOLD."""

METAVARS = {int: "N", float: "X", str: "TEXT"}


ARGUMENTS = (
    Argument(
        "bids_dir",
        type=Path,
        metavar="BIDS_DIR",
        help="dataset, with derivatives/ in it",
    ),
    Argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go"),
    # Participants in parallel jobs first, then the group once: the levels of BIDS Apps.
    Argument("level", choices=["participant", "group"], help="which part to run"),
    *DATASET_ARGUMENTS,
    *EXECUTOR_ARGUMENTS,
    Argument(
        "--study",
        type=Path,
        metavar="TOML",
        help="study file (examples/studies has three)",
    ),
    Argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, how much is done already and how long the rest "
        "will take; write nothing",
    ),
    Argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use what is in OUT_DIR and the work folder again; --no-resume measures "
        "and fits everything anew",
    ),
)

EXAMPLE = (
    "cingulum run dataset results participant --n-jobs 4\n"
    "  cingulum run dataset results group --study study.toml --modalities rcbf "
    "hfhrv"
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION, EXAMPLE)
    add_arguments(parser, ARGUMENTS)
    _add_study_options(parser)
    parser.set_defaults(execute=execute)


def _add_study_options(parser: argparse.ArgumentParser) -> None:
    """Options of the study file, but for those of its dataset, which BIDS Apps call
    --participant-label and the like."""
    group = parser.add_argument_group("settings of the study")
    for option in options(StudyConfig):
        _add_study_option(group, option.name, option)
    for section, config_class in SECTIONS.items():
        if section == "dataset":
            continue
        group = parser.add_argument_group(f"settings of the study: [{section}]")
        for option in options(config_class):
            # --seed is the seed of both analyses.
            if (section, option.name) != ("model", "seed"):
                _add_study_option(group, f"{section}.{option.name}", option)


def _add_study_option(group: Any, dotted_name: str, option: Option) -> None:
    flag = "--" + option.name.replace("_", "-")
    # An option that is not typed leaves no trace: the study file's value stands.
    shared = {
        "dest": dotted_name,
        "default": argparse.SUPPRESS,
        "help": option.help,
    }
    if option.item_type is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **shared)
        return
    if option.is_list:
        group.add_argument(flag, nargs="*", metavar="NAME", **shared)
        return
    metavar = METAVARS[option.item_type]
    read: Callable[[str], Any] = option.item_type
    if option.may_be_none:
        metavar = f"{metavar}|none"
        read = _or_none(option.item_type)
    group.add_argument(flag, type=read, metavar=metavar, **shared)


def _or_none(item_type: type) -> Callable[[str], Any]:
    """Reads an option that may be absent: `none` takes back what the file says."""

    def read(text: str) -> Any:
        return None if text == "none" else item_type(text)

    # argparse names the function in its errors.
    read.__name__ = f"{item_type.__name__} or none"
    return read


def chosen_study(arguments: argparse.Namespace) -> StudyConfig:
    """The study of a command line: its file, and the options that win over it."""
    # The file first, so that options win over it.
    study = StudyConfig()
    if arguments.study:
        study = read_study(arguments.study)
    study = with_options(study, _study_options(arguments))
    study = with_options(study, _dataset_options(arguments))
    if not study.features.connectome:
        return study
    # Workers of a cluster may be in another folder.
    return with_connectome(study, Path(study.features.connectome).absolute())


def _study_options(arguments: argparse.Namespace) -> Values:
    """Options of the study that were typed, by dotted names."""
    typed = {}
    for name, value in vars(arguments).items():
        if _is_study_option(name):
            # A list is taken back by `none`, or by no word at all.
            typed[name] = [] if value == ["none"] else value
    # The option --seed is declared once, by the prediction.
    if "prediction.seed" in typed:
        typed["model.seed"] = typed["prediction.seed"]
    return typed


def _is_study_option(name: str) -> bool:
    section, dot, _ = name.partition(".")
    if dot:
        return section in SECTIONS
    return name in {option.name for option in options(StudyConfig)}


def _dataset_options(arguments: argparse.Namespace) -> Values:
    typed = {
        "dataset.participants": arguments.participant_label,
        "dataset.sessions": arguments.session_label,
        "dataset.filters": chosen_filters(arguments),
    }
    return {name: value for name, value in typed.items() if value is not None}


def execute(arguments: argparse.Namespace) -> int:
    # Checked before the heavy imports: a mistyped option is told at once.
    study = chosen_study(arguments)
    from cingulum.pipeline.paired_study import forget_study
    from cingulum.pipeline.paths import Run, RunPaths
    from cingulum.pipeline.plan import describe_plan

    paths = RunPaths.of(
        arguments.bids_dir,
        arguments.out_dir,
        arguments.derivatives,
        arguments.work_dir,
    )
    run = Run(paths, chosen_executor(arguments), show_progress=True)
    if arguments.dry_run:
        print(describe_plan(study, run, arguments.level))
        return 0
    if not arguments.resume:
        forget_study(study, paths)
    if arguments.level == "participant":
        _begin(study, run, arguments.study)
    level = LEVELS[study.analysis, arguments.level]
    return level(study, run)


def _begin(study: StudyConfig, run: Run, study_file: Path | None) -> None:
    """Write the study that the output belongs to. This may be one of many jobs with a
    participant each, whose labels are no part of the study."""
    from cingulum.pipeline.paired_study import begin_study

    dataset = DatasetConfig()
    if study_file:
        dataset = read_study(study_file).dataset
    dataset = replace(dataset, filters=study.dataset.filters)
    begin_study(replace(study, dataset=dataset), run.paths)


def _measure_participants(study: StudyConfig, run: Run) -> int:
    from cingulum.io.cohort import ordered_visits
    from cingulum.pipeline.paired_study import measure_study
    from cingulum.pipeline.participant_pages import write_pages
    from cingulum.report.manifest import read_manifest

    paths = run.paths
    measured = measure_study(study, run)
    # A page that belongs to a report shows predictions, which are not known here.
    reported = read_manifest(paths.out)
    unreported = []
    for visit in ordered_visits(paths.bids, measured.visits):
        if f"sub-{visit.participant}.html" not in reported:
            unreported.append(visit)
    write_pages(unreported, measured.features, measured.failures, run)
    print(f"Measured {len(measured.visits)} visits in {paths.out.resolve()}")
    if len(unreported) < len(measured.visits):
        print(
            "Pages that belong to report.html stay as they are; the level group writes "
            "both anew."
        )
    return _exit_code(
        len(measured.failures), "measurement(s) failed", paths.out / "failures.tsv"
    )


def _predict_group(study: StudyConfig, run: Run) -> int:
    from cingulum.pipeline.paired_study import run_paired_study

    summary = run_paired_study(study, run)
    _print_report(summary["lead"], run)
    return _exit_code(
        len(summary["left_out"]) + len(summary["lacking"]),
        "participant(s) left out, or judged without a modality",
        run.paths.out / "summary.json",
    )


def _fit_participants(study: StudyConfig, run: Run) -> int:
    from cingulum.pipeline.model_study import fit_visits

    paths = run.paths
    visits, failures, _ = fit_visits(study, run)
    print(f"Fitted {len(visits) - len(failures)} visits in {paths.out.resolve()}")
    return _exit_code(len(failures), "fit(s) failed", paths.out / "failures.tsv")


def _compare_models(study: StudyConfig, run: Run) -> int:
    from cingulum.pipeline.model_study import run_model_study

    summary = run_model_study(study, run)
    _print_report(summary["lead"], run)
    return _exit_code(
        len(summary["left_out"]), "visit(s) left out", run.paths.out / "failures.tsv"
    )


LEVELS = {
    ("prediction", "participant"): _measure_participants,
    ("prediction", "group"): _predict_group,
    ("model", "participant"): _fit_participants,
    ("model", "group"): _compare_models,
}
"""What a level does, by the analysis of the study."""


def _print_report(lead: str, run: Run) -> None:
    print(f"\n{lead}\n\nReport: {(run.paths.out / 'report.html').resolve()}")


def _exit_code(count: int, what: str, file: Path) -> int:
    """3 where something is missing from the results, and the file that says why."""
    if not count:
        return 0
    # Not an error: the results of the others are there, and complete.
    print(f"{count} {what}; {file} says why.", file=sys.stderr)
    return 3
