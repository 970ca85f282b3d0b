"""Self-contained HTML pages: no request to anywhere, only known scripts, every label
escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cingulum.report.guidelines import checklist
from cingulum.report.references import cited, listed
from cingulum.report.summarise import LABELS
from cingulum.report.viewers import Viewer, policy

INLINE = 12
"""Rows of a figure's table that stand on the page; the whole table can be saved from
there."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure: where it belongs on the page, its PNG, what it shows in words, its
    caption, the table of what it shows under a name for files, and, for maps, a
    viewer."""

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
        """The table as a data URL."""
        assert self.table is not None
        content = self.table.to_csv(
            sep="\t", index=False, na_rep="n/a", float_format="%.6g"
        )
        return (
            "data:text/tab-separated-values;base64,"
            + base64.b64encode(content.encode()).decode()
        )

    @property
    def rows(self) -> list[list[str]]:
        """The first rows of the table, as they are shown."""
        assert self.table is not None
        return [
            [_cell(value) for value in row]
            for row in self.table.head(INLINE).itertuples(index=False)
        ]


def render(summary: dict[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """The page of a summary (see `cingulum.report.summarise`); sections without numbers
    are left out."""
    s = {
        **summary,
        "references": listed(cited(summary)),
        "checklist": checklist(summary),
    }
    return _rendered("page.html", s, pictures)


def render_participant(
    summary: dict[str, Any], pictures: Sequence[Picture] = ()
) -> str:
    """The page of one participant (see `cingulum.pipeline.participant_pages`)."""
    return _rendered("participant.html", summary, pictures)


def render_models(summary: dict[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """The page of a study of fitted brains (see `cingulum.pipeline.model_study`)."""
    return _rendered(
        "models.html", {**summary, "references": listed(cited(summary))}, pictures
    )


def render_prediction(summary: dict[str, Any], picture: bytes) -> str:
    """The page of a prediction from a table (see
    `cingulum.pipeline.table_prediction`)."""
    shown = Picture(
        "scores",
        picture,
        "Scores of the models. The numbers are in the tables.",
        "Left: what was found, "
        "with its interval where it has one. Grey: what permutations give.",
    )
    return _page("prediction.html").render(s=summary, picture=shown, policy=policy([]))


def _rendered(
    template: str, summary: dict[str, Any], pictures: Sequence[Picture]
) -> str:
    viewers = [picture.viewer for picture in pictures if picture.viewer]
    return _page(template).render(
        s=summary, pictures=list(pictures), policy=policy(viewers)
    )


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}".replace("-", "−")
    return str(value)


def _page(template: str) -> Template:
    page = Environment(
        loader=PackageLoader("cingulum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {
        "r": _correlation,
        "points": _points,
        "percent": _percent,
        "p": _p,
        "label": _label,
    }
    return page.get_template(template)


def _label(name: str) -> str:
    return LABELS.get(name, name)


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _points(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}".replace("-", "−")


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}".replace("-", "−")


def _p(value: float) -> str:
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
