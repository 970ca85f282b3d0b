"""Plain docstrings for the site: lines `name: meaning` of arguments and fields become
lists, `Raises …` a paragraph."""

from __future__ import annotations

import re
from typing import Any

import griffe

LINE = re.compile(r"^((?:`?\w+`?)(?:, `?\w+`?)*): (.+)$")


class PlainDocstrings(griffe.Extension):
    """Works on classes and functions whose docstrings name their own fields or
    arguments."""

    def on_class_members(self, *, cls: griffe.Class, **_: Any) -> None:
        _rewrite(cls, set(cls.members))

    def on_function(self, *, func: griffe.Function, **_: Any) -> None:
        _rewrite(func, {one.name for one in func.parameters})


def _rewrite(thing: griffe.Object, known: set[str]) -> None:
    if thing.docstring:
        thing.docstring.value = listed(thing.docstring.value, known)


def listed(text: str, known: set[str]) -> str:
    """The docstring as Markdown."""
    lines: list[str] = []
    inside = False
    for line in text.split("\n"):
        found = LINE.match(line)
        if found and set(re.findall(r"\w+", found[1])) & known:
            lines += [] if inside else [""]
            names = ", ".join(f"`{name}`" for name in re.findall(r"\w+", found[1]))
            lines.append(f"- {names}: {found[2]}")
            inside = True
        elif inside and line.startswith(" "):
            lines.append(f"  {line.strip()}")
        else:
            begins = inside or line.startswith(("Raises ", "Returns ", "Warns "))
            lines += ["", line] if begins and line else [line]
            inside = False
    return "\n".join(lines)
