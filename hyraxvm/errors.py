"""The one exception that a user's mistake raises."""

from __future__ import annotations


class UserError(Exception):
    """A mistake that the user can mend.

    The message is one line: what is wrong, where, what is allowed, what to type next.  Tasks print
    it without a traceback and exit with status 2.
    """
