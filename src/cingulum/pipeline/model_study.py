"""A study of fitted brains: one for every visit, run freely, and held against data that
its fit never saw."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cingulum.cache import status
from cingulum.cache.store import Store, key_of
from cingulum.errors import ConvergenceError, InputError
from cingulum.features import Mechanism
from cingulum.inference import resting_fit
from cingulum.io import Visit
from cingulum.io.files import read_own, write_json
from cingulum.measures import similarity
from cingulum.parallel import TaskFailure, map_tasks
from cingulum.pipeline.config import StudyConfig
from cingulum.pipeline.measurement import (
    Failure,
    MeasurementPlan,
    contents,
    describe,
    plain,
    recipe_key,
    sweep,
)
from cingulum.pipeline.paired_study import (
    RunPaths,
    atlas_and_connectome,
    begin,
    denoising,
    found,
    note_failures,
    pipelines,
    recipe,
    strike_out,
)
from cingulum.pipeline.single_recording import parts_of
from cingulum.pipeline.study_report import write_report
from cingulum.progress import track
from cingulum.report import Picture, plots, summarise, tables
from cingulum.report.manifest import ReportManifest
from cingulum.report.page import render_models
from cingulum.signals.parcellation import regional_series
from cingulum.signals.visit_data import VisitData
from cingulum.versions import software_versions

FIT = "model"
"""What the fits are called in the ledger and in file names."""

ROWS = {
    "free_running": "Fitted brain, running freely",
    "linear_control": "Linear network of equal size",
    "baseline": "Mean connectivity of the other participants",
    "sc_fc": "Connectome itself",
    "ceiling": "The fitted part of the recording itself",
}


def fit_visits(
    study: StudyConfig, place: RunPaths
) -> tuple[list[Visit], list[Failure], dict[str, str]]:
    """Fit a brain to every visit; what was fitted before is kept, what fails is
    recorded, and the rest goes on.

    Returns the visits, what failed, and by visit the key under which its fit is kept.
    """
    seen = found(study, place)
    describe(place.out)
    sweep(place.out)
    files = {visit.name: {FIT: [file_of(visit).as_posix()]} for visit in seen}
    recipe = recipe_of(study)
    strike_out(study, place)
    status.expect(place.keep, seen, files, {FIT: recipe})
    units = [(visit, study, recipe, place.out, place.keep) for visit in seen]
    keys: dict[str, str] = {}
    failures: list[Failure] = []
    done = map_tasks(_fit, units, place.executor)
    for i, result in track(done, "fit", total=len(units), show=place.show_progress):
        visit, (key, why) = (
            seen[i],
            ("", result.reason) if isinstance(result, TaskFailure) else result,
        )
        keys[visit.name] = key
        why = place.anonymous(why)
        status.note(place.keep, visit, {FIT: why} if why else {}, [FIT])
        failures += [Failure(visit.participant, visit.session, FIT, why)] * bool(why)
    if len(failures) == len(seen):
        raise InputError(
            f"No visit could be fitted. The first reason: {failures[0].reason}"
        )
    note_failures(place)
    return seen, failures, keys


def file_of(visit: Visit) -> Path:
    """Where the numbers of a visit's fit are kept, below the output folder."""
    return visit.folder / "func" / f"{visit.name}_desc-{FIT}_fit.json"


def recipe_of(study: StudyConfig) -> str:
    """Hash of all that the fits of a study depend on beside the recordings."""
    feature, told = _read(study), study.model
    plan = MeasurementPlan({FIT: feature}, denoising(study))
    return key_of(
        of=recipe_key(feature, plan),
        holdout=told.holdout,
        minutes=told.minutes,
        seed=told.seed,
    )


def _read(study: StudyConfig) -> Mechanism:
    """The feature that reads what these fits read."""
    atlas, connectome = atlas_and_connectome(study)
    return Mechanism(atlas=atlas, connectome=connectome)


def _fit(
    visit: Visit, study: StudyConfig, recipe: str, out: Path, work: Path
) -> tuple[str, str]:
    """Fit one visit and write what came of it; returns its key, and why it could not be
    fitted, or nothing."""
    try:
        key, store = (
            key_of(recipe=recipe, of=contents(visit, _read(study))),
            Store(work),
        )
        path = Path(out) / file_of(visit)
        kept = store.get(key) if path.is_file() else None
        if kept is None:
            kept = _fitted(visit, study)
            store.put(key, kept)
        content = {**json.loads(str(kept["numbers"])), "Of": key, status.RECIPE: recipe}
        if read_own(path) != content:
            write_json(path, content)
        return key, ""
    except (InputError, ConvergenceError) as trouble:
        return "", str(trouble)


def _fitted(visit: Visit, study: StudyConfig) -> dict[str, Any]:
    """Connectivity (recorded, held out, of the free-running brain), estimates, and the
    numbers of the report."""
    told = study.model
    atlas, connectome = atlas_and_connectome(study)
    connectome = connectome or Mechanism(atlas=atlas).brain.connectome
    series, _ = regional_series(VisitData(visit, denoising(study)).bold, atlas)
    train, heldout = parts_of(visit["bold"], series, told.holdout)
    verified = resting_fit(
        connectome, train, series.tr, seed=told.seed, minutes=told.minutes
    )
    numbers = summarise.fitted(verified, connectome.weights, train, heldout)
    numbers.pop("seconds")
    estimates = {
        name: value.reshape(-1).numpy()
        for name, value in verified.fit.estimates.items()
    }
    arrays = {
        "train": train.numpy(),
        "simulated": verified.simulated_fc.numpy(),
        **estimates,
    }
    arrays |= {} if heldout is None else {"heldout": heldout.numpy()}
    return {**arrays, "numbers": json.dumps(plain(numbers))}


def group(study: StudyConfig, place: RunPaths) -> dict[str, Any]:
    """Fit what is missing, compare with every control, and write report.html,
    summary.json, features.tsv and predictions of connectivity; returns the summary."""
    begin(study, place)
    seen, failures, keys = fit_visits(study, place)
    gone = {(one.participant, one.session) for one in failures}
    here = [visit for visit in seen if (visit.participant, visit.session) not in gone]
    fits = [Store(place.keep).get(keys[visit.name]) for visit in here]
    assert all(one is not None for one in fits)
    table = _table(here, [one for one in fits if one is not None])
    shelf = ReportManifest(place.out)
    shelf.table("features.tsv", table, float_format="%.9g")
    pictures = _pictures(study, here, [one for one in fits if one is not None], table)
    return write_report(
        shelf,
        _summary(study, place, here, table, failures),
        pictures,
        render_models,
        study,
    )


def _table(here: Sequence[Visit], fits: list[dict[str, np.ndarray]]) -> pd.DataFrame:
    """A row a visit: correlations with held-out connectivity (with the fitted part
    where nothing was held out) of the brain and every control, then what was
    estimated."""
    against = [torch.as_tensor(one.get("heldout", one["train"])) for one in fits]
    rows = []
    for k, (visit, one) in enumerate(zip(here, fits, strict=True)):
        told = json.loads(str(one["numbers"]))["fc_r"]
        part = "heldout" if "heldout" in one else "train"
        others = [
            a
            for other, a in zip(here, against, strict=True)
            if other.participant != visit.participant
        ]
        baseline = (
            similarity(torch.stack(others).mean(0), against[k]).item()
            if others
            else np.nan
        )
        rows.append(
            {
                "participant_id": f"sub-{visit.participant}",
                "session_id": f"ses-{visit.session}",
                "free_running": told.get(part),
                "linear_control": told.get(f"linear_control_{part}"),
                "baseline": baseline,
                "sc_fc": told["sc_fc"],
                "ceiling": told.get("ceiling", np.nan),
                "fitted_part": told["train"],
                "loop_gain": json.loads(str(one["numbers"]))["loop_gain"],
                "strength": float(one["strength"][0]),
                "w_plus": float(one["mass.w_plus"].mean()),
                "noise": float(one["noise"].mean()),
            }
        )
    return pd.DataFrame(rows)


def _summary(
    study: StudyConfig,
    place: RunPaths,
    here: Sequence[Visit],
    table: pd.DataFrame,
    failures: list[Failure],
) -> dict[str, Any]:
    people = len({visit.participant for visit in here})
    rows = {name: summarise.spread(table[name]) for name in ROWS}
    s: dict[str, Any] = {
        "title": study.title or f"A brain fitted to every visit: {people} participants",
        "participants": people,
        "visits": len(here),
        "holdout": study.model.holdout,
        "minutes": study.model.minutes,
        "models": {
            name: {"label": label, **rows[name]} for name, label in ROWS.items()
        },
        "estimates": {
            name: summarise.spread(table[name])
            for name in ("strength", "w_plus", "noise", "loop_gain")
        },
        "retest": _retest(table),
        "left_out": {
            f"sub-{one.participant} ses-{one.session}": one.reason for one in failures
        },
        "pipelines": pipelines(place),
        "recipe": recipe(study),
        "versions": software_versions(),
    }
    s["lead"], s["warnings"] = _lead(s), _warnings(s)
    return summarise.plain(s)


def _lead(s: dict[str, Any]) -> str:
    part = (
        "connectivity that its fit never saw"
        if s["holdout"]
        else "the connectivity it was fitted to"
    )
    own, control, other = (
        s["models"][name]["mean"]
        for name in ("free_running", "linear_control", "baseline")
    )
    baseline = (
        ""
        if other is None
        else f", the mean of the other participants with r = {other:.3f}"
    )
    return (
        f"Running freely, the brain fitted to a visit explains {part} with r = "
        f"{own:.3f} (mean of {s['visits']} visits "
        f"of {s['participants']} participants); a linear network of equal size with r "
        f"= {control:.3f}{baseline}."
    )


BEATS = {
    "linear_control": "A linear network of equal size explains the data as well or "
    "better: the fit by itself is no "
    "evidence for the physiology of the model.",
    "baseline": "The other participants' mean connectivity explains a visit as well or "
    "better than the brain fitted to "
    "it: little of the fit is about the person.",
    "sc_fc": "The connectome itself explains the data as well or better than the brain "
    "that was fitted on it.",
}
"""What follows where a control is as good as the fitted brain."""


def _warnings(s: dict[str, Any]) -> list[dict[str, str]]:
    r = {name: model["mean"] for name, model in s["models"].items()}
    texts = [f"{name} was left out: {why}" for name, why in s["left_out"].items()]
    texts += [
        text
        for name, text in BEATS.items()
        if r[name] is not None and r[name] >= r["free_running"]
    ]
    if not s["holdout"]:
        texts.append("Nothing was held out: all figures are in-sample.")
    elif r["ceiling"] < 0.3:
        texts.append(
            f"One part of a recording resembles the other with r = {r['ceiling']:.3f} "
            "only: these recordings "
            "are too short or too noisy to judge any model by."
        )
    notes = [
        "Estimates are point estimates given the model and the connectome. The search "
        "sees the pattern of "
        "connectivity, not its level."
    ]
    return [{"kind": "serious", "text": text} for text in texts] + [
        {"kind": "note", "text": text} for text in notes
    ]


def _retest(table: pd.DataFrame) -> dict[str, float | None]:
    """Correlation over participants of the estimates of their first two visits; None
    with fewer than five."""
    pairs = [
        rows.iloc[:2] for _, rows in table.groupby("participant_id") if len(rows) >= 2
    ]
    names = ("strength", "w_plus", "noise")
    if len(pairs) < 5:
        return dict.fromkeys(names)
    return {
        n: float(np.corrcoef(*np.array([p[n].to_numpy() for p in pairs]).T)[0, 1])
        for n in names
    }


def _pictures(
    study: StudyConfig,
    here: Sequence[Visit],
    fits: list[dict[str, np.ndarray]],
    table: pd.DataFrame,
) -> list[Picture]:
    atlas, _ = atlas_and_connectome(study)
    seen, modelled = (
        np.mean([one[name] for one in fits], 0) for name in ("train", "simulated")
    )
    excitation = np.mean([one["mass.w_plus"] for one in fits], 0)
    alt = (
        "Recorded and modelled connectivity matrices, and a scatter of one against "
        "the other."
    )
    return [
        Picture(
            "fits",
            plots.controls(table, ROWS),
            "Correlation with held-out connectivity, a dot a visit, for the "
            "fitted brain and every control.",
            "Every visit's brain beside the controls it is read against.",
            "controls",
            table,
        ),
        Picture(
            "fits",
            plots.connectivity_pair(seen, modelled, "recorded (fitted part)"),
            alt,
            "Means over visits: recorded, and of the brains running freely.",
            "fc",
            tables.edges(seen, modelled, atlas.regions),
        ),
        Picture(
            "parameters",
            plots.region_map(excitation - excitation.mean(), atlas.centres),
            "Glass brain with fitted excitation by region.",
            "Mean fitted recurrent excitation, against that of all regions.",
            "w_plus",
            tables.regions(excitation, atlas.regions, "w_plus"),
        ),
    ]
