"""What commands share: a parser that takes options on either side of the positionals,
and options of datasets and workers."""

from __future__ import annotations

import argparse
import copy
import difflib
from collections.abc import Iterator, Sequence
from itertools import chain, groupby, islice, product, takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cingulum.errors import InputError

if TYPE_CHECKING:
    from cingulum.parallel import Executor

Commands = Any
"""What argparse's `add_subparsers` gives."""


class _Usage(Exception):
    """Wrong usage, on one way of reading the arguments."""


class Parser(argparse.ArgumentParser):
    """argparse, but a list option before the positionals does not swallow them, and a
    typo has a suggestion."""

    _trying = False

    def __init__(self, **given: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **given})

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:  # type: ignore[override]
        args = list(args or [])
        if self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        found, unknown = self._read(args, namespace)
        if unknown:
            self._refuse(unknown)
        return found, unknown

    def _read(self, args: list[str], namespace: Any) -> Any:
        """The arguments as argparse reads them; where that fails, words that a list
        option took are given back to the positionals. If no way of doing so is right,
        argparse tells what was wrong with the first."""
        count = sum(1 for action in self._actions if not action.option_strings)
        plain = self._tried(args, namespace)
        if plain is not None:
            return plain
        wrong = [
            word
            for word in takewhile("--".__ne__, args)
            if word.startswith("--") and not self._knows(word)
        ]
        if wrong:
            self._refuse(wrong)
        for ways in _given_back(args, count):
            found = [
                one
                for one in (self._tried(way, namespace) for way in ways)
                if one is not None and not one[1]
            ]
            if len(found) == 1:
                return found[0]
            if found:
                names = " ".join(
                    str(action.metavar)
                    for action in self._actions
                    if not action.option_strings
                )
                self.error(
                    f"it is not clear which words are {names}: write them together, "
                    "before the options."
                )
        return super().parse_known_args(args, namespace)

    def _tried(self, args: list[str], namespace: Any) -> Any:
        self._trying = True
        try:
            return super().parse_known_args(args, copy.copy(namespace))
        except _Usage:
            return None
        finally:
            self._trying = False

    def _knows(self, word: str) -> bool:
        return word.partition("=")[0] in self._option_string_actions

    def _refuse(self, words: Sequence[str]) -> NoReturn:
        self.error(
            f"unrecognized arguments: {' '.join(words)}{self._nearest(words[0])}"
        )

    def _nearest(self, wrong: str) -> str:
        if not wrong.startswith("-"):
            return ""
        near = difflib.get_close_matches(
            wrong.partition("=")[0], self._option_string_actions, 1
        )
        return f". Did you mean {near[0]}?" if near else ""

    def error(self, message: str) -> NoReturn:
        if self._trying:
            raise _Usage(message)
        super().error(message)


def _given_back(args: Sequence[str], count: int) -> Iterator[list[list[str]]]:
    """`IN --label 01 02 OUT LEVEL …` as `IN OUT LEVEL --label 01 02 …`: every way to
    take the missing ones of `count` positionals off the ends of what options took, and
    put them in front; first those that take them off one option, then off two, and so
    on."""
    heads = list(takewhile(lambda word: not word.startswith("-"), args))
    runs: list[list[str]] = []  # each option with the words after it
    for word in args[len(heads) :]:
        if word.startswith("-"):
            runs.append([])
        runs[-1].append(word)
    lacking = count - len(heads)
    if lacking <= 0:
        return
    ways = islice(
        product(*(range(min(len(run), lacking + 1)) for run in runs)), 100_000
    )
    right = sorted((way for way in ways if sum(way) == lacking), key=_spread)
    for _, alike in groupby(right, key=_spread):
        yield [_rearranged(heads, runs, way) for way in alike]


def _spread(way: Sequence[int]) -> int:
    return sum(map(bool, way))


def _rearranged(
    heads: list[str], runs: list[list[str]], way: Sequence[int]
) -> list[str]:
    kept = [run[: len(run) - taken] for run, taken in zip(runs, way, strict=True)]
    taken = [run[len(run) - taken :] for run, taken in zip(runs, way, strict=True)]
    return [*heads, *chain(*taken), *chain(*kept)]


def command(
    commands: Commands, name: str, line: str, text: str, example: str
) -> argparse.ArgumentParser:
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
    made.add_argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without sub-",
    )
    made.add_argument(
        "--session-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without ses-",
    )
    made.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="which of several files: JSON "
        'such as {"bold": {"task": "rest", "run": 1}}',
    )
    made.add_argument(
        "-d",
        "--derivatives",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="further derivative datasets, beside those below derivatives/",
    )


def executor_options(made: argparse.ArgumentParser) -> None:
    made.add_argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="processes (default: one a core), or SLURM jobs (default: 1)",
    )
    made.add_argument(
        "--mem",
        type=float,
        metavar="GB",
        help="memory that all processes here may take together",
    )
    made.add_argument(
        "--cluster",
        default="",
        metavar="WHERE",
        help="a Dask cluster instead of processes: local, "
        "slurm (queue and memory from ~/.config/dask/jobqueue.yaml) or tcp://HOST:PORT "
        "of a running "
        "scheduler",
    )
    made.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where unfinished work is kept (default: "
        "OUT_DIR/work); may be removed when a study is done",
    )


def executor(given: argparse.Namespace) -> Executor:
    from cingulum.parallel import Executor

    return Executor(given.cluster, given.n_jobs, given.mem)


def at_least(value: int, least: int, name: str, why: str) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least} ({why}); came {value}.")
