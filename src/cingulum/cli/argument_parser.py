"""A parser whose errors say what to type instead."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Any, NoReturn

REQUIRED = "arguments are required: "
"""What argparse says before the names of missing arguments."""


class Parser(argparse.ArgumentParser):
    """argparse, with advice in its errors: the nearest option or command for one that
    is mistyped, and the right order where an option took the folders after it.

    argparse has no public list of the arguments of a parser; `_actions` and
    `_option_string_actions` are stable in all versions of Python that we support.
    """

    def __init__(self, **settings: Any) -> None:
        # An abbreviation would mean something else once another option is added.
        settings.setdefault("allow_abbrev", False)
        super().__init__(**settings)
        self._words: list[str] = []

    # argparse's own signature is overloaded by the type of the namespace.
    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[Any, list[str]]:
        # Errors are raised deep inside argparse, which does not pass the words on.
        self._words = list(sys.argv[1:] if args is None else args)
        parsed, unknown = super().parse_known_args(self._words, namespace)
        # Otherwise `cingulum` itself would complain, with the usage of no command.
        if unknown and not self._has_commands:
            self._refuse(unknown)
        return parsed, unknown

    def error(self, message: str) -> NoReturn:
        # The value after an unknown option counts as a positional, so that argparse may
        # complain about that one first.
        mistyped = self._unknown_options()
        if mistyped and not self._has_commands:
            self._refuse(mistyped)
        super().error(message + self._advice(message))

    def _advice(self, message: str) -> str:
        if self._has_commands and "invalid choice" in message:
            return self._nearest_command()
        return self._right_order(message)

    @property
    def _has_commands(self) -> bool:
        return self._subparsers is not None

    @property
    def _positional_actions(self) -> list[argparse.Action]:
        return [action for action in self._actions if not action.option_strings]

    def _refuse(self, unknown: Sequence[str]) -> NoReturn:
        words = " ".join(unknown)
        advice = self._nearest_option(unknown[0])
        super().error(f"unrecognized arguments: {words}{advice}")

    def _nearest_option(self, word: str) -> str:
        # A surplus folder or number resembles no option.
        if not word.startswith("-"):
            return ""
        return _did_you_mean(_option_name(word), self._option_string_actions)

    def _unknown_options(self) -> list[str]:
        # What follows a `--` is never an option.
        words = takewhile("--".__ne__, self._words)
        return [word for word in words if self._is_unknown_option(word)]

    def _is_unknown_option(self, word: str) -> bool:
        # A word with a space in it is a value for argparse, even after two dashes.
        if not word.startswith("--") or " " in word:
            return False
        return _option_name(word) not in self._option_string_actions

    def _nearest_command(self) -> str:
        """Advice for a mistyped command: the first word that is no option."""
        for word in self._words:
            if not word.startswith("-"):
                return _did_you_mean(word, self._commands())
        return ""

    def _commands(self) -> Iterator[str]:
        for action in self._positional_actions:
            yield from map(str, action.choices or ())

    def _right_order(self, message: str) -> str:
        """Advice where positionals are missing and an option with any number of values
        may have taken them."""
        greedy = self._last_greedy_option()
        if greedy is None or not self._positional_is_missing(message):
            return ""
        return self._order_advice(greedy)

    def _order_advice(self, greedy: argparse.Action) -> str:
        option = greedy.option_strings[-1]
        names = " ".join(map(self._example, self._positional_actions))
        return (
            f". {option} takes every word that follows: {names} come before the "
            f"options: {self.prog} {names} {option} {_name(greedy)} …"
        )

    def _positional_is_missing(self, message: str) -> bool:
        # Required options are named in the same message.
        missing = message.partition(REQUIRED)[2].split(", ")
        return any(_name(action) in missing for action in self._positional_actions)

    def _last_greedy_option(self) -> argparse.Action | None:
        """The last option on the command line that takes any number of values."""
        for word in reversed(self._words):
            action = self._option_string_actions.get(_option_name(word))
            if action is not None and _is_greedy(action):
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


def _is_greedy(action: argparse.Action) -> bool:
    return action.nargs in ("+", "*")


def _name(action: argparse.Action) -> str:
    """An argument as argparse names it in its errors."""
    return str(action.metavar or action.dest)


def _option_name(word: str) -> str:
    """`--option` of `--option=value`."""
    return word.partition("=")[0]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    similar = difflib.get_close_matches(word, list(known), 1)
    return f". Did you mean {similar[0]}?" if similar else ""
