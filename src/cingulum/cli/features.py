"""cingulum features: one table, a row a visit."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from cingulum.cli.options import (
    Commands,
    add_command,
    add_dataset_options,
    add_executor_options,
    chosen_executor,
    chosen_filters,
)
from cingulum.errors import InputError

if TYPE_CHECKING:
    from cingulum.features import FeatureOptions
    from cingulum.pipeline.feature_table import FeatureTable
    from cingulum.pipeline.measurement import MeasurementPlan

DESCRIPTION = """\
Read fMRIPrep and ASLPrep derivatives, raw ASL and physiology, check them, and write
features.tsv (a row a visit), features.json (every column described), failures.tsv
(what could not be measured, and why) and voxelwise maps. A failed visit does not stop
the others; the same command goes on after an interruption.

features:
  s1conn      map: connectivity of the back area of S1 with every voxel
  rcbf        map: blood flow relative to the whole brain
  cbf         blood flow: whole brain, grey matter, regions (ml/100 g/min)
  cbfmap, att maps from raw ASL: absolute blood flow; arrival time, from several delays
  hfhrv, hrv  log HF power; rate, SDNN, RMSSD, HF, LF (ms²), share of corrected beats,
              breathing
  fc, fcd     connectivity between regions, and how it changes within the run
  mechanism   fitted brain model: coupling, excitation and noise by region
  physiology  fitted brain model: global coupling and noise, with standard deviations
  motion, quality   head motion; volumes kept, signal to noise, coverage"""

MAX_SEED_RADIUS = 50
"""mm: no area of the cortex is larger, so that a larger number is a mistake."""

LABEL_COLUMNS = 4
"""Columns of features.tsv that name the visit and are no features."""


def add_parser(commands: Commands) -> None:
    parser = add_command(
        commands,
        "features",
        summary="measure every visit of a BIDS dataset: one table of features",
        description=DESCRIPTION,
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
    _add_seed_options(parser)
    _add_measure_options(parser)
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


def _add_seed_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--seed",
        nargs=3,
        type=float,
        action="append",
        metavar=("X", "Y", "Z"),
        help="centre of the seed of s1conn, MNI mm; may be repeated (default: the back "
        "area of S1, both sides)",
    )
    parser.add_argument(
        "--seed-radius",
        type=float,
        default=4.0,
        metavar="MM",
        help="default: %(default)s",
    )
    parser.add_argument(
        "--seed-mask",
        type=Path,
        metavar="FILE",
        help="NIfTI mask as seed, on the grid of the BOLD runs",
    )
    parser.add_argument(
        "--seed-label",
        metavar="NAME",
        help="of the seed, for file names: letters and digits",
    )
    parser.add_argument(
        "--seed-kind",
        default="effect",
        choices=["effect", "correlation", "fisherz"],
        help="statistic of the seed map (default: %(default)s)",
    )


def _add_measure_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--fc-kind",
        default="correlation",
        choices=["correlation", "partial", "covariance"],
        help="kind of connectivity between regions (default: %(default)s)",
    )
    parser.add_argument(
        "--spectrum",
        default="welch",
        choices=["welch", "lomb", "ar"],
        help="spectrum of the beat intervals (default: %(default)s)",
    )
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
    from cingulum.pipeline import write_features

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
    from cingulum.features import FEATURES
    from cingulum.pipeline import MeasurementPlan, features
    from cingulum.signals.asl import Constants
    from cingulum.signals.bold import Denoising

    names = arguments.features or list(FEATURES)
    chosen = features(names, _feature_options(arguments))
    denoising = Denoising(
        arguments.strategy, arguments.scrub, arguments.low_pass, arguments.high_pass
    )
    constants = Constants(t1b=arguments.t1_blood, alpha=arguments.labeling_efficiency)
    return MeasurementPlan(chosen, denoising, constants)


def _feature_options(arguments: argparse.Namespace) -> FeatureOptions:
    from cingulum.features import FeatureOptions
    from cingulum.pipeline.single_recording import read_atlas_connectome
    from cingulum.signals.atlas import named_atlas

    atlas = named_atlas(arguments.atlas)
    # A visit's own connectome comes first; this one is for the visits without.
    connectome = None
    if arguments.connectome:
        connectome = read_atlas_connectome(arguments.connectome, atlas.regions)
    return FeatureOptions(
        atlas, connectome, arguments.spectrum, arguments.fc_kind, _seed(arguments)
    )


def _seed(arguments: argparse.Namespace) -> dict[str, object]:
    """Keywords of the seed of s1conn."""
    label = _seed_label(arguments)
    radius = arguments.seed_radius
    if not 0 < radius <= MAX_SEED_RADIUS:
        raise InputError(
            f"--seed-radius is a length in mm, above 0 to {MAX_SEED_RADIUS}; came "
            f"{radius}."
        )
    # Centres and mask are left out where they are not given: their default is S1.
    seed = {"radius": radius, "kind": arguments.seed_kind, "label": label}
    if arguments.seed:
        seed["centres"] = arguments.seed
    if arguments.seed_mask:
        seed["mask"] = arguments.seed_mask
    return seed


def _seed_label(arguments: argparse.Namespace) -> str:
    """The seed's name in file names: a map of another seed must not pass for S1."""
    is_own = arguments.seed or arguments.seed_mask
    default = "seed" if is_own else "S1back"
    label = arguments.seed_label or default
    # BIDS allows nothing else in the value of an entity.
    if not label.isalnum():
        raise InputError(f"--seed-label takes letters and digits; came {label!r}.")
    return label


def _print_result(result: FeatureTable, out: Path) -> None:
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
