"""Plain docstrings for the site: lines `name: meaning` of arguments and fields become
lists, `Raises …` a paragraph."""

from __future__ import annotations

import re
from typing import Any

import griffe

MEANING = re.compile(r"^((?:`?\w+`?)(?:, `?\w+`?)*): (.+)$")
"""`name: meaning`, or `name, other name: meaning`."""

PARAGRAPHS = ("Raises ", "Returns ", "Warns ")


class PlainDocstrings(griffe.Extension):
    """Works on classes and functions whose docstrings name their own fields or
    arguments."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        _rewrite(cls, set(cls.members))

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _rewrite(func, {parameter.name for parameter in func.parameters})


def _rewrite(documented: griffe.Object, known: set[str]) -> None:
    if documented.docstring:
        documented.docstring.value = listed(documented.docstring.value, known)


def listed(text: str, known: set[str]) -> str:
    """The docstring as Markdown.

    known: names of arguments and fields; other words before a colon are plain text
    """
    lines: list[str] = []
    in_list = False
    for line in text.split("\n"):
        item = _list_item(line, known)
        if item:
            # Markdown wants an empty line before a list.
            if not in_list:
                lines.append("")
            lines.append(item)
            in_list = True
        elif in_list and line.startswith(" "):
            lines.append(f"  {line.strip()}")
        else:
            # So does a paragraph that follows a list, or begins with Raises.
            if line and (in_list or line.startswith(PARAGRAPHS)):
                lines.append("")
            lines.append(line)
            in_list = False
    return "\n".join(lines)


def _list_item(line: str, known: set[str]) -> str | None:
    """`name: meaning` as an item of a list; None for any other line."""
    match = MEANING.match(line)
    if match is None:
        return None
    names = re.findall(r"\w+", match[1])
    if known.isdisjoint(names):
        return None
    quoted = [f"`{name}`" for name in names]
    return f"- {', '.join(quoted)}: {match[2]}"
