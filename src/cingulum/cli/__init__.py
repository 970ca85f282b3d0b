"""The command line. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence

from cingulum import __version__
from cingulum.cli import (
    demo,
    features,
    fetch,
    fit,
    predict,
    run,
    signature,
    simulate,
    status,
    synthesize,
)
from cingulum.cli.options import Parser
from cingulum.errors import ConvergenceError, InputError

COMMANDS = (
    demo,
    fetch,
    synthesize,
    features,
    run,
    status,
    predict,
    signature,
    fit,
    simulate,
)

CODES = """\
exit codes: 0 done; 1 unexpected failure (please report it); 2 wrong usage; 3
incomplete: some visits failed, or a computation did not converge; 4 the input cannot
be used (the message says what was expected, what came, what to do); 130 interrupted"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # more threads cost time at these sizes, and processes share cores
    given = parser().parse_args(sys.argv[1:] if arguments is None else arguments)
    try:
        return given.run(given) or 0
    except InputError as trouble:
        return _tell(trouble, 4)
    except ConvergenceError as trouble:
        return _tell(trouble, 3)
    except KeyboardInterrupt:
        return _tell(
            "interrupted. What was finished is kept; the same command goes on from "
            "there.",
            130,
        )
    except OSError as trouble:
        if not _cannot_write(trouble):
            raise
        return _tell(
            f"cannot {_way(trouble)} {trouble.filename or 'the output'} "
            f"({trouble.strerror}). What was finished is "
            "kept: make room or give permission, and the same command goes on from "
            "there.",
            4,
        )


def _cannot_write(trouble: OSError) -> bool:
    return trouble.errno in (
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
    )


def _way(trouble: OSError) -> str:
    return (
        "write"
        if trouble.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
        else "read or write"
    )


def _tell(trouble: object, code: int) -> int:
    print(f"cingulum: {trouble}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Every command with its options and an example."""
    top = Parser(
        prog="cingulum",
        description="From a patient's recordings to the mechanism and the score: fit "
        "whole-brain models to fMRI by "
        "gradient, and predict clinical pain from BOLD, ASL, heart rate variability "
        "and the fitted mechanism.",
        epilog=CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cingulum {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add(commands)
    return top
