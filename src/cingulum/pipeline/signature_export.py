"""Export the weights of a run as a signature, with a model card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cingulum.errors import InputError
from cingulum.features import FEATURES
from cingulum.io.files import JsonObject, read_json
from cingulum.prediction.signature import (
    ModalityWeights,
    Signature,
    read_column_weights,
    read_map_weights,
    write_signature,
)
from cingulum.report.references import all_references

METHOD_REFERENCE = "lee2019"
"""Where the paired SVM and its fusion were published."""


def export_signature(run: Path, out: Path, name: str | None = None) -> Path:
    """Sign the weights of a `cingulum run … group`: its maps, columns and fusion, with
    a model card; returns the new folder.

    Raises InputError for a folder without a model, and for weights that new data cannot
    meet: of features cleaned of confounds by regression, or fused with controls.
    """
    run = Path(run)
    model = _read_model(run)
    summary = read_json(run / "summary.json")
    # Such weights would give scores that look right and mean nothing.
    _check_transferable(run, model)
    parts = {}
    for modality, entry in model["Modalities"].items():
        parts[modality] = _read_part(run / "model" / entry["File"], entry["Unit"])
    metadata = _metadata(model, summary, [*parts, "fused"])
    signed = Signature(name or summary["title"], parts, model["Fusion"], metadata)
    return write_signature(signed, out, model_card(signed, summary))


def _read_model(run: Path) -> JsonObject:
    path = run / "model" / "model.json"
    if not path.is_file():
        raise InputError(
            f"{run}: has no model/. Run `cingulum run BIDS_DIR {run} group` first."
        )
    return read_json(path)


def _metadata(
    model: JsonObject, summary: JsonObject, exported: Sequence[str]
) -> JsonObject:
    """What signature.json says beside the weights; exported: names of the models."""
    return {
        "Trained": f"{summary['evaluation']['patients']} patients, two visits each",
        # Hashes, so that scores of the same people are recognised as in-sample.
        "TrainedOn": model.get("TrainedOn", []),
        "Preprocessing": summary["methods"],
        "Performance": _performances(summary["prediction"], exported),
        "Citation": _citation(),
    }


def _check_transferable(run: Path, model: JsonObject) -> None:
    """Raises InputError for weights that rest on what new data do not have."""
    reason = _obstacle(model)
    if reason:
        raise InputError(
            f"{run}: these weights depend on {reason}, which new data cannot be given "
            "in the same way. Run the study without them, in another folder, and "
            "export that."
        )


def _obstacle(model: JsonObject) -> str:
    """What weights rest on beside their features; empty: nothing."""
    controls = _fused_controls(model)
    if controls:
        return f"controls in the fusion ({', '.join(controls)})"
    # The regression was estimated in the folds, on participants who are not shared.
    if model["Confounds"]:
        return "confounds that were regressed out"
    return ""


def _fused_controls(model: JsonObject) -> list[str]:
    """Modalities of a model that are no features: its controls."""
    return [name for name in model["Modalities"] if name not in FEATURES]


def _read_part(path: Path, unit: str) -> ModalityWeights:
    """The weights of one modality: of columns, or of voxels."""
    # Differences of two visits have no offset: the paired SVM is fitted without one.
    intercept = 0.0
    if path.suffix == ".tsv":
        return read_column_weights(path, unit, intercept)
    return read_map_weights(path, unit, intercept)


def _performances(scores: JsonObject, models: Sequence[str]) -> JsonObject:
    """By model whose weights are exported, how well it did in the study."""
    performances = {}
    for name, score in scores.items():
        # Controls were scored too, but have no weights here.
        if name in models:
            performances[name] = _performance(score)
    return performances


def _performance(score: JsonObject) -> JsonObject:
    return {name: score[name] for name in ("accuracy", "accuracy_ci", "p")}


def _citation() -> str:
    """How the method is cited."""
    reference = all_references()[METHOD_REFERENCE]
    return f"Lee et al. 2019, doi:{reference.doi}"


def model_card(signed: Signature, summary: JsonObject) -> str:
    """A model card (Mitchell et al. 2019, doi:10.1145/3287560.3287596) in Markdown."""
    performances = signed.metadata["Performance"]
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
            *[f"- {name}: {part.unit}" for name, part in signed.parts.items()],
            "",
            "## Performance (patients left out one at a time, nested)",
            "",
            "| model | accuracy | 95 % interval | p |",
            "|---|---|---|---|",
            *[_card_row(name, score) for name, score in performances.items()],
            "",
            "## Read this first",
            *[f"- {warning['text']}" for warning in summary["warnings"]],
            "",
            "## Preprocessing",
            *[f"- {paragraph}" for paragraph in signed.metadata["Preprocessing"]],
            "",
            f"Made by cingulum {summary['versions']['cingulum']}.",
            "",
        ]
    )


def _card_row(name: str, score: JsonObject) -> str:
    low, high = score["accuracy_ci"]
    return (
        f"| {name} | {100 * score['accuracy']:.1f} % | {100 * low:.1f}–"
        f"{100 * high:.1f} % | {score['p']:.4f} |"
    )
