"""The two exceptions that end a task without a traceback."""

from __future__ import annotations


class Failure(Exception):
    """Something outside the user's hands went wrong: a tool died, a test failed (exit status 1)."""

    status = 1


class UserError(Failure):
    """A mistake that the user can mend (exit status 2).

    The message is one line: what is wrong, where, what is allowed, what to type next.
    """

    status = 2
