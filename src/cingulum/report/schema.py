"""The schema of summary.json, generated from the classes of its sections."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import numpy as np

from cingulum.io.files import JsonObject
from cingulum.prediction.statistics import Interval
from cingulum.report.results import (
    Caution,
    EvaluationSection,
    Gaps,
    Provenance,
    StudyResults,
)

MERGED = (EvaluationSection, Gaps, Provenance)
"""Sections whose fields are keys of the summary itself."""

NOT_WRITTEN = ("notes", "synthetic")
"""Fields of the results that only texts depend on."""

TEXT: JsonObject = {"type": "string"}

# What is not finite is written as null.
NUMBER: JsonObject = {"type": ["number", "null"]}

SIMPLE: dict[Any, JsonObject] = {
    str: TEXT,
    int: {"type": "integer"},
    float: NUMBER,
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    Any: {},
    Interval: {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2},
    np.ndarray: {"type": "array"},
}
"""Schemas of the types that have no parts of their own to describe."""


@dataclass(eq=False)
class Definitions:
    """Schemas of the classes of sections, by name."""

    schemas: dict[str, JsonObject] = field(default_factory=dict)

    def schema(self, annotation: Any) -> JsonObject:
        """The schema of a type; classes of sections are added to the definitions."""
        if annotation in SIMPLE:
            return SIMPLE[annotation]
        if is_dataclass(annotation):
            return self._reference(annotation)
        origin = get_origin(annotation)
        # `int | str` and `Union[int, str]` have different origins.
        if origin in (Union, types.UnionType):
            return self._union(annotation)
        if origin is Literal:
            return {"enum": list(get_args(annotation))}
        if isinstance(origin, type):
            return self._container(annotation, origin)
        raise _no_schema(annotation)

    def properties(self, section: type) -> dict[str, JsonObject]:
        """The schemas of a section's fields."""
        # Annotations are kept as text; type hints are the types they name.
        hints = get_type_hints(section)
        return {part.name: self.schema(hints[part.name]) for part in fields(section)}

    def _union(self, annotation: Any) -> JsonObject:
        return {"anyOf": [self.schema(option) for option in get_args(annotation)]}

    def _container(self, annotation: Any, origin: type) -> JsonObject:
        """The schema of a mapping or a sequence, by that of its items."""
        arguments = get_args(annotation)
        if issubclass(origin, Mapping):
            # Keys are always strings in JSON, so only the values have a schema.
            values = self.schema(arguments[1])
            return {"type": "object", "additionalProperties": values}
        if issubclass(origin, Sequence):
            return {"type": "array", "items": self.schema(arguments[0])}
        raise _no_schema(annotation)

    def _reference(self, section: Any) -> JsonObject:
        name = section.__name__
        if name not in self.schemas:
            # Entered before its fields are read, so that a section may contain itself.
            self.schemas[name] = {}
            properties = self.properties(section)
            self.schemas[name] = _object_schema(_description(section), properties)
        return {"$ref": f"#/$defs/{name}"}


def summary_schema() -> JsonObject:
    """JSON Schema (2020-12) of the summary of a paired study."""
    definitions = Definitions()
    properties = {
        **_result_properties(definitions),
        **_text_properties(definitions),
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "summary.json of `cingulum run … group`",
        **_object_schema(_description(StudyResults), properties),
        # Sorted, so that a new section changes only its own lines of the file.
        "$defs": dict(sorted(definitions.schemas.items())),
    }


def _result_properties(definitions: Definitions) -> dict[str, JsonObject]:
    """The keys that hold numbers."""
    properties: dict[str, JsonObject] = {}
    for name, annotation in get_type_hints(StudyResults).items():
        if annotation in MERGED:
            properties |= definitions.properties(annotation)
        elif name not in NOT_WRITTEN:
            properties[name] = definitions.schema(annotation)
    # A study without a recipe in words writes an empty object.
    empty: JsonObject = {"type": "object", "maxProperties": 0}
    properties["recipe"] = {"anyOf": [properties["recipe"], empty]}
    return properties


def _text_properties(definitions: Definitions) -> dict[str, JsonObject]:
    """The keys that hold texts, and the files of the report."""
    return {
        "lead": TEXT,
        "warnings": definitions.schema(Sequence[Caution]),
        "methods": definitions.schema(Sequence[str]),
        "files": definitions.schema(Mapping[str, str]),
    }


def _object_schema(description: str, properties: dict[str, JsonObject]) -> JsonObject:
    """The schema of an object with these keys, all of them, and no others."""
    return {
        "description": description,
        "type": "object",
        "properties": properties,
        # A key that vanished is a broken promise to readers' scripts.
        "required": sorted(properties),
        "additionalProperties": False,
    }


def _no_schema(annotation: Any) -> TypeError:
    return TypeError(f"{annotation} has no JSON schema; add it to SIMPLE.")


def _description(section: type) -> str:
    return " ".join(inspect.cleandoc(section.__doc__ or "").split())
