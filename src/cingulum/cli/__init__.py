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
from cingulum.cli.argument_parser import Parser
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
"""Modules with `add_parser` and `execute`, in the order of the help."""

NOT_COMPLETE, BAD_INPUT, INTERRUPTED = 3, 4, 130

EXIT_CODES = """\
exit codes: 0 done; 1 unexpected failure (please report it); 2 wrong usage; 3
incomplete: some visits failed, or a computation did not converge; 4 the input cannot
be used (the message says what was expected, what came, what to do); 130 interrupted"""

INTERRUPTION = (
    "interrupted. What was finished is kept; the same command goes on from there."
)

# The disk is full or read-only, or a quota or permission is lacking: the user's to
# mend. Every other OSError is a fault of ours and keeps its traceback.
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
PERMISSION_ERRORS = (errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # More threads cost time at these sizes, and processes share the cores. Set before
    # NumPy and torch are imported, which read it once.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    words = sys.argv[1:] if arguments is None else arguments
    parsed = parser().parse_args(words)
    try:
        # A command that returns nothing has no failures of its own to report.
        return parsed.execute(parsed) or 0
    except InputError as error:
        return _report(str(error), BAD_INPUT)
    except ConvergenceError as error:
        return _report(str(error), NOT_COMPLETE)
    except KeyboardInterrupt:
        return _report(INTERRUPTION, INTERRUPTED)
    except OSError as error:
        if error.errno not in WRITE_ERRORS + PERMISSION_ERRORS:
            raise
        return _report(_file_trouble(error), BAD_INPUT)


def _file_trouble(error: OSError) -> str:
    """What to do about a file that cannot be written or read."""
    # A full disk is met by writing only; a permission may lack for reading, too.
    verb = "write" if error.errno in WRITE_ERRORS else "read or write"
    return (
        f"cannot {verb} {error.filename or 'the output'} ({error.strerror}). What was "
        "finished is kept: make room or give permission, and the same command goes on "
        "from there."
    )


def _report(message: str, code: int) -> int:
    # The output is for results, which may be piped.
    print(f"cingulum: {message}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Every command with its options and an example."""
    top = Parser(
        prog="cingulum",
        description="From a patient's recordings to the mechanism and the score: fit "
        "whole-brain models to fMRI by "
        "gradient, and predict clinical pain from BOLD, ASL, heart rate variability "
        "and the fitted mechanism.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cingulum {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return top
