"""The error for a failed request: an HTTP status and one sentence, never a path of the server."""

from __future__ import annotations

import errno

_MISSING = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL}
_FORBIDDEN = {errno.EACCES, errno.EPERM}
# A file system that fails or hangs; what a library returns may be any other number.
AWAY = {
    errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENODEV,
    errno.EREMOTEIO, errno.ENETDOWN, errno.ENETUNREACH, errno.ENOTCONN, errno.ECONNRESET,
    errno.ECONNABORTED, errno.ECONNREFUSED, errno.EPIPE,
}  # fmt: skip
_OVERLOAD = {errno.EMFILE, errno.ENFILE, errno.ENOMEM}


class RequestError(Exception):
    """A request that cannot be answered: HTTP `status` and a sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        """Take the HTTP status, and a message that must not hold a path of the file system."""
        super().__init__(status, message)
        self.status = status
        self.message = message


def no_such(name: str) -> RequestError:
    """Return the 404 for a URL path."""
    return RequestError(404, f"no such file or directory: {name}")


def damaged(name: str) -> RequestError:
    """Return the error for a file that the libraries refuse."""
    return RequestError(500, f"{name} is damaged or of an unsupported kind")


def too_large(name: str) -> RequestError:
    """Return the error for a file that needs more memory than a reader may have."""
    return RequestError(500, f"{name} is too large: reading it takes more memory than is allowed")


def away(name: str) -> RequestError:
    """Return the error for a file system that fails or hangs."""
    return RequestError(503, f"the file system that holds {name} does not answer: try again later")


def from_oserror(error: OSError, name: str) -> RequestError:
    """Return the answer to a failed system call on the object with the URL path `name`."""
    if error.errno in _MISSING:
        return no_such(name)
    if error.errno in _FORBIDDEN:
        return RequestError(403, f"permission denied: {name}")
    if error.errno in _OVERLOAD:
        return RequestError(503, "the server is short of resources: try again later")
    # EIO, ESTALE, ETIMEDOUT, EHOSTDOWN, ENODEV (a failed automount) ...: the file system's fault.
    return away(name)
