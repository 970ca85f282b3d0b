"""One self-contained HTML page: no script, no request to anywhere, every label escaped."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

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
    page = Environment(
        loader=PackageLoader("cingulum.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page.filters |= {"r": _correlation, "percent": _percent, "p": _p, "label": _label}
    return page.get_template("page.html").render(s=summary, pictures=list(pictures))


def _label(name: str) -> str:
    return LABELS.get(name, name)


def _correlation(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
