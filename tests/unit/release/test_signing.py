"""Signatures: which ones count, and where the passphrase comes from."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from hyraxvm.core.errors import UserError
from hyraxvm.release import signing
from tests.unit.release.gpgkeys import gpg, keyring, make_key

EMPTY = ("--pinentry-mode", "loopback", "--passphrase", "")


def signed_then(path: Path, key: str, when: str) -> bytes:
    """Sign a file at another time than now; return the public key."""
    path.write_text("x")
    options = ("--faked-system-time", when, "--yes", "--armor", "--local-user", key)
    gpg(*EMPTY, *options, "--output", f"{path}.asc", "--detach-sign", str(path))
    return exported(key)


def exported(key: str) -> bytes:
    return gpg("--armor", "--export", key).encode()


def refused(path: Path, public: bytes, key: str) -> str:
    with pytest.raises(UserError) as caught:
        signing.verify(path, path.with_name(f"{path.name}.asc"), public, key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def revoke(key: str) -> None:
    """Do as docs/maintainer-guide.md says."""
    home = os.environ["GNUPGHOME"]
    text = Path(home, "openpgp-revocs.d", f"{key}.rev").read_text().replace(":-----", "-----")
    Path(home, "revoke.asc").write_text(text)
    gpg("--import", f"{home}/revoke.asc")


# A key of one year, made in 2020: tests cannot wait for a key to expire.
THEN = ("--faked-system-time", "20200101T000000")


def test_an_expired_key_does_not_count_until_it_is_prolonged(tmp_path: Path) -> None:
    key = make_key("Old <old@example.org>", *THEN, expires="1y")
    path = tmp_path / "SHA256SUMS"
    public = signed_then(path, key, "20200201T000000")
    said = refused(path, public, key)
    assert said.startswith(
        f"SHA256SUMS: it is as key {key} signed it, but that key has expired on 2020-12-31; set "
        "this computer's clock, which says 20"
    )
    assert said.endswith("if it is wrong, else ask the maintainers to prolong the key")
    prolong = f"gpg --quick-set-expire {key} 3y"
    with pytest.raises(
        UserError, match=f"has expired on 2020-12-31; to prolong it, type: {prolong}"
    ):
        signing.public_key(key)
    with pytest.raises(UserError, match="gpg cannot sign with key"):
        signing.sign(path, key)
    gpg(*EMPTY, *prolong.split()[1:])
    # What was signed before counts again, and what is signed now.
    beside = tmp_path / "SHA256SUMS.asc"
    signing.verify(path, beside, signing.public_key(key), key)
    signing.verify(path, signing.sign(path, key), signing.public_key(key), key)


def test_a_key_of_the_future_is_a_wrong_clock(tmp_path: Path) -> None:
    key = make_key("New <new@example.org>", "--faked-system-time", "20400101T000000")
    path = tmp_path / "SHA256SUMS"
    said = refused(path, signed_then(path, key, "20400201T000000"), key)
    # gpg 2.2 does not import such a key, gpg 2.4 does, and does not check its signature.
    assert re.search("(its key was made on 2040-01-01|was signed on 2040-02-01), which is in", said)
    assert "the future; set this computer's clock, which says 20" in said
    assert "do not use" not in said


def test_a_signature_of_the_future_by_a_key_of_now_counts(tmp_path: Path) -> None:
    """A clock that is behind by some hours is no reason to refuse a file."""
    key = make_key("Now <today@example.org>")
    path = tmp_path / "SHA256SUMS"
    public = signed_then(path, key, "20400201T000000")
    signing.verify(path, tmp_path / "SHA256SUMS.asc", public, key)


def test_a_revoked_key_does_not_count(tmp_path: Path) -> None:
    key = make_key("Lost <lost@example.org>")
    path = tmp_path / "SHA256SUMS"
    path.write_text("x")
    signing.sign(path, key)
    before = exported(key)
    signing.verify(path, tmp_path / "SHA256SUMS.asc", before, key)
    revoke(key)
    said = refused(path, exported(key), key)
    assert f"key {key} signed it, but was revoked by its owners; do not use these files" in said
    assert said.endswith("and ask the maintainers for their new key")
    with pytest.raises(UserError, match="was revoked; replace it as docs/main"):
        signing.public_key(key)


def test_a_replaced_key_and_a_changed_file_are_told_apart(tmp_path: Path) -> None:
    key, newer = (make_key(f"{name} <{name}@example.org>") for name in ("Before", "After"))
    path = tmp_path / "SHA256SUMS"
    path.write_text("x")
    signing.sign(path, newer)
    said = refused(path, exported(key), key)
    assert f"its signature is not one of key {key}, but of {newer}; do not use these" in said
    assert "the key beside it is not" in refused(path, exported(newer), key)
    signing.sign(path, key)
    path.write_text("y")
    assert f"is not what key {key} signed: it was changed on its way" in refused(
        path, exported(key), key
    )
    path.with_name("SHA256SUMS.asc").write_text("no signature")
    told = f"SHA256SUMS: its signature is not one of key {key}, but empty or damaged; get it again"
    assert refused(path, exported(key), key) == told


def test_a_gpg_that_is_ended_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its exit status is then a negative number."""
    key = make_key("Kept <kept-on@example.org>")
    program = tmp_path / "gpg"
    program.write_text("#!/bin/sh\necho half a key\nkill -9 $$\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(UserError, match=f"gpg has no public key {key}"):
        signing.public_key(key)


def test_an_expired_subkey_is_told_too(tmp_path: Path) -> None:
    key = make_key("Sub <sub@example.org>", *THEN)
    gpg(*EMPTY, *THEN, "--quick-add-key", key, "ed25519", "sign", "1y")
    path = tmp_path / "SHA256SUMS"
    public = signed_then(path, key, "20200201T000000")
    assert "that key has expired on 2020-12-31" in refused(path, public, key)


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
