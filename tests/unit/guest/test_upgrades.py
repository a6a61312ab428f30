"""hyrax-setup upgrades: the real apt, with two archives of which one is for security."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import Guest

# Name -> (installed version, version in Debian's archive, version in that for security).
PACKAGES = {
    "fixed": ("1", "1", "2"),  # a security upgrade
    "newer": ("1", "2", None),  # an upgrade of Debian's, which an administrator installs
    "both": ("1", "3", "2"),
    "needing": ("1", None, "2"),  # its new version needs the next one
    "library": (None, "1", None),
}
FOUND = "var/lib/hyrax/upgrades"


def paragraph(name: str, version: str, more: str = "") -> str:
    needs = "Depends: library\n" if (name, version) == ("needing", "2") else ""
    return (
        f"Package: {name}\nVersion: {version}\nArchitecture: amd64\n{needs}{more}"
        "Maintainer: x\nDescription: x\n\n"
    )


def archive(folder: Path, label: str, codename: str, column: int) -> None:
    """Write an archive without files: apt only plans what it would install."""
    folder.mkdir()
    text = "".join(
        paragraph(
            name,
            str(versions[column]),
            f"Filename: ./{name}.deb\nSize: 1\nSHA256: {'0' * 64}\n",
        )
        for name, versions in PACKAGES.items()
        if versions[column]
    )
    (folder / "Packages").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    (folder / "Release").write_text(
        f"Origin: Debian\nLabel: {label}\nCodename: {codename}\nSuite: x\n"
        f"SHA256:\n {digest} {len(text)} Packages\n"
    )


@pytest.fixture
def debian(guest: Guest, tmp_path: Path) -> Guest:
    """A guest with the real apt, which only says what it would do."""
    root = tmp_path / "apt"
    for name in ("etc/apt/preferences.d", "var/lib/apt/lists/partial", "var/lib/dpkg"):
        (root / name).mkdir(parents=True)
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    archive(tmp_path / "main", "Debian", "bookworm", 1)
    archive(tmp_path / "security", "Debian-Security", "bookworm-security", 2)
    (root / "etc/apt/sources.list").write_text(
        "".join(f"deb [trusted=yes] file:{tmp_path}/{name} ./\n" for name in ("main", "security"))
    )
    (root / "var/lib/dpkg/status").write_text(
        "".join(
            paragraph(name, versions[0], "Status: install ok installed\n")
            for name, versions in PACKAGES.items()
            if versions[0]
        )
    )
    (tmp_path / "apt.conf").write_text(
        f'Dir "{root}"; Dir::State::status "{root}/var/lib/dpkg/status"; Dir::Bin::Methods'
        ' "/usr/lib/apt/methods"; APT::Architecture "amd64"; APT::Sandbox::User "root";'
        ' APT::Get::Simulate "true";\n'
    )
    guest.env["APT_CONFIG"] = str(tmp_path / "apt.conf")
    guest.stand_in("dpkg", "")
    guest.stand_in("shutdown", "")
    keep = 'cat "$work/said" >"$HYRAX_ROOT/apt-said"'
    program = guest.root / "usr/lib/hyrax-vm/upgrade"
    text = program.read_text().replace("\nchanged=", f"\n{keep}\nchanged=")
    guest.write("usr/lib/hyrax-vm/upgrade", text)
    guest.write("var/lib/hyrax/.keep", "")
    guest.write("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\n")
    return guest


def upgrade(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    return guest.run("usr/lib/hyrax-vm/upgrade", *arguments)


def test_security_upgrades_are_installed_with_what_they_need_and_nothing_else(
    debian: Guest,
) -> None:
    status, out, err = upgrade(debian)
    assert (status, err) == (0, "")
    planned = {line.split()[1] for line in debian.read("apt-said").splitlines() if "Inst " in line}
    assert planned == {"fixed", "both", "needing", "library"}
    versions = [line for line in debian.read("apt-said").splitlines() if "Inst both" in line]
    assert "(2 Debian" in versions[0]
    assert out.startswith("4 packages upgraded")
    assert (debian.root / "run/reboot-required").exists()
    assert "shutdown" not in debian.read("calls.log")
    said = debian.run("usr/bin/hyrax-setup", "upgrades")[1]
    assert "last installed:    20" in said and "an upgrade needs a restart" in said


def test_a_restart_is_at_the_time_that_was_set(debian: Guest) -> None:
    status, out, _ = debian.run("usr/bin/hyrax-setup", "upgrades", "on", "--restart", "03:30")
    assert status == 0 and "a restart that they need is at 03:30" in out
    assert upgrade(debian)[0] == 0
    assert "shutdown -r 03:30 Security" in debian.read("calls.log")
    said = debian.run("usr/bin/hyrax-setup", "upgrades", "on", "--restart=no")[1]
    assert "does not restart by itself" in said


def test_switched_off_they_are_installed_only_by_hand(debian: Guest) -> None:
    assert debian.run("usr/bin/hyrax-setup", "upgrades")[1].startswith("security upgrades: on")
    out = debian.run("usr/bin/hyrax-setup", "upgrades", "off")[1]
    assert out.startswith("security upgrades: off; switch them on with: hyrax-setup upgrades on\n")
    assert upgrade(debian) == (0, "", "")
    assert not (debian.root / FOUND).exists()
    assert debian.run("usr/bin/hyrax-setup", "upgrades", "now")[0] == 0
    assert (debian.root / FOUND).exists()


def test_a_machine_without_a_mirror_says_so_once(debian: Guest, tmp_path: Path) -> None:
    sources = tmp_path / "apt/etc/apt/sources.list"
    kept = sources.read_text()
    sources.write_text("deb [trusted=yes] file:/no/such/place ./\n")
    status, out, err = upgrade(debian)
    assert (status, out) == (0, "") and "Debian's mirror does not answer" in err
    assert upgrade(debian) == (0, "", "")
    assert "does not answer (" in debian.run("usr/bin/hyrax-setup", "upgrades")[1]
    status, _, err = debian.run("usr/bin/hyrax-setup", "upgrades", "now")
    assert status == 1 and "Debian's mirror does not answer" in err and err.count("\n") == 1
    sources.write_text(kept)
    assert upgrade(debian)[0] == 0
    assert "does not answer" not in debian.run("usr/bin/hyrax-setup", "upgrades")[1]


def test_another_distribution_has_its_own_origins(debian: Guest) -> None:
    origins = "origin=Ubuntu,archive=${distro_codename}-security,label=Ubuntu\norigin=UbuntuESM"
    base = f"DISTRIBUTION='Ubuntu'\nSSH_UNIT='ssh.socket'\nUPGRADE_ORIGINS='{origins}'\n"
    debian.write("usr/lib/hyrax-vm/base.sh", base)
    debian.stand_in(
        "apt-get",
        """for each; do
    case $each in Dir::Etc::Preferences=*) cp "${each#*=}" "$HYRAX_ROOT/preferences" ;; esac
done""",
    )
    assert upgrade(debian)[0] == 0
    pins = [line for line in debian.read("preferences").splitlines() if line.startswith("Pin")]
    assert pins == [
        "Pin: release o=Ubuntu,a=bookworm-security,l=Ubuntu",
        "Pin-Priority: 500",
        "Pin: release o=UbuntuESM",
        "Pin-Priority: 500",
        "Pin: release o=*",
        "Pin-Priority: 50",
    ]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["maybe"], "'maybe' is not one of: on, off, now, status"),
        (["on", "x"], "'x' is not an option of upgrades"),
        (["on", "--restart", "3"], "'3' is not a time; expected: HH:MM"),
        (["on", "--restart=24:00"], "'24:00' is not a time"),
        (["now", "x"], "takes nothing after it"),
    ],
)
def test_mistakes(debian: Guest, arguments: list[str], words: str) -> None:
    status, out, err = debian.run("usr/bin/hyrax-setup", "upgrades", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1) and words in err
    assert not (debian.root / "etc/hyrax/upgrades").exists()
