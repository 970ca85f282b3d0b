"""What commands share: a parser whose errors say what to type instead, and the options
of datasets and of workers."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from cingulum.errors import InputError

# Torch and loky wait until a command runs, so that help comes at once.
if TYPE_CHECKING:
    from cingulum.parallel import Executor

Commands = Any
"""What argparse's `add_subparsers` gives."""


class Parser(argparse.ArgumentParser):
    """argparse, with advice in its errors: the nearest option or command for one that
    is mistyped, and the right order where an option took the folders after it.

    argparse has no public list of the arguments of a parser; `_actions` and
    `_option_string_actions` are stable in all versions of Python that we support.
    """

    def __init__(self, **settings: Any) -> None:
        # An abbreviation would mean something else once another option is added.
        super().__init__(**{"allow_abbrev": False, **settings})
        self._words: list[str] = []

    # argparse's own signature is overloaded by the type of the namespace.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        self._words = list(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(self._words, namespace)
        # Otherwise `cingulum` itself would complain, with the usage of no command.
        if unknown and self._subparsers is None:
            self._refuse(unknown)
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        # The value after an unknown option counts as a positional, so that argparse may
        # complain about that one first.
        mistyped = self._unknown_options()
        if mistyped and self._subparsers is None:
            self._refuse(mistyped)
        if "invalid choice" in message and self._subparsers is not None:
            message += self._nearest_command()
        message += self._right_order(message)
        super().error(message)

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        advice = ""
        if unknown[0].startswith("-"):
            option = _option_name(unknown[0])
            advice = _did_you_mean(option, self._option_string_actions)
        words = " ".join(unknown)
        super().error(f"unrecognized arguments: {words}{advice}")

    def _unknown_options(self) -> list[str]:
        """Words that look like an option, before a `--`. A word with a space in it is a
        value for argparse, even where it begins with dashes."""
        unknown = []
        for word in takewhile("--".__ne__, self._words):
            is_option = word.startswith("--") and " " not in word
            if is_option and _option_name(word) not in self._option_string_actions:
                unknown.append(word)
        return unknown

    def _nearest_command(self) -> str:
        commands = self._positionals_with_choices()
        for word in self._words:
            if not word.startswith("-"):
                return _did_you_mean(word, commands)
        return ""

    def _right_order(self, message: str) -> str:
        """Advice where positionals are missing and an option with any number of values
        may have taken them."""
        positionals = [action for action in self._actions if not action.option_strings]
        missing = message.partition("arguments are required: ")[2].split(", ")
        greedy = self._last_greedy_option()
        if greedy is None or not any(
            _name(action) in missing for action in positionals
        ):
            return ""
        option = greedy.option_strings[-1]
        names = " ".join(self._example(action) for action in positionals)
        return (
            f". {option} takes every word that follows: {names} come before the "
            f"options: {self.prog} {names} {option} {_name(greedy)} …"
        )

    def _last_greedy_option(self) -> argparse.Action | None:
        """The last option on the command line that takes any number of values."""
        for word in reversed(self._words):
            action = self._option_string_actions.get(_option_name(word))
            if action is not None and action.nargs in ("+", "*"):
                return action
        return None

    def _example(self, positional: argparse.Action) -> str:
        """A positional as it may be typed: the user's own word among its choices."""
        if not positional.choices:
            return _name(positional)
        choices = [str(choice) for choice in positional.choices]
        for word in self._words:
            if word in choices:
                return word
        return choices[-1]

    def _positionals_with_choices(self) -> list[str]:
        names: list[str] = []
        for action in self._actions:
            if action.choices and not action.option_strings:
                names.extend(str(choice) for choice in action.choices)
        return names


def _name(action: argparse.Action) -> str:
    """An argument as argparse names it in its errors."""
    return str(action.metavar or action.dest)


def _option_name(word: str) -> str:
    """`--option` of `--option=value`."""
    return word.partition("=")[0]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    similar = difflib.get_close_matches(word, list(known), 1)
    return f". Did you mean {similar[0]}?" if similar else ""


def add_command(
    commands: Commands, name: str, *, summary: str, description: str, example: str
) -> argparse.ArgumentParser:
    """A command with its line in the overview, its description and an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    return parser


def add_dataset_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--participant-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without sub-",
    )
    parser.add_argument(
        "--session-label",
        nargs="+",
        metavar="LABEL",
        help="only these, with or without ses-",
    )
    parser.add_argument(
        "--bids-filter-file",
        type=Path,
        metavar="FILE",
        help="which of several files: JSON "
        'such as {"bold": {"task": "rest", "run": 1}}',
    )
    parser.add_argument(
        "-d",
        "--derivatives",
        type=Path,
        nargs="+",
        default=[],
        metavar="DIR",
        help="further derivative datasets, beside those below derivatives/",
    )


def add_executor_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--n-jobs",
        type=int,
        metavar="N",
        help="processes (default: one a core), or SLURM jobs (default: 1)",
    )
    parser.add_argument(
        "--mem",
        type=float,
        metavar="GB",
        help="memory that all processes here may take together",
    )
    parser.add_argument(
        "--cluster",
        default="",
        metavar="WHERE",
        help="a Dask cluster instead of processes: local, slurm (queue and memory from "
        "~/.config/dask/jobqueue.yaml) or tcp://HOST:PORT of a running scheduler",
    )
    parser.add_argument(
        "-w",
        "--work-dir",
        type=Path,
        metavar="DIR",
        help="where unfinished work is kept (default: OUT_DIR/work); may be removed "
        "when a study is done",
    )


def chosen_executor(arguments: argparse.Namespace) -> Executor:
    """The workers that the options ask for."""
    from cingulum.parallel import Executor

    return Executor(arguments.cluster, arguments.n_jobs, arguments.mem)


def chosen_filters(
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Any]] | None:
    """The content of --bids-filter-file, or nothing where there is none."""
    if not arguments.bids_filter_file:
        return None
    from cingulum.io.visit import read_filters

    return read_filters(arguments.bids_filter_file)


def require_at_least(number: int, minimum: int, name: str, reason: str) -> None:
    """Raises InputError for an option below its minimum."""
    if number < minimum:
        raise InputError(
            f"{name} must be at least {minimum} ({reason}); came {number}."
        )


def print_results(folder: Path) -> None:
    """Where the report and the numbers of a command are."""
    print(f"Report:  {(folder / 'report.html').resolve()}")
    print(f"Numbers: {(folder / 'summary.json').resolve()}")
