"""One self-contained HTML page: no script, no request to anywhere, every label escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from cingulum.report.summarise import LABELS


@dataclass(frozen=True)
class Picture:
    """A figure: where it belongs on the page, its PNG, what it shows in words, and its caption."""

    section: str
    png: bytes
    alt: str
    caption: str

    @property
    def source(self) -> str:
        """A data URL."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


def render(summary: dict[str, Any], pictures: Sequence[Picture] = ()) -> str:
    """The page of a summary (see `cingulum.report.summarise`); sections without numbers are left out."""
    return _page("page.html").render(s=summary, pictures=list(pictures))


def render_prediction(summary: dict[str, Any], picture: bytes) -> str:
    """The page of a prediction from a table (see `cingulum.study.predict`)."""
    shown = Picture("scores", picture, "Scores of the models. The numbers are in the tables.", "Left: what was found, "
                    "with its interval where it has one. Grey: what permutations give.")  # fmt: skip
    return _page("prediction.html").render(s=summary, picture=shown)


def _page(template: str) -> Template:
    page = Environment(
        loader=PackageLoader("cingulum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"r": _correlation, "points": _points, "percent": _percent, "p": _p, "label": _label}
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
