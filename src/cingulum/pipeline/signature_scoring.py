"""Signatures meet datasets: score new recordings with weights of others, and sign the
weights of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cingulum.errors import InputError
from cingulum.features import FEATURES
from cingulum.io.cohort import in_order
from cingulum.io.files import read_json, read_table, write_json, write_table
from cingulum.io.images import read_image
from cingulum.io.visit import visits
from cingulum.parallel import Executor
from cingulum.pipeline.fitted_rows import finish
from cingulum.pipeline.measurement import (
    Failure,
    MeasurementPlan,
    describe,
    features,
    load,
    measure_visits,
)
from cingulum.prediction.signature import (
    ModalityWeights,
    Signature,
    read_signature,
    write_signature,
)
from cingulum.prediction.signature_scores import (
    SignatureScores,
    score_columns,
    score_maps,
)
from cingulum.prediction.statistics import exact_interval
from cingulum.report.summarise import plain
from cingulum.versions import versions

Scans = dict[tuple[str, str], dict[str, tuple[np.ndarray, np.ndarray | None]]]
"""By participant and session, by modality: values and, for maps, affine."""


def apply_to_bids(
    signature: Path,
    bids: Path,
    out: Path,
    *,
    participants: Sequence[str] | None = None,
    sessions: Sequence[str] | None = None,
    filters: Mapping[str, Mapping[str, Any]] | None = None,
    derivatives: Sequence[Path] = (),
    work: Path | None = None,
    executor: Executor | None = None,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Measure what the signature needs of every visit, and score it; returns the
    summary.

    Writes scores.tsv (a row a scan and modality), decisions.tsv (a row a participant
    with two visits) and summary.json. A visit that lacks a recording is told and scored
    on the rest.
    """
    signed = read_signature(signature)
    found = visits(
        bids, participants, sessions=sessions, filters=filters, derivatives=derivatives
    )
    wanted = features(list(signed.parts))
    describe(out)
    plan = MeasurementPlan(wanted)
    failures = measure_visits(
        found,
        plan,
        out,
        work=work,
        folders=[bids, *derivatives],
        executor=executor,
        show_progress=show_progress,
    )
    failed = {(f.participant, f.session, f.feature) for f in failures}
    scans: Scans = {(v.participant, v.session): {} for v in found}
    names: dict[str, list[str]] = {}
    trained, known = set(signed.metadata.get("TrainedOn", [])), set()
    for name, feature in wanted.items():
        have = [v for v in found if (v.participant, v.session, name) not in failed]
        if not have:
            continue
        rows = [load(v, feature, out) for v in have]
        known |= {
            v.participant
            for v, row in zip(have, rows, strict=True)
            if row.origin.recordings[:16] in trained
        }
        if feature.is_map:
            for v, row in zip(have, rows, strict=True):
                scans[v.participant, v.session][name] = (row.values, row.affine)
            continue
        table, lost = finish(
            feature,
            have,
            rows,
            out,
            work or Path(out) / "work",
            executor,
            show_progress,
        )
        failures += [
            Failure(have[k].participant, have[k].session, name, why) for k, why in lost
        ]
        names[name] = [str(c) or name for c in table.columns]
        unfit = {k for k, _ in lost}
        for k, (v, values) in enumerate(zip(have, table.to_numpy(float), strict=True)):
            if k in unfit:
                continue
            scans[v.participant, v.session][name] = (values, None)
    told = [
        {
            "participant": f.participant,
            "session": f.session,
            "modality": f.feature,
            "reason": f.reason,
        }
        for f in failures
    ]
    return _score(signed, scans, names, in_order(Path(bids), found), out, told, known)


def apply_to_table(signature: Path, table: Path, out: Path) -> dict[str, Any]:
    """Score scans that a table names: columns participant_id, session_id, one a
    modality (a NIfTI file, relative to the table, or a number), and pain where it is
    known; sessions in the order of the rows."""
    signed, separator = (
        read_signature(signature),
        "," if Path(table).suffix == ".csv" else "\t",
    )
    rows = read_table(
        table, dtype={"participant_id": str, "session_id": str}, sep=separator
    )
    needed = {"participant_id", "session_id"}
    present = [name for name in signed.parts if name in rows]
    if not needed <= set(rows) or not present:
        raise InputError(
            f"{table}: expected the columns participant_id, session_id and at least "
            "one of "
            f"{', '.join(signed.parts)}; came {', '.join(map(str, rows.columns))}."
        )
    scans: Scans = {}
    for row in rows.to_dict("records"):
        here = scans.setdefault((row["participant_id"], row["session_id"]), {})
        for name in present:
            if pd.isna(row[name]):
                continue
            if signed.parts[name].is_map:
                image = read_image(
                    Path(table).parent / str(row[name]), 3, allow_nan=True
                )
                here[name] = (np.asarray(image.dataobj), image.affine)
            else:
                here[name] = (np.array([float(row[name])]), None)
    pain = (
        pd.to_numeric(rows["pain"], errors="coerce")
        if "pain" in rows
        else pd.Series(np.nan, rows.index)
    )
    order = [
        (p, s, float(x))
        for p, s, x in zip(
            rows["participant_id"], rows["session_id"], pain, strict=True
        )
    ]
    return _score(
        signed,
        scans,
        {n: list(signed.parts[n].columns) for n in present},
        order,
        out,
        [],
    )


def _score(
    signed: Signature,
    scans: Scans,
    names: dict[str, list[str]],
    order: list[tuple[str, str, float]],
    out: Path,
    failures: list[dict[str, str]],
    known: Set[str] = frozenset(),
) -> dict[str, Any]:
    rows, decisions, flags = [], [], set()
    if known:
        flags.add(
            f"the signature was trained on {len(known)} of these participants: their "
            "scores are in-sample and say "
            "nothing about new ones"
        )
    for participant in dict.fromkeys(p for p, _, _ in order):
        mine = [(s, pain) for p, s, pain in order if p == participant]
        scored: dict[str, dict[str, float]] = {}
        for name, part in signed.parts.items():
            have = [s for s, _ in mine if name in scans[participant, s]]
            if not have:
                continue
            found = _applied(
                part,
                [scans[participant, s][name] for s in have],
                names.get(name, []),
                f"sub-{participant.removeprefix('sub-')}, {name}",
            )
            flags |= set(found.flags)
            scored[name] = dict(zip(have, found.scores.tolist(), strict=True))
            rows += [
                {
                    "participant_id": participant,
                    "session_id": s,
                    "modality": name,
                    "score": scored[name][s],
                    "coverage": found.coverage,
                }
                for s in have
            ]
        if len(mine) >= 2:
            decisions.append(_decision(signed, participant, mine[:2], scored))
    if not rows:
        first = f" The first reason: {failures[0]['reason']}" if failures else ""
        raise InputError(f"No scan could be scored with {signed.name}.{first}")
    write_table(Path(out) / "scores.tsv", pd.DataFrame(rows))
    table = pd.DataFrame(decisions)
    if len(table):
        write_table(Path(out) / "decisions.tsv", table)
    summary = {
        "signature": signed.name,
        "told": dict(signed.metadata),
        "participants": len({p for p, _, _ in order}),
        "scans": len({(r["participant_id"], r["session_id"]) for r in rows}),
        "participants_with_two_visits": len(table),
        "models": {
            name: _figures(table, name)
            for name in (*signed.parts, "fused")
            if name in table
        },
        "flags": sorted(flags),
        "failures": failures,
        "words": "Scores of single scans are not calibrated: only differences between "
        "visits of one person were "
        "validated. Left and right cannot be checked from the data.",
        "versions": versions(),
    }
    write_json(Path(out) / "summary.json", plain(summary))
    return summary


def _applied(
    part: ModalityWeights,
    given: list[tuple[np.ndarray, np.ndarray | None]],
    names: list[str],
    what: str,
) -> SignatureScores:
    if not part.is_map:
        return score_columns(
            part, np.stack([values.ravel() for values, _ in given]), names, what
        )
    affine = given[0][1]
    if affine is None or any(
        a is None or v.shape != given[0][0].shape or not np.allclose(a, affine)
        for v, a in given
    ):
        raise InputError(
            f"{what}: the visits lie on different grids; resample them to one."
        )
    return score_maps(part, [values for values, _ in given], affine, what)


def _decision(
    signed: Signature,
    participant: str,
    mine: list[tuple[str, float]],
    scored: dict[str, dict[str, float]],
) -> dict[str, Any]:
    (first, pain_first), (second, pain_second) = mine
    row: dict[str, Any] = {
        "participant_id": participant,
        "first": first,
        "second": second,
        "pain_change": pain_second - pain_first,
    }
    for name, part in signed.parts.items():
        both = first in scored.get(name, {}) and second in scored.get(name, {})
        row[name] = (
            scored[name][second] - scored[name][first] + part.intercept
            if both
            else np.nan
        )
    if signed.fusion:
        row["fused"] = sum(w * row[name] for name, w in signed.fusion.items())
    return row


def _figures(table: pd.DataFrame, name: str) -> dict[str, Any]:
    """How often the sign of the decision is that of the change in pain, where that is
    known."""
    known = (
        table[name].notna() & table["pain_change"].notna() & (table["pain_change"] != 0)
    )
    decided = table[name].notna()
    found: dict[str, Any] = {
        "decided": int(decided.sum()),
        "second_visit_higher": int((table[name] > 0).sum()),
    }
    if known.any():
        right = np.sign(table.loc[known, name]) == np.sign(
            table.loc[known, "pain_change"]
        )
        interval = exact_interval(float(right.sum()), int(known.sum()))
        found |= {
            "pain_known": int(known.sum()),
            "accuracy": float(right.mean()),
            "accuracy_exact_ci": [interval.low, interval.high],
        }
    return found


# Exporting


def export(run: Path, out: Path, name: str | None = None) -> Path:
    """Sign the weights of a `cingulum run … group`: its maps, columns and fusion, with
    a model card.

    Raises InputError for a folder without a model, and for weights that new data cannot
    meet: of features cleaned of confounds by regression, or fused with controls.
    """
    run = Path(run)
    if not (run / "model" / "model.json").is_file():
        raise InputError(
            f"{run}: has no model/. Run `cingulum run BIDS_DIR {run} group` first."
        )
    told, summary = (
        read_json(run / "model" / "model.json"),
        read_json(run / "summary.json"),
    )
    unmeasured = [part for part in told["Modalities"] if part not in FEATURES]
    if unmeasured or told["Confounds"]:
        reason = (
            f"controls in the fusion ({', '.join(unmeasured)})"
            if unmeasured
            else "confounds that were regressed out"
        )
        raise InputError(
            f"{run}: these weights stand on {reason}, which new data cannot be given "
            "in the same way. Run "
            "the study without them, in another folder, and export that."
        )
    parts = {}
    for part, one in told["Modalities"].items():
        path = run / "model" / one["File"]
        if path.suffix == ".tsv":
            table = read_table(path)
            parts[part] = ModalityWeights(
                table["weight"].to_numpy(float),
                one["Unit"],
                0.0,
                None,
                tuple(table["column"].astype(str)),
            )
        else:
            image = read_image(path, 3)
            parts[part] = ModalityWeights(
                np.asarray(image.dataobj, float), one["Unit"], 0.0, image.affine
            )
    described = {
        "Trained": f"{summary['evaluation']['patients']} patients, two visits each",
        "TrainedOn": told.get("TrainedOn", []),
        "Preprocessing": summary["methods"],
        "Performance": {
            k: {"accuracy": v["accuracy"], "accuracy_ci": v["accuracy_ci"], "p": v["p"]}
            for k, v in summary["prediction"].items()
            if k in (*parts, "fused")
        },
        "Citation": "Lee et al. 2019, doi:10.1097/j.pain.0000000000001417",
    }
    signed = Signature(name or summary["title"], parts, told["Fusion"], described)
    return write_signature(signed, out, card(signed, summary))


def card(signed: Signature, summary: Mapping[str, Any]) -> str:
    """A model card (Mitchell et al. 2019) in Markdown."""
    rows = [
        f"| {k} | {100 * v['accuracy']:.1f} % | "
        f"{100 * v['accuracy_ci'][0]:.1f}–{100 * v['accuracy_ci'][1]:.1f} % | "
        f"{v['p']:.4f} |"
        for k, v in signed.metadata["Performance"].items()
    ]
    units = [f"- {name}: {part.unit}" for name, part in signed.parts.items()]
    warnings = [f"- {w['text']}" for w in summary["warnings"]]
    return "\n".join(
        [
            f"# {signed.name}",
            "",
            "## What it does",
            "Says which of two visits of one person was the one in more pain: sign of "
            "weights · (second − first).",
            "It is not a diagnosis and not a measurement from one scan.",
            "",
            "## Trained on",
            signed.metadata["Trained"] + ".",
            "",
            "## Units of its input",
            *units,
            "",
            "## Performance (patients left out one at a time, nested)",
            "",
            "| model | accuracy | 95 % interval | p |",
            "|---|---|---|---|",
            *rows,
            "",
            "## Read this first",
            *warnings,
            "",
            "## Preprocessing",
            *[f"- {m}" for m in signed.metadata["Preprocessing"]],
            "",
            f"Made by cingulum {summary['versions']['cingulum']}.",
            "",
        ]
    )
