"""Keys that sign releases, in a keyring for the tests."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


def gpg(*words: str) -> str:
    done = subprocess.run(
        ["gpg", "--batch", *words], capture_output=True, text=True, check=True, env=os.environ
    )
    return done.stdout


@contextlib.contextmanager
def keyring() -> Iterator[str]:
    """Make a home directory of gpg; the weak protection of its secret keys saves time."""
    # Not in pytest's folder: the path of the agent's socket may have at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home, "gpg-agent.conf").write_text("s2k-count 65536\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", home)
            yield home
            subprocess.run(["gpgconf", "--kill", "all"], check=True)


def make_key(name: str, *options: str, expires: str = "never", passphrase: str = "") -> str:
    """Make a key that can sign; return its fingerprint."""
    secret = ("--pinentry-mode", "loopback", "--passphrase", passphrase)
    gpg(*secret, *options, "--quick-gen-key", name, "ed25519", "sign", expires)
    listed = gpg("--with-colons", "--list-keys", f"={name}")
    found = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
    assert found
    return found[1]
