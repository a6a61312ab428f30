"""The packages that an image's own databases list: dpkg's, rpm's, apk's and Python's.

A package's name is its package URL (purl) without `pkg:` and the version: `deb/debian/bash`,
`rpm/rocky/bash`, `apk/alpine/busybox`, `pypi/numpy`.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from packageurl import PackageURL

from hyraxvm.core.errors import Failure
from hyraxvm.core.process import output
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server.image_tree import Tree

DEADLINE = 120.0  # seconds
DPKG = "/var/lib/dpkg"
RPM = ("/var/lib/rpm", "/usr/lib/sysimage/rpm")
RPM_FILES = {"rpmdb.sqlite", "Packages.db", "Packages"}  # of rpm's database on el9, SUSE, el8
APK = "/lib/apk/db/installed"
ROW = "%{NAME} %|EPOCH?{%{EPOCH}:}|%{VERSION}-%{RELEASE}\\n"


def packages(tree: Tree, scratch: Path) -> dict[str, str]:
    """Return package -> version, sorted; `scratch` is a directory for copies of rpm's databases.

    Raises `Failure`: a database is damaged, or rpm lists no package of it.
    """
    system = _system(tree)
    found: dict[str, str] = {}
    for kind, usual, listed in (
        ("deb", "debian", _dpkg(tree)),
        ("rpm", "redhat", _rpm(tree, scratch)),
        ("apk", "alpine", _apk(tree)),
    ):
        maker = f"{kind}/{system or usual}"
        found |= {f"{maker}/{name}": version for name, version in listed.items()}
    for path in tree.glob("**/*.dist-info"):
        name, _, version = path.rpartition("/")[2].removesuffix(".dist-info").rpartition("-")
        if name:
            found[f"pypi/{name}"] = version
    return dict(sorted(found.items()))


def purl(package: str, version: str) -> PackageURL:
    """Return the package URL of an entry; there an rpm's epoch is a qualifier."""
    kind, _, rest = package.partition("/")
    namespace, _, name = rest.rpartition("/")
    qualifiers = {}
    if kind == "rpm" and ":" in version:
        qualifiers["epoch"], _, version = version.partition(":")
    return PackageURL(kind, namespace or None, name, version, qualifiers)


def _system(tree: Tree) -> str:
    """Return the distribution, which is ID in os-release(5), or "" if the image does not say."""
    text = (tree.read("/etc/os-release") or b"").decode("utf-8", "replace")
    found = re.search(r'^ID="?([a-z0-9._-]+)"?$', text, re.MULTILINE)
    return found[1] if found else ""


def _dpkg(tree: Tree) -> dict[str, str]:
    """Read dpkg's status file, and `status.d` of images without dpkg: a file for each package.

    The files in `status.d` have no status field.
    """
    texts = [tree.read(f"{DPKG}/status") or b""]
    for path in tree.glob(f"{DPKG}/status.d/*"):
        texts.append(b"Status: install ok installed\n" + (tree.read(path) or b""))
    found: dict[str, str] = {}
    for text in texts:
        if b"\nPackage: " in b"\n" + text:
            try:
                found |= rootfs.parse_status(text.decode("utf-8", "replace"))
            except KeyError as error:
                raise Failure(f"the image's {DPKG}: a package has no field {error}") from error
    return found


def _rpm(tree: Tree, scratch: Path) -> dict[str, str]:
    found: dict[str, str] = {}
    # Two distributions, two places; in some images one is a link to the other.
    folders = dict.fromkeys(filter(None, map(tree.resolve, RPM)))
    for number, folder in enumerate(folders):
        names = tree.listing(folder)
        if not RPM_FILES & set(names):
            continue
        copy = scratch / f"rpm-{number}"
        copy.mkdir(parents=True)
        for name in names:
            node = tree.node(f"{folder}/{name}")
            if node is not None and node.info.isreg():
                with node.open() as stream, (copy / name).open("wb") as sink:
                    shutil.copyfileobj(stream, sink)
        rows = output(
            ["rpm", "--dbpath", str(copy), "--query", "--all", "--queryformat", ROW],
            deadline=DEADLINE,
        )
        if not rows:  # rpm then exits with 0
            raise Failure(f"the image's {folder}: rpm's database there lists no package")
        for row in rows.splitlines():
            name, _, version = row.partition(" ")
            if name != "gpg-pubkey":  # an imported key, not a package
                found[name] = version
    return found


def _apk(tree: Tree) -> dict[str, str]:
    text = (tree.read(APK) or b"").decode("utf-8", "replace")
    found = {}
    for paragraph in text.split("\n\n"):
        fields = dict(line.partition(":")[::2] for line in paragraph.splitlines())
        if fields.get("P") and fields.get("V"):
            found[fields["P"]] = fields["V"]
    return found
