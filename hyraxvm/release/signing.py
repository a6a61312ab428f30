"""Detached OpenPGP signatures with gpg.

A signature counts only if it is good, neither it nor its key is expired or revoked, and the key
has the given fingerprint.  Other keys of a keyring do not count.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from hyraxvm.core.errors import Failure, UserError

PASSPHRASE_FILE: Final = "HYRAX_VM_PASSPHRASE_FILE"  # noqa: S105 - a variable's name
DEADLINE: Final = 120.0  # seconds; a person may be typing a passphrase
_REFUSED: Final = ("EXPSIG", "EXPKEYSIG", "REVKEYSIG", "BADSIG", "ERRSIG")


def sign(path: Path, fingerprint: str) -> Path:
    """Write `<path>.asc`, a detached ASCII-armoured signature; return its path.

    The key signs, or one of its subkeys: the primary key's secret may be kept elsewhere.  gpg's
    agent asks for the passphrase, or gpg reads it from the file that HYRAX_VM_PASSPHRASE_FILE
    names.

    Raises:
        UserError: gpg has no such secret key, or cannot use it.
    """
    target = path.with_name(f"{path.name}.asc")
    work = path.with_name(f".{target.name}")
    options = []
    if secret := os.environ.get(PASSPHRASE_FILE):
        options = ["--pinentry-mode", "loopback", "--passphrase-file", secret]
    done = _gpg(
        *("--batch", "--yes", *options, "--local-user", fingerprint, "--digest-algo"),
        *("SHA512", "--armor", "--output", str(work), "--detach-sign", str(path)),
    )
    if done.returncode != 0:
        work.unlink(missing_ok=True)
        raise UserError(
            f"gpg cannot sign with key {fingerprint}: {_last(done)}; "
            "`gpg --list-secret-keys` shows those that are here"
        )
    work.replace(target)
    return target


def public_key(fingerprint: str) -> bytes:
    """Return the public key, ASCII-armoured; raise `UserError` if gpg does not have it."""
    done = _gpg("--batch", "--armor", "--export-options", "export-minimal", "--export", fingerprint)
    if done.returncode != 0 or not done.stdout:
        raise UserError(f"gpg has no public key {fingerprint}; import it with `gpg --import`")
    return done.stdout


def verify(path: Path, signature: Path, key: bytes, fingerprint: str) -> None:
    """Verify a file's signature by the key with this fingerprint, in a new keyring.

    Raises:
        UserError: `key` has another fingerprint, or the signature is not the key's.
    """
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-gpg-") as home:
        options = (
            "--homedir",
            home,
            "--batch",
            "--no-auto-key-retrieve",
            "--trust-model",
            "always",
        )
        imported = _gpg(*options, "--status-fd", "1", "--import", given=key)
        if not any(line[-1] == fingerprint for line in _status(imported.stdout, "IMPORT_OK")):
            raise UserError(
                f"{signature.name}: the key beside it is not {fingerprint}; do not use these files"
            )
        done = _gpg(*options, "--status-fd", "1", "--verify", str(signature), str(path))
        # gnupg's doc/DETAILS: the last field is the fingerprint of the primary key.
        valid = [line[-1] for line in _status(done.stdout, "VALIDSIG")]
        if done.returncode != 0 or fingerprint not in valid or _status(done.stdout, *_REFUSED):
            raise UserError(
                f"{path.name}: its signature is not one of key {fingerprint}: {_last(done)}; "
                "do not use these files"
            )


def _gpg(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(
            ["gpg", "--no-tty", *arguments],
            input=given,
            capture_output=True,
            check=False,
            timeout=DEADLINE,
            env={**os.environ, "LC_ALL": "C.UTF-8"},
        )
    except OSError as error:
        raise Failure(f"gpg: cannot be started ({error.strerror})") from error
    except subprocess.TimeoutExpired:
        raise Failure(f"gpg: not done after {DEADLINE:.0f} s") from None


def _status(output: bytes, *keywords: str) -> list[list[str]]:
    """Return the status lines that have one of these keywords, as words."""
    lines = (line.split() for line in output.decode("utf-8", "replace").splitlines())
    return [line for line in lines if line[:1] == ["[GNUPG:]"] and line[1:2][0] in keywords]


def _last(done: subprocess.CompletedProcess[bytes]) -> str:
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].removeprefix("gpg: ") if lines else f"exit status {done.returncode}"
