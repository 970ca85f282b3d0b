"""What commands share: a parser that takes options on either side of the positionals, and options of datasets and
workers."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cingulum.errors import InputError

if TYPE_CHECKING:
    from cingulum.parallel import Crew

Commands = Any
"""What argparse's `add_subparsers` gives."""


class _Usage(Exception):
    """Wrong usage, on one way of reading the arguments."""


class Parser(argparse.ArgumentParser):
    """argparse, but a list option before the positionals does not swallow them, and a typo has a suggestion."""

    _trying = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        args = list(args or [])
        if self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        found, unknown = self._read(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}{self._nearest(unknown[0])}")
        return found, unknown

    def _read(self, args: list[str], namespace: Any) -> Any:
        if not args or not args[0].startswith("-"):
            return super().parse_known_args(args, namespace)
        self._trying = True
        try:
            return super().parse_known_args(args, namespace)
        except _Usage:
            self._trying = False
            count = sum(1 for a in self._actions if not a.option_strings)
            return super().parse_known_args(_positionals_first(args, count), namespace)
        finally:
            self._trying = False

    def _nearest(self, wrong: str) -> str:
        near = difflib.get_close_matches(wrong.partition("=")[0], self._option_string_actions, 1)
        return f". Did you mean {near[0]}?" if near else ""

    def error(self, message: str) -> NoReturn:
        if self._trying:
            raise _Usage(message)
        super().error(message)


def _positionals_first(args: list[str], count: int) -> list[str]:
    """`--label 01 02 BIDS OUT LEVEL …` as `BIDS OUT LEVEL --label 01 02 …`: the last `count` words of the first run of
    words that is long enough to hold them beside a value."""
    start = 0
    while start < len(args):
        end = start
        while end < len(args) and not args[end].startswith("-"):
            end += 1
        if end - start > count:
            return [*args[end - count : end], *args[: end - count], *args[end:]]
        start = end + 1
    return args


def command(commands: Commands, name: str, line: str, text: str, example: str) -> argparse.ArgumentParser:
    """A command with its line in the overview, its text and an example."""
    made: argparse.ArgumentParser = commands.add_parser(
        name,
        help=line,
        description=text,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return made


def dataset_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--participant-label", nargs="+", metavar="LABEL", help="only these, with or without sub-")
    made.add_argument("--session-label", nargs="+", metavar="LABEL", help="only these, with or without ses-")
    made.add_argument("--bids-filter-file", type=Path, metavar="FILE", help='which of several files: JSON '
                      'such as {"bold": {"task": "rest", "run": 1}}')  # fmt: skip
    made.add_argument("-d", "--derivatives", type=Path, nargs="+", default=[], metavar="DIR", help="further derivative "
                      "datasets, beside those below derivatives/")  # fmt: skip


def crew_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("--n-jobs", type=int, metavar="N", help="processes (default: one a core), or SLURM jobs "
                      "(default: 1)")  # fmt: skip
    made.add_argument("--mem", type=float, metavar="GB", help="memory that all processes here may take together")
    made.add_argument("--cluster", default="", metavar="WHERE", help="a Dask cluster instead of processes: local, "
                      "slurm (queue and memory from ~/.config/dask/jobqueue.yaml) or tcp://HOST:PORT of a running "
                      "scheduler")  # fmt: skip
    made.add_argument("-w", "--work-dir", type=Path, metavar="DIR", help="where unfinished work is kept (default: "
                      "OUT_DIR/work); may be removed when a study is done")  # fmt: skip


def crew(given: argparse.Namespace) -> Crew:
    from cingulum.parallel import Crew

    return Crew(given.cluster, given.n_jobs, given.mem)


def at_least(value: int, least: int, name: str, why: str) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least} ({why}); came {value}.")
