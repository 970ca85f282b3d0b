"""What a report cites: entries of data/references.bib, as BibTeX beside the page and as
a numbered list on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from cingulum.features import FEATURES
from cingulum.report.results import StudyResults

# The file is ours and regular, so two patterns read it; a parser of all of BibTeX would
# be another dependency.
ENTRY = re.compile(r"@(\w+)\{(\w+),\n(.*?)\n\}\n", re.DOTALL)
FIELD = re.compile(r"^  (\w+) = \{(.*)\},?$", re.MULTILINE)

PREPROCESSING = {"fmriprep": "esteban2019", "aslprep": "adebimpe2022"}
"""What to cite for a pipeline whose name contains this."""

BRAIN_MODEL = ("deco2014", "friston2003", "kingma2015", "griffiths2022")
GUIDELINES = ("collins2024", "nichols2017")


@dataclass(frozen=True)
class Reference:
    """An entry: its key, its text on the page, its DOI, and its BibTeX."""

    key: str
    text: str
    doi: str
    bibtex: str


@cache
def all_references() -> dict[str, Reference]:
    """Every entry by key."""
    content = (files("cingulum") / "data" / "references.bib").read_text("utf-8")
    return parse_bibtex(content)


def parse_bibtex(content: str) -> dict[str, Reference]:
    """Entries by key, of BibTeX written as in data/references.bib: a field per line,
    its value in braces, a closing brace on a line of its own."""
    references = {}
    for match in ENTRY.finditer(content):
        key = match.group(2)
        entry = dict(FIELD.findall(match.group(3)))
        authors = entry["author"].replace(" and ", "; ")
        title = entry["title"].strip("{}")
        where = entry.get("journal") or entry.get("booktitle", "")
        text = f"{authors} ({entry['year']}). {title}. {where}."
        references[key] = Reference(key, text, entry.get("doi", ""), match.group(0))
    return references


def cited_by_study(results: StudyResults) -> list[str]:
    """Keys of what a study rests on, in the order of its methods."""
    names = list(results.prediction)
    has_fits = results.fit is not None or results.visit_fits is not None
    keys = ["gorgolewski2016", *_pipelines(results.provenance.pipelines)]
    for name in names:
        if name in FEATURES:
            keys += [_key_of(reference) for reference in FEATURES[name].references]
    if has_fits:
        keys += ["abraham2014", *BRAIN_MODEL]
    keys += ["lee2019", "phipson2010"]
    if results.evaluation.stop_after:
        keys.append("besag1991")
    if results.maps:
        keys += ["haufe2014", "benjamini1995"]
    return _each_once([*keys, *GUIDELINES])


def cited_by_models(pipelines: Sequence[str]) -> list[str]:
    """Keys of what a study of fitted brains rests on."""
    keys = ["gorgolewski2016", *_pipelines(pipelines), "abraham2014", *BRAIN_MODEL]
    return _each_once(keys)


def _pipelines(names: Sequence[str]) -> list[str]:
    tools = " ".join(names).lower()
    return [key for tool, key in PREPROCESSING.items() if tool in tools]


def _each_once(keys: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(keys))


def _key_of(reference: str) -> str:
    """The key of a feature's reference, which is a key or a BibTeX entry."""
    if reference.startswith("@"):
        return next(iter(parse_bibtex(reference)))
    return reference


def _known_references() -> dict[str, Reference]:
    """All entries, those that features bring themselves included."""
    references = dict(all_references())
    for feature in FEATURES.values():
        for reference in feature.references:
            if reference.startswith("@"):
                references |= parse_bibtex(reference)
    return references


def bibtex(keys: Sequence[str]) -> str:
    """Entries as a .bib file."""
    known = _known_references()
    return "\n".join(known[key].bibtex for key in keys)


def listed(keys: Sequence[str]) -> list[Reference]:
    """Entries for a page, in order."""
    known = _known_references()
    return [known[key] for key in keys]
