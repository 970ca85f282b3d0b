"""The schema of summary.json, made from the classes of its sections."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cingulum.prediction.statistics import Interval
from cingulum.report.results import (
    Caution,
    EvaluationSection,
    Gaps,
    Provenance,
    StudyResults,
)

JsonSchema = dict[str, Any]

MERGED = (EvaluationSection, Gaps, Provenance)
"""Sections whose fields are keys of the summary itself."""

NOT_WRITTEN = ("notes", "synthetic")
"""What is in the results for the words only."""

# What is not finite is written as null.
NUMBER: JsonSchema = {"type": ["number", "null"]}

PLAIN: dict[Any, JsonSchema] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    float: NUMBER,
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    Interval: {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
    np.ndarray: {"type": "array"},
}


def summary_schema() -> JsonSchema:
    """JSON Schema (2020-12) of the summary of a paired study."""
    definitions: dict[str, JsonSchema] = {}
    properties: dict[str, JsonSchema] = {}
    for name, annotation in get_type_hints(StudyResults).items():
        if annotation in MERGED:
            properties |= _properties(annotation, definitions)
        elif name not in NOT_WRITTEN:
            properties[name] = _schema(annotation, definitions)
    # A study without a recipe in words writes an empty object.
    recipe = properties["recipe"]
    properties["recipe"] = {"anyOf": [recipe, {"type": "object", "maxProperties": 0}]}
    properties["lead"] = PLAIN[str]
    properties["warnings"] = _schema(Sequence[Caution], definitions)
    properties["methods"] = _schema(Sequence[str], definitions)
    properties["files"] = _schema(Mapping[str, str], definitions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "summary.json of `cingulum run … group`",
        "description": _description(StudyResults),
        "type": "object",
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
        "$defs": dict(sorted(definitions.items())),
    }


def _properties(
    section: type, definitions: dict[str, JsonSchema]
) -> dict[str, JsonSchema]:
    hints = get_type_hints(section)
    return {
        part.name: _schema(hints[part.name], definitions) for part in fields(section)
    }


def _schema(annotation: Any, definitions: dict[str, JsonSchema]) -> JsonSchema:
    """The schema of a type; classes of sections go to the definitions."""
    if annotation in PLAIN:
        return PLAIN[annotation]
    arguments = get_args(annotation)
    origin = get_origin(annotation)
    if origin in (Union, types.UnionType):
        return {"anyOf": [_schema(one, definitions) for one in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is not None and issubclass(origin, Mapping):
        values = _schema(arguments[1], definitions)
        return {"type": "object", "additionalProperties": values}
    if origin is not None and issubclass(origin, Sequence):
        return {"type": "array", "items": _schema(arguments[0], definitions)}
    if is_dataclass(annotation):
        return _reference(annotation, definitions)
    raise TypeError(f"{annotation} has no JSON schema; add it to PLAIN.")


def _reference(section: Any, definitions: dict[str, JsonSchema]) -> JsonSchema:
    name = section.__name__
    if name not in definitions:
        definitions[name] = {}  # known before its own fields are looked at
        properties = _properties(section, definitions)
        definitions[name] = {
            "description": _description(section),
            "type": "object",
            "properties": properties,
            "required": sorted(properties),
            "additionalProperties": False,
        }
    return {"$ref": f"#/$defs/{name}"}


def _description(section: type) -> str:
    return " ".join(inspect.cleandoc(section.__doc__ or "").split())
