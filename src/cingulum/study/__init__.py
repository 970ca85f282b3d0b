"""One study: a BIDS dataset in; features of every visit, their evaluation and a report out."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cingulum.settings import Study as Study
    from cingulum.settings import read_study as read_study
    from cingulum.study.conduct import Place as Place
    from cingulum.study.conduct import gathered as gathered
    from cingulum.study.conduct import group as group
    from cingulum.study.conduct import take as take
    from cingulum.study.findings import Findings as Findings
    from cingulum.study.gather import Features as Features
    from cingulum.study.measure import Plan as Plan
    from cingulum.study.measure import features as features
    from cingulum.study.publish import evaluated as evaluated
    from cingulum.study.table import write_features as write_features

_WHERE = {
    "Study": "cingulum.settings",
    "read_study": "cingulum.settings",
    "Place": "cingulum.study.conduct",
    "gathered": "cingulum.study.conduct",
    "group": "cingulum.study.conduct",
    "take": "cingulum.study.conduct",
    "Findings": "cingulum.study.findings",
    "Features": "cingulum.study.gather",
    "Plan": "cingulum.study.measure",
    "features": "cingulum.study.measure",
    "evaluated": "cingulum.study.publish",
    "write_features": "cingulum.study.table",
}
"""Imported when first used: `cingulum status` asks for little of this. No word may be the name of a module here, which
would hide it once that module is imported."""


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'cingulum.study' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)
