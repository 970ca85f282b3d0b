"""cingulum run: a BIDS App. Every setting of a study is an option; the study file says
the same at length."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from cingulum.cli.options import (
    Commands,
    command,
    dataset_options,
    executor,
    executor_options,
)
from cingulum.pipeline.config import (
    PARTS,
    DatasetConfig,
    StudyConfig,
    changed,
    read_study,
    setting_words,
)

TEXT = """\
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


def add(commands: Commands) -> None:
    made = command(
        commands,
        "run",
        "analyse a BIDS dataset (BIDS App)",
        TEXT,
        "cingulum run dataset results participant --n-jobs 4\n"
        "  cingulum run dataset results group --study study.toml --modalities rcbf "
        "hfhrv",
    )
    made.add_argument(
        "bids_dir",
        type=Path,
        metavar="BIDS_DIR",
        help="dataset, with derivatives/ in it",
    )
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go")
    made.add_argument(
        "level", choices=["participant", "group"], help="which part to run"
    )
    dataset_options(made)
    executor_options(made)
    made.add_argument(
        "--study",
        type=Path,
        metavar="TOML",
        help="study file (examples/studies has three)",
    )
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="say what would be done, how much is done already and "
        "how long the rest will take; write nothing",
    )
    made.add_argument(
        "--resume",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="use what is in OUT_DIR "
        "and the work folder again; --no-resume measures and fits everything anew",
    )
    _settings(made)
    made.set_defaults(run=run)


def _settings(made: argparse.ArgumentParser) -> None:
    """Every setting of a study as an option, except those that the options of datasets
    say."""
    for part, kind in {
        "": StudyConfig,
        **{p: k for p, k in PARTS.items() if p != "dataset"},
    }.items():
        group = made.add_argument_group(
            f"settings of the study: [{part}]" if part else "settings of the study"
        )
        hints = get_type_hints(kind)
        for one in fields(kind):
            if one.name not in PARTS and not (part == "model" and one.name == "seed"):
                _option(group, f"{part}.{one.name}".lstrip("."), one, hints[one.name])


def _option(group: Any, name: str, one: Any, hint: Any) -> None:
    flag, told = "--" + one.name.replace("_", "-"), setting_words(one)
    plain = next((t for t in (bool, int, float) if hint in (t, t | None)), str)
    how: dict[str, Any] = {"dest": name, "default": argparse.SUPPRESS, "help": told}
    if plain is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **how)
    elif str(hint).startswith("tuple"):
        group.add_argument(flag, nargs="*", metavar="NAME", **how)
    else:
        metavar, optional = (
            {int: "N", float: "X", str: "TEXT"}[plain],
            hint == plain | None,
        )
        how["metavar"] = f"{metavar}|none" if optional else metavar
        group.add_argument(flag, type=_or_none(plain) if optional else plain, **how)


def _or_none(plain: type) -> Callable[[str], Any]:
    """A setting that may be absent: `none` takes back what the study file says."""

    def read(text: str) -> Any:
        return None if text == "none" else plain(text)

    read.__name__ = f"{plain.__name__} or none"  # argparse names it in its errors
    return read


def study_of(given: argparse.Namespace) -> StudyConfig:
    """The study of a command line: its file, and the options that win over it."""
    study = read_study(given.study) if given.study else StudyConfig()
    options = {
        name: _listed(value) for name, value in vars(given).items() if _is_setting(name)
    }
    if "prediction.seed" in options:
        options["model.seed"] = options["prediction.seed"]
    if given.participant_label:
        options["dataset.participants"] = given.participant_label
    if given.session_label:
        options["dataset.sessions"] = given.session_label
    if given.bids_filter_file:
        from cingulum.io.visit import read_filters

        options["dataset.filters"] = read_filters(given.bids_filter_file)
    study = changed(study, options)
    if study.features.connectome:  # workers of a cluster may stand in another folder
        connectome = str(Path(study.features.connectome).absolute())
        study = replace(study, features=replace(study.features, connectome=connectome))
    return study


def _listed(value: Any) -> Any:
    """A list that is taken back: no word, or `none`."""
    return [] if value == ["none"] else value


def _is_setting(name: str) -> bool:
    return (
        name.partition(".")[0] in PARTS
        if "." in name
        else name in {"title", "analysis"}
    )


def run(given: argparse.Namespace) -> int:
    study = study_of(given)
    from cingulum.pipeline import paired_study, plan

    place = paired_study.RunPaths(
        given.bids_dir,
        given.out_dir,
        tuple(given.derivatives),
        given.work_dir,
        executor(given),
        show_progress=True,
    )
    if given.dry_run:
        print(plan.told(study, place, given.level))
        return 0
    if not given.resume:
        paired_study.forget(study, place)
    if study.analysis == "model":
        return _model(study, place, given)
    if given.level == "participant":
        return _participant(study, place, given)
    summary = paired_study.group(study, place)
    print(f"\n{summary['lead']}\n\nReport: {(given.out_dir / 'report.html').resolve()}")
    gaps = len(summary["left_out"]) + len(summary["lacking"])
    return _failures(
        gaps,
        "participant(s) left out, or judged without a modality",
        place.out / "summary.json",
    )


def _participant(study: StudyConfig, place: Any, given: argparse.Namespace) -> int:
    """One of many jobs, perhaps, with a participant each: their labels are no part of
    the study that is written."""
    from cingulum.io.cohort import ordered_visits
    from cingulum.pipeline import paired_study
    from cingulum.pipeline.participant_pages import write_pages
    from cingulum.report.manifest import read_manifest

    everybody = read_study(given.study).dataset if given.study else DatasetConfig()
    paired_study.begin(
        replace(study, dataset=replace(everybody, filters=study.dataset.filters)), place
    )
    taken = paired_study.take(study, place)
    stand = read_manifest(place.out)
    fresh = [
        visit
        for visit in ordered_visits(place.bids, taken.visits)
        if f"sub-{visit.participant}.html" not in stand
    ]
    write_pages(
        fresh,
        taken.wanted,
        taken.failures,
        place.out,
        place.keep,
        executor=place.executor,
        show_progress=True,
    )
    print(f"Measured {len(taken.visits)} visits in {place.out.resolve()}")
    if len(fresh) < len(taken.visits):
        print(
            "Pages that belong to report.html stay as they are; the level group writes "
            "both anew."
        )
    return _failures(
        len(taken.failures), "measurement(s) failed", place.out / "failures.tsv"
    )


def _model(study: StudyConfig, place: Any, given: argparse.Namespace) -> int:
    from cingulum.pipeline import model_study, paired_study

    if given.level == "participant":
        everybody = read_study(given.study).dataset if given.study else DatasetConfig()
        paired_study.begin(
            replace(study, dataset=replace(everybody, filters=study.dataset.filters)),
            place,
        )
        seen, failures, _ = model_study.fit_visits(study, place)
        print(f"Fitted {len(seen) - len(failures)} visits in {place.out.resolve()}")
        return _failures(len(failures), "fit(s) failed", place.out / "failures.tsv")
    summary = model_study.group(study, place)
    print(f"\n{summary['lead']}\n\nReport: {(given.out_dir / 'report.html').resolve()}")
    return _failures(
        len(summary["left_out"]), "visit(s) left out", place.out / "failures.tsv"
    )


def _failures(count: int, what: str, where: Path) -> int:
    if not count:
        return 0
    import sys

    print(f"{count} {what}; {where} says why.", file=sys.stderr)
    return 3
