"""The exceptions that end a task without a traceback."""

from __future__ import annotations


class Failure(Exception):
    """A fault that is not the user's: a tool died, a test failed (exit status 1)."""

    status = 1


class UserError(Failure):
    """A mistake that the user can correct (exit status 2).

    The message is one line: what is wrong, where, what is expected, what to type next.
    """

    status = 2


class Overdue(Failure):
    """A program was not done in time."""
