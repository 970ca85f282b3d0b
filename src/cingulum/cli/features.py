"""cingulum features: one table, a row a visit."""

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
from cingulum.errors import InputError


def add(commands: Commands) -> None:
    made = command(
        commands,
        "features",
        "measure every visit of a BIDS dataset: one table of features",
        "Read fMRIPrep and ASLPrep derivatives, raw ASL and physiology, check them, "
        "and write features.tsv (a row a\n"
        "visit), features.json (every column described), failures.tsv (what could not "
        "be measured, and why) and\n"
        "voxelwise maps. A failed visit does not stop the others; the same command "
        "goes on after an interruption.\n\n"
        "features:\n"
        "  s1conn      map: connectivity of the back area of S1 with every voxel\n"
        "  rcbf        map: blood flow relative to the whole brain\n"
        "  cbf         blood flow: whole brain, grey matter, regions (ml/100 g/min)\n"
        "  cbfmap, att maps from raw ASL: absolute blood flow; arrival time, from "
        "several delays\n"
        "  hfhrv, hrv  log HF power; rate, SDNN, RMSSD, HF, LF (ms²), share of "
        "corrected beats, breathing\n"
        "  fc, fcd     connectivity between regions, and how it changes within the "
        "run\n"
        "  mechanism   fitted brain model: coupling, excitation and noise by region\n"
        "  physiology  fitted brain model: global coupling and noise, with standard "
        "deviations\n"
        "  motion, quality   head motion; volumes kept, signal to noise, coverage",
        "cingulum features dataset results --features s1conn hrv cbf --strategy "
        "compcor --scrub 0.5",
    )
    made.add_argument(
        "bids_dir", type=Path, metavar="BIDS_DIR", help="dataset, raw or derivative"
    )
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go")
    made.add_argument(
        "--features",
        nargs="+",
        metavar="NAME",
        help="default: every one that some visit has recordings for",
    )
    made.add_argument(
        "--atlas",
        default="pain52",
        help="pain52, power264, dosenbach160, seitzman300, or a NIfTI image "
        "with its .tsv beside it (default: %(default)s)",
    )
    made.add_argument(
        "--strategy",
        default="basic",
        help="regressed out of BOLD: basic, friston24, compcor, gsr, "
        "scrubbing, aroma, none (default: %(default)s)",
    )
    made.add_argument(
        "--scrub",
        type=float,
        metavar="MM",
        help="leave out volumes above this displacement",
    )
    made.add_argument(
        "--low-pass", type=float, metavar="HZ", help="Butterworth low-pass of BOLD"
    )
    made.add_argument(
        "--high-pass",
        type=float,
        metavar="HZ",
        help="Butterworth high-pass, instead of slow cosines",
    )
    made.add_argument(
        "--seed",
        nargs=3,
        type=float,
        action="append",
        metavar=("X", "Y", "Z"),
        help="centre of the "
        "seed of s1conn, MNI mm; may be repeated (default: the back area of S1, both "
        "sides)",
    )
    made.add_argument(
        "--seed-radius",
        type=float,
        default=4.0,
        metavar="MM",
        help="default: %(default)s",
    )
    made.add_argument(
        "--seed-mask",
        type=Path,
        metavar="FILE",
        help="NIfTI mask as seed, on the grid of the BOLD runs",
    )
    made.add_argument(
        "--seed-label",
        metavar="NAME",
        help="of the seed, for file names: letters and digits",
    )
    made.add_argument(
        "--seed-kind",
        default="effect",
        choices=["effect", "correlation", "fisherz"],
        help="statistic of the seed map (default: %(default)s)",
    )
    made.add_argument(
        "--fc-kind",
        default="correlation",
        choices=["correlation", "partial", "covariance"],
        help="kind of connectivity between regions (default: %(default)s)",
    )
    made.add_argument(
        "--spectrum",
        default="welch",
        choices=["welch", "lomb", "ar"],
        help="spectrum of the beat intervals (default: %(default)s)",
    )
    made.add_argument(
        "--t1-blood",
        type=float,
        metavar="S",
        help="for raw ASL (default: by field strength)",
    )
    made.add_argument(
        "--labeling-efficiency",
        type=float,
        metavar="A",
        help="for raw ASL (default: sidecar, or by type)",
    )
    made.add_argument(
        "--connectome",
        type=Path,
        metavar="FILE",
        help="group connection weights in the order of the "
        "atlas, for visits without their own (default: a distance rule)",
    )
    dataset_options(made)
    executor_options(made)
    made.set_defaults(run=run)


def _seed(given: argparse.Namespace) -> dict[str, object]:
    own = given.seed or given.seed_mask
    label = given.seed_label or ("seed" if own else "S1back")
    if not label.isalnum():
        raise InputError(f"--seed-label takes letters and digits; came {label!r}.")
    if not 0 < given.seed_radius <= 50:
        raise InputError(
            f"--seed-radius is a length in mm, above 0 to 50; came {given.seed_radius}."
        )
    seed: dict[str, object] = {
        "radius": given.seed_radius,
        "kind": given.seed_kind,
        "label": label,
    }
    return (
        seed
        | ({"centres": given.seed} if given.seed else {})
        | ({"mask": given.seed_mask} if given.seed_mask else {})
    )


def run(given: argparse.Namespace) -> int:
    from cingulum.features import FEATURES, FeatureOptions
    from cingulum.io.visit import read_filters
    from cingulum.pipeline import MeasurementPlan, features, write_features
    from cingulum.pipeline.single_recording import read_atlas_connectome
    from cingulum.signals.asl import Constants
    from cingulum.signals.atlas import named_atlas
    from cingulum.signals.bold import Denoising

    atlas = named_atlas(given.atlas)
    connectome = (
        read_atlas_connectome(given.connectome, atlas.regions)
        if given.connectome
        else None
    )
    choices = FeatureOptions(
        atlas, connectome, given.spectrum, given.fc_kind, _seed(given)
    )
    plan = MeasurementPlan(
        features(given.features or list(FEATURES), choices),
        Denoising(given.strategy, given.scrub, given.low_pass, given.high_pass),
        Constants(t1b=given.t1_blood, alpha=given.labeling_efficiency),
    )
    made = write_features(
        given.bids_dir,
        given.out_dir,
        plan,
        participants=given.participant_label,
        sessions=given.session_label,
        filters=read_filters(given.bids_filter_file)
        if given.bids_filter_file
        else None,
        derivatives=given.derivatives,
        skip_absent=given.features is None,
        executor=executor(given),
        work=given.work_dir,
        show_progress=True,
    )
    out = given.out_dir.resolve()
    print(
        f"{len(made.table)} visits, {made.table.shape[1] - 4} columns: "
        f"{out / 'features.tsv'}"
    )
    if made.skipped:
        print(f"Skipped, since no visit has the recordings: {', '.join(made.skipped)}")
    if made.failures:
        first = made.failures[0]
        print(
            f"{len(made.failures)} measurement(s) failed: {out / 'failures.tsv'}\nThe "
            f"first: {first.reason}",
            file=sys.stderr,
        )
    return 3 if made.failures else 0
