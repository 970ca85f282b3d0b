"""cingulum features: one table, a row a visit."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cingulum.cli.options import (
    DATASET_ARGUMENTS,
    EXECUTOR_ARGUMENTS,
    Argument,
    add_arguments,
    chosen_executor,
    chosen_filters,
    describe,
)
from cingulum.errors import InputError
from cingulum.features import (
    FEATURES,
    Feature,
    FeatureOption,
    FeatureOptions,
    build_features,
)
from cingulum.signals.atlas_names import ATLASES

if TYPE_CHECKING:
    from cingulum.io.files import JsonObject
    from cingulum.pipeline.feature_export import ExportedFeatures
    from cingulum.pipeline.measurement import Failure
    from cingulum.pipeline.measurement_cache import MeasurementPlan

DESCRIPTION = """\
Read fMRIPrep and ASLPrep derivatives, raw ASL and physiology, check them, and write
features.tsv (a row a visit), features.json (every column described), failures.tsv
(what could not be measured, and why) and voxelwise maps. A failed visit does not stop
the others; the same command goes on after an interruption.

features:
"""

HELP_WIDTH = 88

LABEL_COLUMNS = 4
"""Columns of features.tsv that name the visit and are no features."""


MAIN_ARGUMENTS = (
    Argument(
        "bids_dir", type=Path, metavar="BIDS_DIR", help="dataset, raw or derivative"
    ),
    Argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go"),
    Argument(
        "--features",
        nargs="+",
        metavar="NAME",
        help="default: every one that some visit has recordings for",
    ),
    Argument(
        "--atlas",
        default="pain52",
        help=f"{', '.join(ATLASES)}, a NIfTI image with its .tsv beside it, or the "
        "label (seg-, atlas-) of tables that XCP-D and ASLPrep wrote into the dataset "
        "(default: %(default)s)",
    ),
)

EXAMPLE = (
    "cingulum features dataset results --features s1conn hrv cbf "
    "--strategy compcor --scrub 0.5"
)


DENOISING_ARGUMENTS = (
    Argument(
        "--runs",
        default="joined",
        choices=("joined", "fisher"),
        help="how several runs of a visit become one: joined, each standardised by "
        "itself, or mean Fisher z weighted by kept volumes (default: %(default)s)",
    ),
    Argument(
        "--strategy",
        default="basic",
        help="regressed out of BOLD: basic, friston24, compcor, gsr, "
        "scrubbing, aroma, none (default: %(default)s)",
    ),
    Argument(
        "--scrub",
        type=float,
        metavar="MM",
        help="leave out volumes above this displacement",
    ),
    Argument(
        "--low-pass", type=float, metavar="HZ", help="Butterworth low-pass of BOLD"
    ),
    # Both together would take slow drifts out twice.
    Argument(
        "--high-pass",
        type=float,
        metavar="HZ",
        help="Butterworth high-pass, instead of slow cosines",
    ),
)

MODEL_ARGUMENTS = (
    # Sidecars of raw ASL often lack these two constants.
    Argument(
        "--t1-blood",
        type=float,
        metavar="S",
        help="for raw ASL (default: by field strength)",
    ),
    Argument(
        "--labeling-efficiency",
        type=float,
        metavar="A",
        help="for raw ASL (default: sidecar, or by type)",
    ),
    Argument(
        "--connectome",
        type=Path,
        metavar="FILE",
        help="group connection weights in the order of the "
        "atlas, for visits without their own (default: a distance rule)",
    ),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    describe(parser, DESCRIPTION + _feature_list(), EXAMPLE)
    add_arguments(parser, (*MAIN_ARGUMENTS, *DENOISING_ARGUMENTS))
    add_arguments(parser, _feature_arguments())
    add_arguments(parser, MODEL_ARGUMENTS)
    add_arguments(parser, (*DATASET_ARGUMENTS, *EXECUTOR_ARGUMENTS))
    parser.set_defaults(execute=execute)


def _feature_list() -> str:
    """Every feature with its summary, for the help."""
    width = max(map(len, FEATURES))
    return "\n".join(
        _list_entry(name, feature.summary, width) for name, feature in FEATURES.items()
    )


def _list_entry(name: str, summary: str, width: int) -> str:
    return textwrap.fill(
        summary,
        HELP_WIDTH,
        initial_indent=f"  {name:{width}}  ",
        subsequent_indent=" " * (width + 4),
    )


def _feature_options() -> Iterator[FeatureOption]:
    """Every option that a feature declares, in the order of the features."""
    for feature in FEATURES.values():
        yield from feature.options


def _feature_arguments() -> list[Argument]:
    return [_feature_argument(option) for option in _feature_options()]


def _feature_argument(option: FeatureOption) -> Argument:
    flag = "--" + option.name.replace("_", "-")
    argument = Argument(
        flag,
        type=option.parse,
        default=option.default,
        choices=option.choices,
        metavar=option.metavar,
        help=_help_text(option),
    )
    # argparse takes no action=None, so that it cannot be passed for the others.
    if option.values > 1:
        argument.settings["nargs"] = option.values
    if option.repeatable:
        argument.settings["action"] = "append"
    return argument


def _help_text(option: FeatureOption) -> str:
    if option.default is None:
        return option.help
    return f"{option.help} (default: %(default)s)".strip()


def _feature_values(arguments: argparse.Namespace) -> JsonObject:
    """What was typed for the options that features declare."""
    return {
        option.name: getattr(arguments, option.name) for option in _feature_options()
    }


def execute(arguments: argparse.Namespace) -> int:
    from cingulum.pipeline.feature_export import write_features

    result = write_features(
        arguments.bids_dir,
        arguments.out_dir,
        _plan(arguments),
        participants=arguments.participant_label,
        sessions=arguments.session_label,
        filters=chosen_filters(arguments),
        derivatives=arguments.derivatives,
        # A feature that was named and has no recordings is a failure.
        skip_absent=arguments.features is None,
        executor=chosen_executor(arguments),
        work=arguments.work_dir,
        show_progress=True,
    )
    _print_result(result, arguments.out_dir.resolve())
    return 3 if result.failures else 0


def _plan(arguments: argparse.Namespace) -> MeasurementPlan:
    """What is measured, and how."""
    from cingulum.features.run_combination import RunCombination
    from cingulum.pipeline.measurement_cache import MeasurementPlan
    from cingulum.signals.asl import Constants
    from cingulum.signals.bold import Denoising

    options = _chosen_options(arguments)
    denoising = Denoising(
        arguments.strategy, arguments.scrub, arguments.low_pass, arguments.high_pass
    )
    constants = Constants(t1b=arguments.t1_blood, alpha=arguments.labeling_efficiency)
    features = _features(arguments.features, options)
    runs = RunCombination(arguments.runs)
    return MeasurementPlan(features, denoising, constants, runs)


def _features(
    names: Sequence[str] | None, options: FeatureOptions
) -> Mapping[str, Feature]:
    """The features that were named, or all that can be made with these options."""
    if names:
        return build_features(names, options)
    features: dict[str, Feature] = {}
    for name in FEATURES:
        try:
            features |= build_features([name], options)
        # Brains cannot be connected, for example, where it is not known where their
        # regions are.
        except InputError as error:
            print(f"Skipped {name}: {error}")
    return features


def _chosen_options(arguments: argparse.Namespace) -> FeatureOptions:
    from cingulum.pipeline.dataset_atlas import atlas_of_dataset
    from cingulum.pipeline.single_recording import read_atlas_connectome

    atlas = atlas_of_dataset(arguments.atlas, arguments.bids_dir, arguments.derivatives)
    connectome = None
    if arguments.connectome:
        connectome = read_atlas_connectome(arguments.connectome, atlas.regions)
    return FeatureOptions(atlas, connectome, _feature_values(arguments))


def _print_result(result: ExportedFeatures, out: Path) -> None:
    columns = result.table.shape[1] - LABEL_COLUMNS
    print(f"{len(result.table)} visits, {columns} columns: {out / 'features.tsv'}")
    if result.skipped:
        skipped = ", ".join(result.skipped)
        print(f"Skipped, since no visit has the recordings: {skipped}")
    _print_failures(result.failures, out / "failures.tsv")


def _print_failures(failures: Sequence[Failure], table: Path) -> None:
    if not failures:
        return
    # The table has them all; most often they have one reason.
    print(
        f"{len(failures)} measurement(s) failed: {table}\n"
        f"The first: {failures[0].reason}",
        file=sys.stderr,
    )
