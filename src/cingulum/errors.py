"""The two errors that a user can do something about: an input that cannot be used, and
a computation that did not succeed."""


class InputError(ValueError):
    """Invalid input. The message says what was expected, what was found and how to fix
    it."""


class ConvergenceError(RuntimeError):
    """A computation did not reach a result that may be reported. The message says where
    it stopped and what to try."""
