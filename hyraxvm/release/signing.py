"""Detached OpenPGP signatures with gpg.

A signature counts only if it is good, neither it nor its key is expired or revoked, and the key
has the given fingerprint.  Other keys of a keyring do not count.
"""

from __future__ import annotations

import itertools
import os
import subprocess
import tempfile
import time
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


def sign_text(data: bytes, fingerprint: str) -> str:
    """Return the detached ASCII-armoured signature of a text; see `sign`."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-gpg-") as work:
        path = Path(work, "text")
        path.write_bytes(data)
        return sign(path, fingerprint).read_text()


def public_key(fingerprint: str) -> bytes:
    """Return the public key, ASCII-armoured, for those who check what it signs.

    Raises `UserError`: gpg does not have it, or readers would refuse it: it has expired, or was
    revoked.
    """
    done = _gpg("--batch", "--armor", "--export-options", "export-minimal", "--export", fingerprint)
    if done.returncode != 0 or not done.stdout:
        raise UserError(f"gpg has no public key {fingerprint}; import it with `gpg --import`")
    listed = _gpg("--batch", "--with-colons", "--list-keys", fingerprint).stdout.decode()
    # gnupg's doc/DETAILS: field 2 is the validity, field 7 is when the key expires.
    fields = next(line.split(":") for line in listed.splitlines() if line.startswith("pub:"))
    if fields[1] == "r":
        raise UserError(
            f"key {fingerprint} was revoked; replace it as docs/maintainer-guide.md says"
        )
    if fields[1] == "e":
        raise UserError(
            f"key {fingerprint} has expired on {_day(fields[6])}; to prolong it, type: "
            f"gpg --quick-set-expire {fingerprint} 3y"
        )
    return done.stdout


def fingerprints(keys: bytes) -> list[str]:
    """Return the fingerprints of the primary keys in a file of public keys."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-gpg-") as home:
        done = _gpg("--homedir", home, "--batch", "--with-colons", "--show-keys", given=keys)
    lines = [line.split(":") for line in done.stdout.decode("utf-8", "replace").splitlines()]
    return [
        following[9]
        for line, following in itertools.pairwise(lines)
        if (line[0], following[0]) == ("pub", "fpr")
    ]


def verify(path: Path, signature: Path, key: bytes, fingerprint: str) -> None:
    """Verify a file's signature by the key with this fingerprint, in a new keyring.

    Raises `UserError`, which says what to do: `key` has another fingerprint, has expired, was
    revoked or is from the future; or the signature is not the key's.
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
            raise UserError(f"{signature.name}: {_no_key(key, home, fingerprint)}")
        done = _gpg(*options, "--status-fd", "1", "--verify", str(signature), str(path))
    # gnupg's doc/DETAILS: the last field is the fingerprint of the primary key.
    valid = [line[-1] for line in _status(done.stdout, "VALIDSIG")]
    if done.returncode != 0 or fingerprint not in valid or _status(done.stdout, *_REFUSED):
        raise UserError(f"{path.name}: {_fault(done, fingerprint)}")


def verify_text(data: bytes, signature: str, key: bytes, fingerprint: str, name: str) -> None:
    """Verify the signature of a text; `name` is its name in messages; see `verify`."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-gpg-") as work:
        path, beside = Path(work, name), Path(work, f"{name}.asc")
        path.write_bytes(data)
        beside.write_text(signature)
        verify(path, beside, key, fingerprint)


def _fault(done: subprocess.CompletedProcess[bytes], fingerprint: str) -> str:
    """Return why a signature does not count, and what to do."""
    said = {line[1]: line[2:] for line in _status(done.stdout, *_REFUSED, "KEYEXPIRED", "VALIDSIG")}
    clock = _clock()
    if "REVKEYSIG" in said:
        return (
            f"key {fingerprint} signed it, but was revoked by its owners; do not use these files, "
            "and ask the maintainers for their new key"
        )
    if "EXPKEYSIG" in said:
        return (
            f"it is as key {fingerprint} signed it, but that key has expired on "
            f"{_day(said.get('KEYEXPIRED', [''])[0])}; set {clock}, if it is wrong, else ask the "
            "maintainers to prolong the key"
        )
    if "EXPSIG" in said:
        return f"its signature has expired; set {clock}, if it is wrong, else get a newer release"
    if "BADSIG" in said:
        return (
            f"is not what key {fingerprint} signed: it was changed on its way, or by others; try "
            "again, and do not use these files if this stays so"
        )
    # Fields of ERRSIG: key, algorithms, class, time, reason (9: no such key), fingerprint.
    error = said.get("ERRSIG", [])
    if len(error) > 5 and error[5] == "9":
        signer = error[6] if len(error) > 6 and len(error[6]) == 40 else error[0]
        return (
            f"its signature is not one of key {fingerprint}, but of {signer}; do not use these "
            "files unless the maintainers say that this key is theirs"
        )
    if len(error) > 4 and error[4].isdigit() and int(error[4]) > time.time():
        return f"was signed on {_day(error[4])}, which is in the future; set {clock}"
    if _status(done.stdout, "NODATA"):
        return f"its signature is not one of key {fingerprint}, but empty or damaged; get it again"
    return f"its signature is not one of key {fingerprint}: {_last(done)}; do not use these files"


def _no_key(key: bytes, home: str, fingerprint: str) -> str:
    """Return why gpg did not import the key with this fingerprint, and what to do."""
    done = _gpg("--homedir", home, "--batch", "--with-colons", "--show-keys", given=key)
    lines = [line.split(":") for line in done.stdout.decode("utf-8", "replace").splitlines()]
    # gnupg's doc/DETAILS: field 6 is when the key was made; its fingerprint is in the next line.
    for line, following in itertools.pairwise(lines):
        if line[0] == "pub" and fingerprint in following and int(line[5]) > time.time():
            return f"its key was made on {_day(line[5])}, which is in the future; set {_clock()}"
    return f"the key beside it is not {fingerprint}; do not use these files"


def _clock() -> str:
    return f"this computer's clock, which says {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC"


def _day(seconds: str) -> str:
    """Return the date of a time in seconds since 1970, as gpg writes it."""
    known = seconds.isascii() and seconds.isdigit() and len(seconds) < 12
    return time.strftime("%Y-%m-%d", time.gmtime(int(seconds))) if known else "an unknown day"


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
