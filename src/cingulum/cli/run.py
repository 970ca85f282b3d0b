"""cingulum run: a BIDS App. Every option of a study is an option here; the study file
says the same at length."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
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
    Option,
    StudyConfig,
    Values,
    options,
    read_study,
    with_atlas,
    with_connectome,
    with_options,
)

if TYPE_CHECKING:
    from cingulum.io.visit import Visit
    from cingulum.pipeline.paths import StudyRun

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
sub-<label>_sessions.tsv (columns session_id, pain; 0 to 100), or another --outcome
there, in phenotype/ or in participants.tsv; "model" needs BOLD."""

PAGES_KEPT = (
    "Pages that belong to report.html stay as they are; the level group writes both "
    "anew."
)

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
    # A study of many settings is easier to keep, cite and share as a file.
    Argument(
        "--study",
        type=Path,
        metavar="TOML",
        help="study file (examples/studies has three)",
    ),
    # Fits of many participants can take hours.
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
    """Options of the study file, section by section."""
    group = parser.add_argument_group("settings of the study")
    add_arguments(group, _study_arguments("", StudyConfig))
    for section, config_class in SECTIONS.items():
        # BIDS Apps call the options of the dataset --participant-label and the like.
        if section == "dataset":
            continue
        group = parser.add_argument_group(f"settings of the study: [{section}]")
        add_arguments(group, _study_arguments(f"{section}.", config_class))


def _study_arguments(prefix: str, config_class: type) -> Iterator[Argument]:
    """The options of a section; their values are kept under dotted names."""
    for option in options(config_class):
        name = prefix + option.name
        # --seed is the seed of both analyses.
        if name != "model.seed":
            yield _study_argument(name, option)


def _study_argument(dotted_name: str, option: Option) -> Argument:
    flag = "--" + option.name.replace("_", "-")
    argument = Argument(flag, dest=dotted_name, help=option.help)
    # An option that is not typed leaves no trace: the study file's value stands.
    argument.settings["default"] = argparse.SUPPRESS
    if option.item_type is bool:
        argument.settings["action"] = argparse.BooleanOptionalAction
    elif option.is_list:
        argument.settings |= {"nargs": "*", "metavar": "NAME"}
        if option.item_type is not str:
            metavar = METAVARS[option.item_type]
            argument.settings |= {"type": option.item_type, "metavar": metavar}
    else:
        argument.settings |= {"type": _reader(option), "metavar": _metavar(option)}
    return argument


def _reader(option: Option) -> Callable[[str], Any]:
    if option.may_be_none:
        return _or_none(option.item_type)
    return option.item_type


def _metavar(option: Option) -> str:
    metavar = METAVARS[option.item_type]
    return f"{metavar}|none" if option.may_be_none else metavar


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
    study = _study_of(arguments.study)
    study = with_options(study, _study_options(arguments))
    study = with_options(study, _dataset_options(arguments))
    # Workers of a cluster may be in another folder.
    if Path(study.features.atlas).is_file():
        study = with_atlas(study, str(Path(study.features.atlas).absolute()))
    if not study.features.connectome:
        return study
    return with_connectome(study, Path(study.features.connectome).absolute())


def _study_of(file: Path | None) -> StudyConfig:
    """The study that a file declares, or the defaults where there is none."""
    return read_study(file) if file else StudyConfig()


def _study_options(arguments: argparse.Namespace) -> Values:
    """Options of the study that were typed, by dotted names."""
    typed = {}
    for name, value in vars(arguments).items():
        # The folders, --dry-run and the like are no part of the study.
        if _is_study_option(name):
            typed[name] = _list_or_value(value)
    # The option --seed is declared once, by the prediction.
    if "prediction.seed" in typed:
        typed["model.seed"] = typed["prediction.seed"]
    return typed


def _list_or_value(value: Any) -> Any:
    # A list is taken back by `none`, or by no word at all.
    return [] if value == ["none"] else value


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
    # Before the heavy imports, so that the error for a mistyped option comes at once.
    study = chosen_study(arguments)
    run = _chosen_run(arguments)
    if arguments.dry_run:
        return _print_plan(study, run, arguments.level)
    if not arguments.resume:
        _forget(study, run)
    if arguments.level == "participant":
        _begin(study, run, arguments.study)
    level = LEVELS[study.analysis, arguments.level]
    return level(study, run)


def _chosen_run(arguments: argparse.Namespace) -> StudyRun:
    """The folders and workers that the options ask for."""
    from cingulum.pipeline.paths import RunPaths, StudyRun

    paths = RunPaths.of(
        arguments.bids_dir,
        arguments.out_dir,
        arguments.derivatives,
        arguments.work_dir,
    )
    return StudyRun(paths, chosen_executor(arguments), show_progress=True)


def _print_plan(study: StudyConfig, run: StudyRun, level: str) -> int:
    from cingulum.pipeline.plan import describe_plan

    print(describe_plan(study, run, level))
    return 0


def _forget(study: StudyConfig, run: StudyRun) -> None:
    """Remove what earlier runs kept of this study."""
    from cingulum.pipeline.paired_study import forget_study

    forget_study(study, run.paths)


def _begin(study: StudyConfig, run: StudyRun, study_file: Path | None) -> None:
    """Write the study that the output belongs to."""
    from cingulum.pipeline.paired_study import begin_study

    # This may be one of many jobs with a participant each, whose labels are no part of
    # the study.
    dataset = replace(_study_of(study_file).dataset, filters=study.dataset.filters)
    begin_study(replace(study, dataset=dataset), run.paths)


def _measure_participants(study: StudyConfig, run: StudyRun) -> int:
    from cingulum.pipeline.paired_study import measure_study
    from cingulum.pipeline.participant_pages import write_pages

    measured = measure_study(study, run)
    unreported = _unreported_visits(measured.visits, run)
    write_pages(unreported, measured.plan, measured.failures, run)
    print(f"Measured {len(measured.visits)} visits in {run.paths.out.resolve()}")
    if len(unreported) < len(measured.visits):
        print(PAGES_KEPT)
    return _exit_code(
        len(measured.failures), "measurement(s) failed", run.paths.out / "failures.tsv"
    )


def _unreported_visits(visits: Sequence[Visit], run: StudyRun) -> list[Visit]:
    """Visits in order, of participants without a page that belongs to a report."""
    from cingulum.io.cohort import ordered_visits
    from cingulum.report.manifest import read_manifest

    # Such a page shows predictions, which are not known when visits are measured.
    pages = read_manifest(run.paths.out)
    return [
        visit
        for visit in ordered_visits(run.paths.bids, visits)
        if f"sub-{visit.participant}.html" not in pages
    ]


def _predict_group(study: StudyConfig, run: StudyRun) -> int:
    from cingulum.pipeline.paired_study import run_paired_study

    summary = run_paired_study(study, run)
    _print_report(summary["lead"], run)
    return _exit_code(
        len(summary["left_out"]) + len(summary["lacking"]),
        "participant(s) left out, or judged without a modality",
        run.paths.out / "summary.json",
    )


def _fit_participants(study: StudyConfig, run: StudyRun) -> int:
    from cingulum.pipeline.model_study import fit_visits

    paths = run.paths
    visits, failures, _ = fit_visits(study, run)
    print(f"Fitted {len(visits) - len(failures)} visits in {paths.out.resolve()}")
    return _exit_code(len(failures), "fit(s) failed", paths.out / "failures.tsv")


def _compare_models(study: StudyConfig, run: StudyRun) -> int:
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


def _print_report(lead: str, run: StudyRun) -> None:
    print(f"\n{lead}\n\nReport: {(run.paths.out / 'report.html').resolve()}")


def _exit_code(count: int, what: str, file: Path) -> int:
    """3 where something is missing from the results, and the file that says why."""
    if not count:
        return 0
    # Not an error: the results of the others are there, and complete.
    print(f"{count} {what}; {file} says why.", file=sys.stderr)
    return 3
