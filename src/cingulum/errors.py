"""The two kinds of trouble a user can be told about: what they gave us, and what we
could not do with it."""


class InputError(ValueError):
    """Something given by the user cannot be used: says what was expected, what came and
    what to do."""


class ConvergenceError(RuntimeError):
    """A computation did not reach a result that may be reported: says where it stopped
    and what to try."""
