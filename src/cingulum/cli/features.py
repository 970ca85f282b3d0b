"""cingulum features: one table, a row a visit."""

from __future__ import annotations

import argparse
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cingulum.cli.options import (
    Commands,
    add_command,
    add_dataset_options,
    add_executor_options,
    chosen_executor,
    chosen_filters,
)
from cingulum.features import FEATURES, FeatureOptions, build_features

if TYPE_CHECKING:
    from cingulum.pipeline.feature_export import ExportedFeatures
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


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "features",
        summary="measure every visit of a BIDS dataset: one table of features",
        description=DESCRIPTION + _feature_list(),
        example="cingulum features dataset results --features s1conn hrv cbf "
        "--strategy compcor --scrub 0.5",
    )
    parser.add_argument(
        "bids_dir", type=Path, metavar="BIDS_DIR", help="dataset, raw or derivative"
    )
    parser.add_argument(
        "out_dir", type=Path, metavar="OUT_DIR", help="where results go"
    )
    parser.add_argument(
        "--features",
        nargs="+",
        metavar="NAME",
        help="default: every one that some visit has recordings for",
    )
    parser.add_argument(
        "--atlas",
        default="pain52",
        help="pain52, power264, dosenbach160, seitzman300, or a NIfTI image "
        "with its .tsv beside it (default: %(default)s)",
    )
    _add_denoising_options(parser)
    _add_feature_options(parser)
    _add_shared_options(parser)
    add_dataset_options(parser)
    add_executor_options(parser)
    parser.set_defaults(execute=execute)


def _add_denoising_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--strategy",
        default="basic",
        help="regressed out of BOLD: basic, friston24, compcor, gsr, "
        "scrubbing, aroma, none (default: %(default)s)",
    )
    parser.add_argument(
        "--scrub",
        type=float,
        metavar="MM",
        help="leave out volumes above this displacement",
    )
    parser.add_argument(
        "--low-pass", type=float, metavar="HZ", help="Butterworth low-pass of BOLD"
    )
    parser.add_argument(
        "--high-pass",
        type=float,
        metavar="HZ",
        help="Butterworth high-pass, instead of slow cosines",
    )


def _feature_list() -> str:
    """Every feature with its summary, for the help."""
    width = max(map(len, FEATURES))
    lines = []
    for name, feature in FEATURES.items():
        lines += textwrap.wrap(
            feature.summary,
            HELP_WIDTH,
            initial_indent=f"  {name:{width}}  ",
            subsequent_indent=" " * (width + 4),
        )
    return "\n".join(lines)


def _add_feature_options(parser: argparse.ArgumentParser) -> None:
    """The options that features declare."""
    for feature in FEATURES.values():
        for option in feature.options:
            flag = "--" + option.name.replace("_", "-")
            text = option.help
            if option.default is not None:
                text = f"{text} (default: %(default)s)".strip()
            keywords: dict[str, Any] = {
                "type": option.parse,
                "default": option.default,
                "choices": option.choices,
                "metavar": option.metavar,
                "help": text,
            }
            if option.values > 1:
                keywords |= {"nargs": option.values, "action": "append"}
            parser.add_argument(flag, **keywords)


def _feature_values(arguments: argparse.Namespace) -> dict[str, Any]:
    """What was typed for the options that features declare."""
    values = {}
    for feature in FEATURES.values():
        for option in feature.options:
            values[option.name] = getattr(arguments, option.name)
    return values


def _add_shared_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--t1-blood",
        type=float,
        metavar="S",
        help="for raw ASL (default: by field strength)",
    )
    parser.add_argument(
        "--labeling-efficiency",
        type=float,
        metavar="A",
        help="for raw ASL (default: sidecar, or by type)",
    )
    parser.add_argument(
        "--connectome",
        type=Path,
        metavar="FILE",
        help="group connection weights in the order of the "
        "atlas, for visits without their own (default: a distance rule)",
    )


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
        # A feature that was asked for by name and has no recordings is a failure.
        skip_absent=arguments.features is None,
        executor=chosen_executor(arguments),
        work=arguments.work_dir,
        show_progress=True,
    )
    _print_result(result, arguments.out_dir.resolve())
    return 3 if result.failures else 0


def _plan(arguments: argparse.Namespace) -> MeasurementPlan:
    """What is measured, and how."""
    from cingulum.pipeline.measurement_cache import MeasurementPlan
    from cingulum.pipeline.single_recording import read_atlas_connectome
    from cingulum.signals.asl import Constants
    from cingulum.signals.atlas import named_atlas
    from cingulum.signals.bold import Denoising

    atlas = named_atlas(arguments.atlas)
    connectome = None
    if arguments.connectome:
        connectome = read_atlas_connectome(arguments.connectome, atlas.regions)
    options = FeatureOptions(atlas, connectome, _feature_values(arguments))
    denoising = Denoising(
        arguments.strategy, arguments.scrub, arguments.low_pass, arguments.high_pass
    )
    constants = Constants(t1b=arguments.t1_blood, alpha=arguments.labeling_efficiency)
    names = arguments.features or list(FEATURES)
    return MeasurementPlan(build_features(names, options), denoising, constants)


def _print_result(result: ExportedFeatures, out: Path) -> None:
    columns = result.table.shape[1] - LABEL_COLUMNS
    print(f"{len(result.table)} visits, {columns} columns: {out / 'features.tsv'}")
    if result.skipped:
        skipped = ", ".join(result.skipped)
        print(f"Skipped, since no visit has the recordings: {skipped}")
    if result.failures:
        print(
            f"{len(result.failures)} measurement(s) failed: {out / 'failures.tsv'}\n"
            f"The first: {result.failures[0].reason}",
            file=sys.stderr,
        )
