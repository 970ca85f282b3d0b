"""The references of a report: entries of data/references.bib, as BibTeX beside the page
and as a numbered list on it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
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
"""Keys by a part of the name of a pipeline."""

# The mass model, the haemodynamics, the optimiser, and fitting by gradients.
BRAIN_MODEL = ("deco2014", "friston2003", "kingma2015", "griffiths2022")
# TRIPOD+AI and COBIDAS.
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
        doi = entry.get("doi", "")
        references[key] = Reference(key, _text(entry), doi, match.group(0))
    return references


def _text(entry: Mapping[str, str]) -> str:
    """An entry as the page prints it."""
    authors = entry["author"].replace(" and ", "; ")
    # A second pair of braces keeps BibTeX from changing capitals.
    title = entry["title"].strip("{}")
    # Conference papers have a book instead of a journal.
    venue = entry.get("journal") or entry.get("booktitle", "")
    return f"{authors} ({entry['year']}). {title}. {venue}."


def cited_by_study(results: StudyResults) -> list[str]:
    """Keys of the methods that a study uses, in the order of its methods section."""
    keys = [
        # BIDS itself.
        "gorgolewski2016",
        *_pipelines(results.provenance.pipelines),
        *_features(results.prediction),
        *_brain_model(results),
        *_evaluation(results),
        *GUIDELINES,
    ]
    return _each_once(keys)


def _features(names: Iterable[str]) -> list[str]:
    keys = []
    for name in names:
        # A fusion is no feature.
        if name in FEATURES:
            keys += [_key_of(reference) for reference in FEATURES[name].references]
    return keys


def _brain_model(results: StudyResults) -> list[str]:
    if results.fit is None and results.visit_fits is None:
        return []
    return ["abraham2014", *BRAIN_MODEL]


def _evaluation(results: StudyResults) -> list[str]:
    # The paired design, and p-values of permutations that are never 0.
    keys = ["lee2019", "phipson2010"]
    # Sequential permutation tests.
    if results.evaluation.stop_after:
        keys.append("besag1991")
    # Patterns of linear models, and false discovery rates.
    if results.maps:
        keys += ["haufe2014", "benjamini1995"]
    return keys


def cited_by_models(pipelines: Sequence[str]) -> list[str]:
    """Keys of the methods that a study of fitted brains uses."""
    keys = ["gorgolewski2016", *_pipelines(pipelines), "abraham2014", *BRAIN_MODEL]
    return _each_once(keys)


def _pipelines(names: Sequence[str]) -> list[str]:
    # Names come with versions, as "fMRIPrep 23.1.0".
    tools = " ".join(names).lower()
    return [key for tool, key in PREPROCESSING.items() if tool in tools]


def _each_once(keys: Iterable[str]) -> list[str]:
    # Unlike a set, a dictionary keeps the order.
    return list(dict.fromkeys(keys))


def _key_of(reference: str) -> str:
    """The key of a feature's reference, which is a key or a BibTeX entry."""
    if _is_entry(reference):
        return next(iter(parse_bibtex(reference)))
    return reference


def _is_entry(reference: str) -> bool:
    return reference.startswith("@")


def _known_references() -> dict[str, Reference]:
    """All entries, those that features bring themselves included."""
    # A copy: the cached dictionary is shared.
    references = dict(all_references())
    for feature in FEATURES.values():
        # Plugins cannot add to our file, so they declare whole entries.
        for reference in filter(_is_entry, feature.references):
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
