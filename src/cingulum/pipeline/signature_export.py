"""Export the weights of a run as a signature, with a model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cingulum.errors import InputError
from cingulum.features import FEATURES
from cingulum.io.files import read_json
from cingulum.prediction.signature import (
    ModalityWeights,
    Signature,
    read_column_weights,
    read_map_weights,
    write_signature,
)
from cingulum.report.references import all_references

METHOD_REFERENCE = "lee2019"
"""Where the paired machine and its fusion were published."""


def export_signature(run: Path, out: Path, name: str | None = None) -> Path:
    """Sign the weights of a `cingulum run … group`: its maps, columns and fusion, with
    a model card; returns the new folder.

    Raises InputError for a folder without a model, and for weights that new data cannot
    meet: of features cleaned of confounds by regression, or fused with controls.
    """
    run = Path(run)
    if not (run / "model" / "model.json").is_file():
        raise InputError(
            f"{run}: has no model/. Run `cingulum run BIDS_DIR {run} group` first."
        )
    model = read_json(run / "model" / "model.json")
    summary = read_json(run / "summary.json")
    _check_transferable(run, model)
    parts = {
        modality: _read_part(run / "model" / description["File"], description["Unit"])
        for modality, description in model["Modalities"].items()
    }
    details = {
        "Trained": f"{summary['evaluation']['patients']} patients, two visits each",
        "TrainedOn": model.get("TrainedOn", []),
        "Preprocessing": summary["methods"],
        "Performance": {
            model_name: _performance(score)
            for model_name, score in summary["prediction"].items()
            if model_name in (*parts, "fused")
        },
        "Citation": _citation(),
    }
    signed = Signature(name or summary["title"], parts, model["Fusion"], details)
    return write_signature(signed, out, model_card(signed, summary))


def _check_transferable(run: Path, model: Mapping[str, Any]) -> None:
    """Raises InputError for weights that rest on what new data cannot be given."""
    controls = [name for name in model["Modalities"] if name not in FEATURES]
    if controls:
        reason = f"controls in the fusion ({', '.join(controls)})"
    elif model["Confounds"]:
        reason = "confounds that were regressed out"
    else:
        return
    raise InputError(
        f"{run}: these weights stand on {reason}, which new data cannot be given in "
        "the same way. Run the study without them, in another folder, and export that."
    )


def _read_part(path: Path, unit: str) -> ModalityWeights:
    """The weights of one modality: of columns, or of voxels."""
    read = read_column_weights if path.suffix == ".tsv" else read_map_weights
    return read(path, unit, 0.0)


def _performance(score: Mapping[str, Any]) -> dict[str, Any]:
    return {name: score[name] for name in ("accuracy", "accuracy_ci", "p")}


def _citation() -> str:
    """How the method is cited."""
    reference = all_references()[METHOD_REFERENCE]
    return f"Lee et al. 2019, doi:{reference.doi}"


def model_card(signed: Signature, summary: Mapping[str, Any]) -> str:
    """A model card (Mitchell et al. 2019, doi:10.1145/3287560.3287596) in Markdown."""
    rows = [
        _card_row(name, score) for name, score in signed.metadata["Performance"].items()
    ]
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
            *rows,
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


def _card_row(name: str, score: Mapping[str, Any]) -> str:
    low, high = score["accuracy_ci"]
    return (
        f"| {name} | {100 * score['accuracy']:.1f} % | {100 * low:.1f}–"
        f"{100 * high:.1f} % | {score['p']:.4f} |"
    )
