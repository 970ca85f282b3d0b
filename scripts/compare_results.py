"""Compare the results of two versions of the code, key by key.

    scripts/compare-results OLD NEW [--tolerance 1e-12]

OLD and NEW are folders written by scripts/reference-results. Every JSON file and table
in OLD must be in NEW with the same keys, columns and texts, and with numbers that agree
to the tolerance, relative or absolute. Prints each difference; exits 1 if there is one.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

VARYING = {"seconds", "files", "versions", "Version", "GeneratedBy", "software"}
"""Keys whose values depend on the machine or the version, not on the computation."""

SKIPPED_FOLDERS = {"work", "cohort"}
"""Intermediate results are named by version; the cohort is written by a fixed seed and
is compared through what is measured from it."""


def differences(old: Any, new: Any, where: str, tolerance: float) -> Iterator[str]:
    """Every place at which two JSON values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _dict_differences(old, new, where, tolerance)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (first, second) in enumerate(zip(old, new, strict=True)):
            yield from differences(first, second, f"{where}[{index}]", tolerance)
    elif not equal(old, new, tolerance):
        yield f"{where}: {old!r} became {new!r}"


def _dict_differences(
    old: dict, new: dict, where: str, tolerance: float
) -> Iterator[str]:
    for key in sorted((set(old) | set(new)) - VARYING):
        place = f"{where}/{key}"
        if key not in new:
            yield f"{place}: missing in the new results"
        elif key not in old:
            yield f"{place}: not in the old results"
        else:
            yield from differences(old[key], new[key], place, tolerance)


def equal(old: Any, new: Any, tolerance: float) -> bool:
    """Whether two plain values agree; numbers may differ by the tolerance."""
    # A table has whole numbers as integers or floats, depending on missing values.
    if is_number(old) and is_number(new):
        # NaN stands for a missing value, and does not equal itself.
        if math.isnan(old) and math.isnan(new):
            return True
        return math.isclose(old, new, rel_tol=tolerance, abs_tol=tolerance)
    return type(old) is type(new) and old == new


def is_number(value: Any) -> bool:
    # True and False are numbers in Python.
    return isinstance(value, int | float) and not isinstance(value, bool)


def read(path: Path) -> Any:
    """A JSON file, or a table as columns of values."""
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    # Pandas' default parser is fast, and wrong in the last digit.
    table = pd.read_csv(path, sep="\t", float_precision="round_trip")
    return {name: column.tolist() for name, column in table.items()}


def compared_files(folder: Path) -> list[Path]:
    """JSON files and tables below a folder, relative to it."""
    files = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        is_skipped = SKIPPED_FOLDERS & set(name.parts)
        if name.suffix in {".json", ".tsv"} and not is_skipped:
            files.append(name)
    return files


def file_differences(
    name: Path, old: Path, new: Path, tolerance: float
) -> Iterator[str]:
    """Differences between the files of one name in two folders."""
    if not (new / name).is_file():
        yield f"{name}: missing in the new results"
        return
    yield from differences(read(old / name), read(new / name), str(name), tolerance)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--tolerance", type=float, default=1e-12)
    arguments = parser.parse_args()
    count = 0
    names = compared_files(arguments.old)
    for name in names:
        for line in file_differences(
            name, arguments.old, arguments.new, arguments.tolerance
        ):
            count += 1
            print(line)
    print(f"{len(names)} files compared, {count} differences", file=sys.stderr)
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
