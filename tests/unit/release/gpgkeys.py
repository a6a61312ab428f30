"""Keys that sign releases, in a keyring of their own."""

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
    """A home of gpg's; what protects its secret keys is made in no time."""
    # Not pytest's folder: the path of the agent's socket may have 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="gpg-") as home:
        Path(home, "gpg-agent.conf").write_text("s2k-count 65536\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("GNUPGHOME", home)
            yield home
            subprocess.run(["gpgconf", "--kill", "all"], check=True)


def make_key(name: str, *options: str, expires: str = "never", passphrase: str = "") -> str:
    """Make a key that signs; returns its fingerprint."""
    secret = ("--pinentry-mode", "loopback", "--passphrase", passphrase)
    gpg(*secret, *options, "--quick-gen-key", name, "ed25519", "sign", expires)
    listed = gpg("--with-colons", "--list-keys", f"={name}")
    found = re.search(r"^fpr:+([0-9A-F]{40}):", listed, re.MULTILINE)
    assert found
    return found[1]
