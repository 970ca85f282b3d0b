"""Self-contained HTML pages: no request to anywhere, only known scripts, every label
escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cingulum.features.registry import model_label
from cingulum.io.files import JsonObject
from cingulum.report.text import SMALLEST_P
from cingulum.report.viewers import Viewer, policy

INLINE = 12
"""Rows of a figure's table that are printed on the page; the whole table can be saved
from there."""

UNKNOWN = "–"
"""What the page prints in place of a number that is missing."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure.

    section: of the page; png: the image
    alt: what it shows, in words; caption: below it
    name: of its files; table: the numbers that it shows
    viewer: for maps, to be sliced with the mouse
    """

    section: str
    png: bytes
    alt: str
    caption: str
    name: str = ""
    table: pd.DataFrame | None = None
    viewer: Viewer | None = None

    @property
    def source(self) -> str:
        """A data URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()

    @property
    def saved(self) -> str:
        """The table as a data URL; empty where there is none."""
        if self.table is None:
            return ""
        # Six digits: the table on the page is for reading, the file has more.
        text = self.table.to_csv(
            sep="\t", index=False, na_rep="n/a", float_format="%.6g"
        )
        encoded = base64.b64encode(text.encode()).decode()
        return f"data:text/tab-separated-values;base64,{encoded}"

    @property
    def rows(self) -> list[list[str]]:
        """The first rows of the table, as they are printed."""
        if self.table is None:
            return []
        first = self.table.head(INLINE)
        return [_cells(row) for row in first.itertuples(index=False)]


def render(template: str, content: JsonObject, pictures: Sequence[Picture] = ()) -> str:
    """A page from its template.

    content: what it prints, in JSON's types, the same as its summary.json; sections
        without numbers are left out
    """
    # The page's security policy names the scripts of its viewers, and no others.
    viewers = [picture.viewer for picture in pictures if picture.viewer]
    page = _template(template)
    return page.render(s=content, pictures=list(pictures), policy=policy(viewers))


def render_prediction(content: JsonObject, png: bytes) -> str:
    """The page of a prediction from a table (see
    `cingulum.pipeline.table_prediction`)."""
    picture = Picture(
        "scores",
        png,
        "Scores of the models. The numbers are in the tables.",
        "Left: what was found, with its interval where it has one. Grey: what "
        "permutations give.",
    )
    page = _template("prediction.html")
    # No viewer, so no script may run at all.
    return page.render(s=content, picture=picture, policy=policy([]))


def _cells(row: Iterable[object]) -> list[str]:
    return [_cell(value) for value in row]


def _cell(value: object) -> str:
    if not isinstance(value, float):
        return str(value)
    if math.isnan(value):
        return UNKNOWN
    return _with_minus(f"{value:.4g}")


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("cingulum.report"),
        # Labels come from other people's files and could hold markup or scripts.
        autoescape=True,
        # A misspelt key is an error instead of an empty place on the page.
        undefined=StrictUndefined,
        # Lines that hold only a tag leave no empty line behind.
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "r": _correlation,
        "points": _points,
        "percent": _percent,
        "p": _p,
        "label": model_label,
    }
    return environment.get_template(name)


def _with_minus(number: str) -> str:
    """A number with a minus sign instead of a hyphen."""
    return number.replace("-", "−")


def _fixed(value: float | None, digits: int) -> str:
    if value is None:
        return UNKNOWN
    return _with_minus(f"{value:.{digits}f}")


def _correlation(value: float | None) -> str:
    return _fixed(value, digits=3)


def _points(value: float | None) -> str:
    return _fixed(value, digits=1)


def _percent(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    return _fixed(100 * value, digits=1)


def _p(value: float) -> str:
    # The smallest p of permutations is never 0.
    if value < SMALLEST_P:
        return "< 0.001"
    return f"{value:.3f}"
