"""Signatures: which ones count, and where the passphrase comes from."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.release import signing
from tests.unit.release.gpgkeys import gpg, keyring, make_key


def test_an_expired_key_does_not_count(tmp_path: Path) -> None:
    # The key was made and has expired in the past: a test cannot wait for that.
    expired = make_key(
        "Old <old@example.org>", "--faked-system-time", "20200101T000000", expires="1y"
    )
    path = tmp_path / "SHA256SUMS"
    path.write_text("x")
    signing_then = ["--faked-system-time", "20200201T000000", "--batch", "--yes", "--armor"]
    subprocess.run(
        ["gpg", *signing_then, "--local-user", expired, "--detach-sign", str(path)],
        check=True,
        capture_output=True,
    )
    with pytest.raises(UserError, match="its signature is not one of key"):
        signing.verify(path, tmp_path / "SHA256SUMS.asc", signing.public_key(expired), expired)
    with pytest.raises(UserError, match="gpg cannot sign with key"):
        signing.sign(path, expired)


def test_a_subkey_signs_where_the_primary_key_is_kept_elsewhere(tmp_path: Path) -> None:
    empty = ("--pinentry-mode", "loopback", "--passphrase", "")
    with keyring():
        key = make_key("Off-line <offline@example.org>")
        gpg(*empty, "--quick-add-key", key, "ed25519", "sign", "never")
        secret = tmp_path / "subkeys.asc"
        gpg(*empty, "--armor", "--output", str(secret), "--export-secret-subkeys", key)
    with keyring():
        gpg("--import", str(secret))
        assert "sec#" in gpg("--list-secret-keys", key)  # the secret of the primary key is missing
        path = tmp_path / "SHA256SUMS"
        path.write_text("x")
        signing.verify(path, signing.sign(path, key), signing.public_key(key), key)


def test_a_passphrase_comes_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = tmp_path / "secret"
    made.write_text("correct horse")
    params = tmp_path / "params"
    params.write_text(
        "Key-Type: eddsa\nKey-Curve: ed25519\nKey-Usage: sign\nName-Real: Kept\n"
        "Name-Email: kept@example.org\nPassphrase: correct horse\n%commit\n"
    )
    subprocess.run(["gpg", "--batch", "--gen-key", str(params)], check=True, capture_output=True)
    listed = subprocess.run(
        ["gpg", "--batch", "--with-colons", "--list-keys", "kept@example.org"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    kept = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))
    subprocess.run(["gpgconf", "--kill", "gpg-agent"], check=True)  # it remembers passphrases
    path = tmp_path / "SHA256SUMS"
    path.write_text("x")
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong")
    monkeypatch.setenv(signing.PASSPHRASE_FILE, str(wrong))
    with pytest.raises(UserError, match="gpg cannot sign"):
        signing.sign(path, kept)
    assert not (tmp_path / "SHA256SUMS.asc").exists()
    monkeypatch.setenv(signing.PASSPHRASE_FILE, str(made))
    signing.verify(path, signing.sign(path, kept), signing.public_key(kept), kept)
