"""The set-up that `./inv` does on different hosts; stubs stand for apt, mmdebstrap and venv."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hyraxvm.core.paths import ROOT

USED = (
    *("cat", "cksum", "comm", "cp", "dirname", "find", "grep", "id", "mktemp", "mv", "paste"),
    *("rm", "sed", "sh", "sort"),
)
STUBS = {
    # Says that all packages are installed, but those in the file `missing`.
    "dpkg-query": r"""shift 2
for package; do grep -qx "$package" "$HOST/missing" || echo "installed $package"; done""",
    "apt-cache": r"""grep -qx "$2" "$HOST/unknown" || echo "  Candidate: 1.0" """,
    "apt-get": r"""echo "apt-get $*" >>"$HOST/said" """,
    "env": r"""while [ "$1" != apt-get ]; do shift; done; "$@" """,
    "mmdebstrap": r"""echo "mmdebstrap $*" >>"$HOST/said"
[ ! -e "$HOST/offline" ] || { echo "E: cannot fetch" >&2; exit 25; }
for word; do
    case $word in --extract-hook=*) set -- $word; echo fetched >"$3/packer" ;; esac
done""",
    "python3": r"""[ "$2" != venv ] || {
    mkdir -p .venv/bin
    printf '#!/bin/sh\necho "python $*" >>"$HOST/said"\n' >.venv/bin/python
    chmod +x .venv/bin/python
}""",
}


@dataclass
class Host:
    """A computer with a checkout, of which only some programs are there."""

    folder: Path

    def stub(self, name: str, text: str) -> None:
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def inv(self) -> tuple[int, str, list[str]]:
        """Run `./inv list`; return its status, its messages, and the calls of the stubs."""
        said = self.folder / "said"
        said.write_text("")
        done = subprocess.run(
            ["sh", self.folder / "checkout" / "inv", "list"],
            env={"PATH": str(self.folder / "bin"), "HOST": str(self.folder)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        calls = [c for c in said.read_text().splitlines() if " -m pip " not in c]
        return done.returncode, done.stderr, calls


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "bin").mkdir()
    (tmp_path / "checkout").mkdir()
    for name in ("inv", "debian-packages.txt", "pyproject.toml", "requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / "checkout")
    for name in (*USED, "mkdir", "chmod"):
        program = shutil.which(name)
        assert program
        (tmp_path / "bin" / name).symlink_to(program)
    found = Host(tmp_path)
    for name, text in STUBS.items():
        found.stub(name, text)
    for name in ("missing", "unknown"):
        (tmp_path / name).write_text("")
    return found


def test_packer_is_fetched_once_where_there_is_none(host: Host) -> None:
    status, err, calls = host.inv()
    assert status == 0, err
    assert "no Packer is installed; taking the one of Debian 12's archive" in err
    fetch, task = calls
    assert {"--variant=extract", "--include=packer", "bookworm"} <= {*fetch.split()}
    assert task == "python -m hyraxvm.cli list"
    packer = host.folder / "checkout/.venv/bin/packer"
    assert packer.read_text() == "fetched\n"
    packer.chmod(0o755)  # as the real one is
    assert host.inv() == (0, "", ["python -m hyraxvm.cli list"])


def test_a_packer_that_is_installed_is_used(host: Host) -> None:
    host.stub("packer", "echo Packer v1.9.5")
    status, err, calls = host.inv()
    assert (status, calls) == (0, ["python -m hyraxvm.cli list"])
    assert "Packer" not in err


def test_without_packer_and_debians_archive_nothing_is_built(host: Host) -> None:
    (host.folder / "offline").touch()
    status, err, calls = host.inv()
    assert status == 2
    assert "E: cannot fetch" in err
    assert err.splitlines()[-1].startswith("./inv: Packer is missing: install it, or see above")
    assert not [call for call in calls if "cli" in call]


def test_what_the_hosts_archive_lacks_is_named_and_not_asked_for_again(host: Host) -> None:
    host.stub("packer", "")
    (host.folder / "missing").write_text("chromium-driver\numoci\n")
    (host.folder / "unknown").write_text("chromium-driver\n")
    status, err, calls = host.inv()
    assert status == 0, err
    assert "does not have these packages; what needs them fails: chromium-driver\n" in err
    assert calls[1:-1] == ["apt-get install -q -y --no-install-recommends umoci"]
    (host.folder / "missing").write_text("chromium-driver\n")
    assert host.inv() == (0, "", ["python -m hyraxvm.cli list"])


def test_what_another_package_brings_is_not_missed(host: Host) -> None:
    host.stub("packer", "")
    for name in ("missing", "unknown"):
        (host.folder / name).write_text("chromium-driver\nsystemd-repart\n")
    host.stub("systemd-repart", "")  # on Debian 12 it is in the package systemd
    status, err, _ = host.inv()
    assert status == 0, err
    assert "what needs them fails: chromium-driver\n" in err


def test_other_distributions_get_one_line_with_what_is_missing(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "hyraxvm.tools.doctor", "Fedora Linux 44"]
    (tmp_path / "git").symlink_to("/bin/true")
    env = {**os.environ, "PATH": str(tmp_path)}
    done = subprocess.run(argv, cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.startswith("./inv: Fedora Linux 44 is neither Debian nor Ubuntu; ")
    assert {"mmdebstrap", "packer", "qemu-img", "qemu-system-x86_64"} <= {*line.split()}
    assert "git" not in line.split()


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_lock_has_what_its_packages_need_on_every_hosts_python(version: str) -> None:
    text = (ROOT / "requirements.txt").read_text()
    locked = {canonicalize_name(name) for name in re.findall(r"^([\w.-]+)==", text, re.MULTILINE)}
    python = {"python_version": version, "python_full_version": f"{version}.0", "extra": ""}
    missing = {
        f"{name} needs {needed.name}"
        for name in locked
        for needed in _requirements(name)
        if (needed.marker is None or needed.marker.evaluate(python))
        and canonicalize_name(needed.name) not in locked
    }
    assert missing == set()


def _requirements(name: str) -> list[Requirement]:
    try:
        return [Requirement(line) for line in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:  # only on another Python
        return []
