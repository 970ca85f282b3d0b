"""References that the code says itself: settings of a study, help of every command, the
public names."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

WIDTH = "100"
"""Columns of the printed help."""


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    for marker, made in {
        "settings": settings,
        "commands": commands,
        "names": names,
        "studies": study_file,
    }.items():
        mark = f"<!-- {marker} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, made())
    return markdown


def settings() -> str:
    """A table for every part of a study file."""
    from cingulum.pipeline.config import PARTS, StudyConfig

    parts: list[str] = []
    for name, kind in {"": StudyConfig, **PARTS}.items():
        title = f"## [{name}]" if name else "## Above the tables"
        doc = (kind.__doc__ or "").strip() if name else ""
        rows = [
            _row(one, hint) for one, hint in _settings(kind) if one.name not in PARTS
        ]
        head = ["| setting | type | default | meaning |", "|---|---|---|---|"]
        parts += [title, "", doc, "", *head, *rows, ""]
    return "\n".join(parts)


def _settings(kind: type) -> Iterator[tuple[Field, Any]]:
    hints = get_type_hints(kind)
    return ((one, hints[one.name]) for one in fields(kind))


def _row(one: Field, hint: Any) -> str:
    from cingulum.pipeline.config import default_of, toml

    told, default = one.metadata, default_of(one)
    choices = (
        f"; one of {', '.join(f'`{choice}`' for choice in told['choices'])}"
        if told["choices"]
        else ""
    )
    low, high = told["low"], told["high"]
    limit = (
        ""
        if low is None
        else f"; at least {low:g}"
        if high is None
        else f"; {low:g} to {high:g}"
    )
    shown = "not set" if default is None else f"`{toml(default)}`"
    meaning = plain(f"{told['meaning']}{choices}{limit}")
    return f"| `{one.name}` | {type_words(hint)} | {shown} | {meaning} |"


def plain(text: str) -> str:
    """Text for a cell of a table: braces outside of code are no attributes."""
    parts = text.replace("|", "\\|").split("`")
    parts[::2] = [
        part.replace("{", "&#123;").replace("}", "&#125;") for part in parts[::2]
    ]
    return "`".join(parts)


def type_words(hint: Any) -> str:
    """A type in the words of the error messages."""
    text = str(hint)
    words = {
        "bool": "true or false",
        "int": "whole number",
        "float": "number",
        "str": "text",
    }
    if text.startswith("tuple"):
        return "list of texts"
    if "Mapping" in text:
        return "table"
    return next((word for name, word in words.items() if name in text), text)


def study_file() -> str:
    """A study file with every setting at its default, as `cingulum run` writes it."""
    from cingulum.pipeline.config import StudyConfig, written

    return f"```toml\n{written(StudyConfig())}```"


def commands() -> str:
    """The help of every command, as the program prints it."""
    from cingulum.cli import parser

    os.environ["COLUMNS"] = WIDTH
    top = parser()
    parts = ["## cingulum", "", f"```text\n{top.format_help()}```", ""]
    for title, one in every_command(top):
        parts += [f"## {title}", "", f"```text\n{one.format_help()}```", ""]
    return "\n".join(parts)


def every_command(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Commands and their verbs, with their full names."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield one.prog, one
                yield from every_command(one)


def names() -> str:
    """Every public name of the package, with its first line and a link."""
    import inspect
    from importlib import import_module

    import cingulum

    lines = ["| name | what it is | layer |", "|---|---|---|"]
    for name, layer in sorted(
        cingulum._WHERE.items(), key=lambda pair: (pair[1], pair[0].lower())
    ):
        thing = getattr(import_module(layer), name)
        first = plain(first_words(inspect.getdoc(thing) or ""))
        link = f"[`{name}`][{thing.__module__}.{thing.__qualname__}]"
        lines.append(f"| {link} | {first} | `{layer.removeprefix('cingulum.')}` |")
    return "\n".join(lines)


def first_words(doc: str) -> str:
    """The docstring's lines up to the first that ends a sentence."""
    lines: list[str] = []
    for line in doc.split("\n"):
        lines.append(line)
        if line.endswith((".", ":", ";", ")")):
            break
    return " ".join(lines).strip()
