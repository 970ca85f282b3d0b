"""What a run would do: how many units, how many of them are done, and how long the rest will take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from cingulum.features import Feature
from cingulum.recordings import Visit
from cingulum.settings import Study
from cingulum.study import ledger
from cingulum.study.conduct import Place, found, planned


def told(study: Study, place: Place, level: str) -> str:
    """The plan in words. Nothing is written, and no recording is read."""
    seen, wanted = found(study, place), planned(study).features
    table = outlined(seen, wanted, place.out)
    people = len({visit.participant for visit in seen})
    lines = [f"{people} participants, {len(seen)} visits; nothing is written by --dry-run.", ""]
    lines += [table.to_string(), "", _time(table, place)]
    if level == "group":
        lines.append(f"then {study.prediction.permutations} permutations, maps and the report")
    return "\n".join(lines)


def outlined(seen: Sequence[Visit], wanted: Mapping[str, Feature], out: Path) -> pd.DataFrame:
    """A row a feature: visits, done, to do, and visits that lack its recordings."""
    rows = {}
    files = {visit.name: ledger.files_of(visit, wanted) for visit in seen}
    for name, feature in wanted.items():
        done = sum(all((Path(out) / file).is_file() for file in files[visit.name][name]) for visit in seen)
        lacking = sum(any(not visit.has(kind) for kind in feature.needs) for visit in seen)
        rows[name] = {"visits": len(seen), "done": done, "to do": len(seen) - done - lacking, "no recording": lacking}
    return pd.DataFrame.from_dict(rows, orient="index")


def _time(table: pd.DataFrame, place: Place) -> str:
    """From what visits took here before; no guess where none was measured."""
    todo = int(table["to do"].max())
    if not todo:
        return "everything is measured already"
    spent = sum(ledger.spent(place.keep).values())
    if not spent:
        return f"{todo} visits to do; how long one takes is known once some were done"
    width = place.crew.workers() if not place.crew.cluster else place.crew.jobs or 1
    minutes = todo * spent / width / 60
    return f"{todo} visits to do, about {minutes:.1f} min by {width} at a time ({spent:.1f} s a visit so far)"
