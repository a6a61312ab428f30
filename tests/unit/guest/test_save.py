"""hyrax-setup save: all that was set on a machine, as a file that makes another one the same."""

from __future__ import annotations

import stat
import subprocess
import tomllib
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest, Pattern, edit
from tests.unit.guest.test_settings import HASH, KEY, NET

PASSWORD = 'p"a\\s s#\u00e9'
USERS = f"me:{HASH}\nyou:$apr1$abcdefgh$0123456789012345678901\n"


def machine(path: Path, pattern: Pattern, access: str) -> Guest:
    """Return a machine as shipped, early in its boot."""
    guest = Guest(path, pattern)
    guest.pretend_access(access)
    # Rounds against who guesses the passphrase; the number is in each file.
    edit(guest.root / "usr/lib/hyrax-vm/setup-save.sh", "-iter 600000 ", "-iter 600 ")
    for name, body in NET.items():
        guest.stand_in(name, body)
    guest.answer_for("systemd-networkd*|*is-active*front-door", "inactive")
    guest.stand_in("nginx", "")
    # chpasswd writes where the next `save` reads.
    guest.stand_in("chpasswd", 'sed "s/$/:20000::::::/" >"$HYRAX_ROOT/etc/shadow"')
    guest.write("usr/lib/hyrax/settings", "EMAIL .* a.service b\nUSAGE_PAGE (yes|no) a.service b\n")
    guest.write("usr/lib/hyrax/front-door", "data_under=data/\n")
    guest.write("home/opendap/.keep", "")
    guest.write("usr/share/keymaps/i386/qwertz/fr_CH.kmap.gz", "")
    (guest.root / "sys/class/net/eth0/device").mkdir()
    return guest


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for dap.example.org; its key is in the same file."""
    pem = tmp_path / "own.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -noenc -days 9"
    names = ["-subj", "/CN=dap", "-addext", "subjectAltName=DNS:dap.example.org"]
    subprocess.run(
        [*command.split(), *names, "-keyout", pem, "-out", tmp_path / "crt"],
        check=True,
        capture_output=True,
    )
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    return pem


def set_up(guest: Guest, access: str) -> None:
    """Set by commands what can be set."""
    commands = [
        ("hyrax-network", "hostname", "dap1.example.org"),
        ("hyrax-network", "static", "192.0.2.10/24", "--gateway=192.0.2.1", "--dns=192.0.2.2"),
        ("hyrax-server", "set", "usage-page", "yes"),
        ("hyrax-server", "set", "email", "a\\b@example.org"),
        ("hyrax-setup", "ssh-key", "add", KEY),
        ("hyrax-setup", "keyboard", "fr_CH"),
        ("hyrax-setup", "timezone", "America/Argentina/Ushuaia"),
        ("hyrax-setup", "ntp", "ntp.example.org,192.0.2.1"),
        ("hyrax-setup", "upgrades", "off", "--restart=03:30"),
    ]
    for command in commands:
        status, _, err = guest.run(f"usr/bin/{command[0]}", *command[1:])
        assert status == 0, err
    if access == "smb":
        guest.write("password", f"{PASSWORD}\n")
        for name, user in (("open", ""), ("closed", "SHIP\\me")):
            more = [f"--user={user}", f"--password-file={guest.root}/password"] if user else []
            url = f"smb://127.0.0.20/s%20t/{name}"
            status, _, err = guest.data("add", url, "--later", "--options=cache=none", *more)
            assert status == 0, err
    else:
        assert (
            guest.data("add", "nfs://127.0.0.20/export/a", "--later", "--nfs-version=4.1")[0] == 0
        )
        assert guest.data("add", "nfs://[::1]/export/b", "--later", "--as=b-2")[0] == 0


def save(guest: Guest, *options: str, stdin: str = "") -> tuple[str, str]:
    """Return the file and what was said about it."""
    path = guest.root / "tmp/saved.toml"
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    status, out, err = guest.run("usr/bin/hyrax-setup", "save", str(path), *options, stdin=stdin)
    assert status == 0, err
    assert out == f"the settings are in {path}; for another VM: hyrax-setup apply FILE\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return path.read_text(), err


def apply(guest: Guest, text: str, stdin: str = "") -> tuple[int, str]:
    guest.write("tmp/given.toml", text)
    path = str(guest.root / "tmp/given.toml")
    status, _, err = guest.run("usr/bin/hyrax-setup", "apply", path, stdin=stdin)
    return status, err


@pytest.mark.parametrize("access", ["nfs", "smb"])
def test_saved_applied_to_a_fresh_machine_and_saved_again_it_is_the_same(
    tmp_path: Path, pattern: Pattern, certificate: Path, access: str
) -> None:
    old = machine(tmp_path / "old", pattern, access)
    set_up(old, access)
    old.write("etc/shadow", f"opendap:{HASH}:20000::::::\n")
    pem, name = str(certificate), "--host=dap.example.org"
    assert old.run("usr/bin/hyrax-server", "https", f"--cert={pem}", f"--key={pem}", name)[0] == 0
    for data_set in ("closed" if access == "smb" else "b-2", "own-disk"):
        arguments = ["restrict", data_set, "--file=-", "--later", "--hidden"]
        assert old.data(*arguments, stdin=USERS)[0] == 0

    # Without secrets: what is left is applied, and nothing of the rest half.
    plain, said = save(old)
    assert "left out, because secrets are needed for it: the password of opendap" in said
    assert "the certificate of HTTPS" in said and "the data set own-disk" in said
    assert PASSWORD not in plain and HASH not in plain and "PRIVATE" not in plain
    other = machine(tmp_path / "other", pattern, access)
    assert apply(other, plain) == (0, "")
    assert save(other) == (plain, "")

    # With secrets: all of it.
    sealed, said = save(old, "--secrets", stdin="a passphrase\n")
    assert said == ""
    assert "PRIVATE" not in sealed and PASSWORD not in sealed
    fresh = machine(tmp_path / "fresh", pattern, access)
    status, said = apply(fresh, sealed, stdin="a wrong one\n")
    assert status == 2 and "cannot be read with this passphrase" in said
    assert apply(fresh, sealed, stdin="a passphrase\n") == (0, "")
    again, _ = save(fresh, "--secrets", stdin="another one\n")
    assert opened(again, "another one") == opened(sealed, "a passphrase")
    for file in old.root.glob("etc/hyrax/**/*"):
        name = str(file.relative_to(old.root))
        if file.is_file():
            assert sorted(fresh.read(name)) == sorted(old.read(name)), name
    for name in ("etc/localtime", "etc/systemd/timesyncd.conf.d/50-hyrax.conf"):
        assert (fresh.root / name).read_bytes() == (old.root / name).read_bytes()
    assert fresh.read("etc/shadow") == old.read("etc/shadow")
    # It is TOML for others too.
    values = tomllib.loads(opened(sealed, "a passphrase"))
    assert values["vm"]["hostname"] == "dap1.example.org"
    if access == "smb":
        (closed,) = (one for one in values["data"] if one["name"] == "closed")
        assert (closed["user"], closed["password"]) == ("SHIP\\me", PASSWORD)


def opened(text: str, passphrase: str) -> str:
    """Read an encrypted file with the command that is in it."""
    command = text.splitlines()[1].removeprefix("# To read it: ").replace("FILE", "/dev/stdin")
    assert command.startswith("tail -n +3 ")
    secret = text.split("\n", 2)[2]
    cipher = command.split("| ")[1]
    return subprocess.run(
        [*cipher.split(), "-pass", f"pass:{passphrase}"],
        input=secret,
        check=True,
        capture_output=True,
        text=True,
    ).stdout


@pytest.mark.parametrize("way", ["self-signed", "acme"])
def test_https_that_is_made_again_needs_no_secret(
    tmp_path: Path, pattern: Pattern, way: str
) -> None:
    options = {
        "self-signed": ["--self-signed", "--host=dap1", "--redirect"],
        "acme": ["--acme=dap.example.org", "--email=a@example.org", "--later"],
    }[way]
    old = machine(tmp_path / "old", pattern, "nfs")
    assert old.run("usr/bin/hyrax-server", "https", *options)[0] == 0
    text, said = save(old)
    assert said == ""
    new = machine(tmp_path / "new", pattern, "nfs")
    assert apply(new, text) == (0, "")
    assert new.read("etc/hyrax/https/settings") == old.read("etc/hyrax/https/settings")
    assert save(new) == (text, "")


def test_a_machine_as_shipped_has_nothing_to_save(tmp_path: Path, pattern: Pattern) -> None:
    guest = machine(tmp_path, pattern, "nfs")
    assert save(guest) == ("# Settings of a Hyrax VM, from: hyrax-setup save\n", "")


def test_what_a_file_cannot_hold_is_named(tmp_path: Path, pattern: Pattern) -> None:
    guest = machine(tmp_path, pattern, "nfs")
    guest.write("home/opendap/.ssh/authorized_keys", f'command="date" {KEY}\n')
    guest.write("etc/systemd/network/40-hyrax-eth1.network", "[Match]\nName=eth1\n")
    text, said = save(guest)
    assert text.count("\n") == 1
    assert "cannot hold it: 1 SSH key(s) with options, eth1" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "save needs the name of a file"),
        (["a", "b"], "'b' is one too many"),
        (["--secret", "a"], "'--secret' is not an option of save"),
        (["/no/such/place"], "'/no/such' is not a directory"),
        (["a", "--secrets"], "the file needs a passphrase"),
    ],
)
def test_mistakes(tmp_path: Path, pattern: Pattern, arguments: list[str], words: str) -> None:
    guest = machine(tmp_path, pattern, "nfs")
    status, out, err = guest.run("usr/bin/hyrax-setup", "save", *arguments)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1


def test_at_boot_an_encrypted_file_is_refused_in_words(tmp_path: Path, pattern: Pattern) -> None:
    guest = machine(tmp_path, pattern, "nfs")
    sealed, _ = save(guest, "--secrets", stdin="a passphrase\n")
    guest.write("etc/hyrax/hyrax.toml", sealed)
    assert guest.run("usr/lib/hyrax-vm/settings-boot")[0] == 0
    assert "the file is encrypted; apply it on the VM with:" in guest.read("run/hyrax/issue")
