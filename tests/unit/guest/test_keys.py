"""hyrax-setup ssh-key: which keys it accepts or refuses, and how it changes the file."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest

FILE = "home/opendap/.ssh/authorized_keys"


@pytest.fixture
def home(guest: Guest) -> Guest:
    (guest.root / "home/opendap").mkdir(parents=True)
    return guest


def make_key(folder: Path, kind: str = "ed25519", comment: str = "me@pc") -> tuple[str, Path]:
    """Make a key pair; return the public key and its file."""
    path = folder / f"id_{kind}_{comment}"
    command: list[str | Path] = [
        "ssh-keygen",
        "-q",
        "-t",
        kind,
        "-N",
        "",
        "-C",
        comment,
        "-f",
        path,
    ]
    subprocess.run(command, check=True)
    public = path.with_name(f"{path.name}.pub")
    return public.read_text().strip(), public


def ssh_key(guest: Guest, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-setup", "ssh-key", *arguments, stdin=stdin)


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_each_way_to_add_a_key(home: Guest, tmp_path: Path, kind: str) -> None:
    key, path = make_key(tmp_path, kind)
    for arguments, stdin in (([key], None), ([str(path)], None), (["-"], f"{key}\r\n"), ([], key)):
        (home.root / FILE).unlink(missing_ok=True)
        status, out, err = ssh_key(home, "add", *arguments, stdin=stdin)
        assert (status, err) == (0, "")
        assert out.startswith("this key may log in now: SHA256:")
        assert home.read(FILE) == f"{key}\n"
        assert stat.S_IMODE((home.root / FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE((home.root / FILE).parent.stat().st_mode) == 0o700
    # OpenSSH's tools can read the file.
    listed = subprocess.run(["ssh-keygen", "-lf", home.root / FILE], capture_output=True, text=True)
    print_of = listed.stdout.split()[1]
    assert print_of in out
    assert ssh_key(home, "add", key)[:2] == (0, f"this key may log in already: {print_of}\n")
    assert home.read(FILE) == f"{key}\n"


def test_list_and_remove_by_number_and_fingerprint(home: Guest, tmp_path: Path) -> None:
    keys = [make_key(tmp_path, comment=name)[0] for name in ("one", "two", "three")]
    # As an administrator may have edited it: a comment, options, no newline at the end.
    home.write(FILE, f"# mine\n{keys[0]}\nno-pty {keys[1]}")
    assert ssh_key(home, "add", keys[2])[0] == 0
    rows = ssh_key(home, "list")[1].splitlines()
    assert [row.split()[0] for row in rows] == ["1", "2", "3"]
    assert [row.split()[2] for row in rows] == ["one", "two", "three"]
    assert ssh_key(home, "remove", rows[1].split()[1])[0] == 0
    assert home.read(FILE) == f"# mine\n{keys[0]}\n{keys[2]}\n"
    assert ssh_key(home, "remove", "1")[0] == 0
    assert home.read(FILE) == f"# mine\n{keys[2]}\n"


def test_no_keys(home: Guest) -> None:
    status, out, err = ssh_key(home, "list")
    assert (status, out) == (0, "")
    assert "no keys yet; add one with: hyrax-setup ssh-key add" in err


def test_check_changes_nothing(home: Guest, tmp_path: Path) -> None:
    key, _ = make_key(tmp_path)
    assert ssh_key(home, "add", "-", "--check", stdin=key) == (0, "", "")
    assert ssh_key(home, "add", "--check", key) == (0, "", "")
    assert ssh_key(home, "add", "-", "--check", stdin="nonsense")[0] == 2
    assert not (home.root / FILE).exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda key: "", "there is no key"),
        (lambda key: "hello", "'hello' is neither a type of key"),
        (lambda key: key[:40], "this ssh-ed25519 key is damaged; copy the whole line"),
        (lambda key: key.replace("ssh-ed25519 ", "ssh-rsa "), "this ssh-rsa key is damaged"),
        (lambda key: f'command="rm -rf /" {key}', "options before the key are not accepted"),
        (lambda key: f"no-pty {key}", "options before the key are not accepted"),
        (lambda key: f"{key}\n{key}", "a key must be one line"),
        (lambda key: f"{key}\x1b[2J", "a key must be one line of plain characters"),
        (lambda key: "ssh-dss AAAAB3NzaC1kc3MAAACB me", "'ssh-dss' is neither a type of key"),
        (
            lambda key: "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1r\n",
            "this is a private key",
        ),
    ],
)
def test_what_is_no_public_key_is_refused_in_one_line(
    home: Guest, tmp_path: Path, change: Callable[[str], str], said: str
) -> None:
    key, _ = make_key(tmp_path)
    status, out, err = ssh_key(home, "add", "-", stdin=change(key))
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert not (home.root / FILE).exists()


def test_a_private_key_in_a_file_is_refused(home: Guest, tmp_path: Path) -> None:
    _, public = make_key(tmp_path)
    status, out, err = ssh_key(home, "add", str(public.with_suffix("")))
    assert (status, out) == (2, "")
    assert "this is a private key" in err
    assert "BEGIN" not in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "'' is not a command of ssh-key (add, list, remove)"),
        (["take"], "'take' is not a command of ssh-key"),
        (["add", "a", "b"], "takes one key, in quotes"),
        (["list", "a"], "takes nothing after it"),
        (["remove"], "takes a number or a fingerprint"),
        (
            ["remove", "7"],
            "no key has the number or fingerprint '7'; see: hyrax-setup ssh-key list",
        ),
    ],
)
def test_users_mistakes(home: Guest, arguments: list[str], said: str) -> None:
    status, out, err = ssh_key(home, *arguments)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
