"""The command line. Heavy imports wait until a command runs, so that help is quick."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module

from cingulum import __version__
from cingulum.cli.argument_parser import Parser
from cingulum.errors import ConvergenceError, InputError

COMMANDS = {
    "demo": "the whole story once: real brains, a synthetic cohort, a report",
    "fetch": "download real data",
    "synthesize": "write a synthetic cohort with planted truth",
    "features": "measure every visit of a BIDS dataset: one table of features",
    "run": "analyse a BIDS dataset (BIDS App)",
    "status": "what is done, failed or missing in an output folder, and how to finish",
    "predict": "evaluate a prediction from any table of features",
    "signature": "score new data with published or own weights; export weights",
    "fit": "fit a brain model to one recording",
    "simulate": "write simulated BOLD for given parameters",
}
"""Every command with its line in the help. Its options are in the module of its name,
which has `add_options(parser)` and is imported when the command is typed."""

NOT_COMPLETE, BAD_INPUT, INTERRUPTED, NOBODY_READS = 3, 4, 130, 141

DESCRIPTION = """\
From a patient's recordings to the mechanism and the score: fit whole-brain models to \
fMRI by gradient, and predict clinical pain from BOLD, ASL, heart rate variability and \
the fitted mechanism."""

EXIT_CODES = """\
exit codes: 0 done; 1 unexpected failure (please report it); 2 wrong usage; 3
incomplete: some visits failed, or a computation did not converge; 4 the input cannot
be used (the message says what was expected, what came, what to do); 130 interrupted;
141 nobody reads the output any more"""

INTERRUPTION = (
    "interrupted. What was finished is kept; the same command goes on from there."
)

# The disk is full or read-only, or a quota or permission is lacking: the user's to
# mend.
WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
PERMISSION_ERRORS = (errno.EACCES, errno.EPERM)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    # More threads cost time at these sizes, and processes share the cores. Set before
    # NumPy and torch are imported, which read it once.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    _open_closed_streams()
    words = sys.argv[1:] if arguments is None else arguments
    parsed = parser(_typed_command(words)).parse_args(words)
    try:
        # A command that returns nothing has no failures of its own to report.
        code = parsed.execute(parsed) or 0
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        # As `| head` does it. Python would complain once more while it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NOBODY_READS
    except (InputError, ConvergenceError, OSError, KeyboardInterrupt) as error:
        failure = _failure(error)
        # Not the user's to mend: a fault of ours keeps its traceback.
        if failure is None:
            raise
        return _report(failure)


def _open_closed_streams() -> None:
    """Give a process without standard streams, as schedulers start it, silent ones."""
    # Otherwise the next file that is opened would get the number of the stream, and
    # whatever is printed would be written into it.
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115


@dataclass(frozen=True)
class Failure:
    """What the user reads, and the exit code."""

    message: str
    code: int


def _failure(error: BaseException) -> Failure | None:
    """What an expected error tells the user; None for a fault of ours."""
    if isinstance(error, KeyboardInterrupt):
        return Failure(INTERRUPTION, INTERRUPTED)
    if isinstance(error, OSError):
        return _file_failure(error)
    # Both errors say themselves what to do.
    code = BAD_INPUT if isinstance(error, InputError) else NOT_COMPLETE
    return Failure(str(error), code)


def _file_failure(error: OSError) -> Failure | None:
    if error.errno not in WRITE_ERRORS + PERMISSION_ERRORS:
        return None
    return Failure(_file_error_message(error), BAD_INPUT)


def _file_error_message(error: OSError) -> str:
    """What to do about a file that cannot be written or read."""
    # A full disk is met by writing only; a permission may lack for reading, too.
    verb = "write" if error.errno in WRITE_ERRORS else "read or write"
    return (
        f"cannot {verb} {error.filename or 'the output'} ({error.strerror}). What was "
        "finished is kept: make room or give permission, and the same command goes on "
        "from there."
    )


def _report(failure: Failure) -> int:
    # The output is for results, which may be piped.
    print(f"cingulum: {failure.message}", file=sys.stderr)
    return failure.code


def _typed_command(words: Sequence[str]) -> str:
    """The first word that is no option, or an empty text."""
    # No option before the command takes a value.
    for word in words:
        if not word.startswith("-"):
            return word
    return ""


def parser(command: str | None = None) -> argparse.ArgumentParser:
    """Every command; with its options and an example where it is `command`, or where
    None is named."""
    top = Parser(
        prog="cingulum",
        description=DESCRIPTION,
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"cingulum {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        # All are listed, so that the help and the advice for a typo know them.
        subparser = commands.add_parser(name, help=summary)
        if command in (None, name):
            _add_options(subparser, name)
    return top


def _add_options(subparser: argparse.ArgumentParser, name: str) -> None:
    """Give a command its options. The libraries behind those of all commands would
    take longer to load than an error takes to read."""
    subparser.formatter_class = argparse.RawDescriptionHelpFormatter
    import_module(f"cingulum.cli.{name}").add_options(subparser)
