"""Self-contained HTML pages: no request to anywhere, only known scripts, every label
escaped."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cingulum.features.registry import model_label
from cingulum.report.viewers import Viewer, policy

INLINE = 12
"""Rows of a figure's table that are printed on the page; the whole table can be saved
from there."""

Content = Mapping[str, Any]
"""What a page prints, in JSON's types: the same as its summary.json."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure.

    section: where it belongs on the page; png: its content
    alt: what it shows in words; caption: below it
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
        rows = self.table.head(INLINE).itertuples(index=False)
        return [[_cell(value) for value in row] for row in rows]


def render(template: str, content: Content, pictures: Sequence[Picture] = ()) -> str:
    """A page from its template.

    content: what it prints; sections without numbers are left out
    """
    viewers = [picture.viewer for picture in pictures if picture.viewer]
    page = _template(template)
    return page.render(s=content, pictures=list(pictures), policy=policy(viewers))


def render_prediction(content: Content, png: bytes) -> str:
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
    return page.render(s=content, picture=picture, policy=policy([]))


def _cell(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return "–" if value != value else _with_minus(f"{value:.4g}")


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("cingulum.report"),
        autoescape=True,
        undefined=StrictUndefined,
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


def _correlation(value: float | None) -> str:
    return "–" if value is None else _with_minus(f"{value:.3f}")


def _points(value: float | None) -> str:
    return "–" if value is None else _with_minus(f"{value:.1f}")


def _percent(value: float | None) -> str:
    return "–" if value is None else _with_minus(f"{100 * value:.1f}")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
