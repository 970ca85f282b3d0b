"""References that the code says itself: settings of a study, help of every command, the
public names."""

from __future__ import annotations

import argparse
import inspect
import os
from collections.abc import Iterator
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

    from cingulum.pipeline.config import Option

WIDTH = "100"
"""Columns of the printed help."""


def on_page_markdown(
    markdown: str, page: Page, config: MkDocsConfig, files: Files
) -> str:
    for marker, content in CONTENTS.items():
        mark = f"<!-- {marker} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, content())
    return markdown


def settings() -> str:
    """A table for every section of a study file."""
    from cingulum.pipeline.config import SECTIONS, StudyConfig

    parts = ["## Above the tables", "", "", "", *_option_table(StudyConfig), ""]
    for section, config_class in SECTIONS.items():
        words = (config_class.__doc__ or "").strip()
        table = _option_table(config_class)
        parts += [f"## [{section}]", "", words, "", *table, ""]
    return "\n".join(parts)


def _option_table(config_class: type) -> list[str]:
    from cingulum.pipeline.config import options

    lines = ["| setting | type | default | meaning |", "|---|---|---|---|"]
    for option in options(config_class):
        lines.append(_option_row(option))
    return lines


def _option_row(option: Option) -> str:
    from cingulum.pipeline.config import toml_value

    default = "not set"
    if option.default is not None:
        default = f"`{toml_value(option.default)}`"
    meaning = plain(option.meaning + _choices(option) + _limits(option))
    return f"| `{option.name}` | {type_words(option)} | {default} | {meaning} |"


def _choices(option: Option) -> str:
    if not option.choices:
        return ""
    quoted = [f"`{choice}`" for choice in option.choices]
    return f"; one of {', '.join(quoted)}"


def _limits(option: Option) -> str:
    if option.low is None:
        return ""
    if option.high is None:
        return f"; at least {option.low:g}"
    return f"; {option.low:g} to {option.high:g}"


def plain(text: str) -> str:
    """Text for a cell of a table: braces outside of code are no attributes."""
    parts = text.replace("|", "\\|").split("`")
    # Every second part is code, where braces are safe.
    parts[::2] = [
        part.replace("{", "&#123;").replace("}", "&#125;") for part in parts[::2]
    ]
    return "`".join(parts)


TYPE_WORDS = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    dict: "table",
}


def type_words(option: Option) -> str:
    """The type of an option in the words of the error messages."""
    return "list of texts" if option.is_list else TYPE_WORDS[option.item_type]


def study_file() -> str:
    """A study file with every setting at its default, as `cingulum run` writes it."""
    from cingulum.pipeline.config import StudyConfig, to_toml

    return f"```toml\n{to_toml(StudyConfig())}```"


def commands() -> str:
    """The help of every command, as the program prints it."""
    from cingulum.cli import parser

    # argparse takes the width of the page from the environment.
    os.environ["COLUMNS"] = WIDTH
    top = parser()
    parts = ["## cingulum", "", _help_block(top), ""]
    for title, command in every_command(top):
        parts += [f"## {title}", "", _help_block(command), ""]
    return "\n".join(parts)


def _help_block(parser: argparse.ArgumentParser) -> str:
    return f"```text\n{parser.format_help()}```"


def every_command(
    parser: argparse.ArgumentParser,
) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Commands and their verbs, with their full names."""
    # argparse has no public list of the commands of a parser.
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                yield command.prog, command
                yield from every_command(command)


def names() -> str:
    """Every public name of the package, with its first line and a link."""
    import cingulum

    lines = ["| name | what it is | layer |", "|---|---|---|"]
    by_layer = sorted(
        cingulum._WHERE.items(), key=lambda pair: (pair[1], pair[0].lower())
    )
    for name, layer in by_layer:
        lines.append(_name_row(name, layer))
    return "\n".join(lines)


def _name_row(name: str, layer: str) -> str:
    # mkdocs-autorefs finds the page by the name that the object was defined under.
    public = getattr(import_module(layer), name)
    first = plain(first_words(inspect.getdoc(public) or ""))
    link = f"[`{name}`][{public.__module__}.{public.__qualname__}]"
    return f"| {link} | {first} | `{layer.removeprefix('cingulum.')}` |"


def first_words(doc: str) -> str:
    """The docstring's lines up to the first that ends a sentence."""
    lines: list[str] = []
    for line in doc.split("\n"):
        lines.append(line)
        if line.endswith((".", ":", ";", ")")):
            break
    return " ".join(lines).strip()


CONTENTS = {
    "settings": settings,
    "commands": commands,
    "names": names,
    "studies": study_file,
}
"""What replaces `<!-- name -->` in a page."""
