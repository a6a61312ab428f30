"""`./inv download`: get a published file.  A file gets its name only if it is whole and signed.

Only what the signature of `SHA256SUMS` covers is trusted.  The index only shows where to look; the
signed `release.json` says what a release has.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from hyraxvm.config.names import SUMS
from hyraxvm.core import archives, cache
from hyraxvm.core.errors import UserError
from hyraxvm.core.progress import meter
from hyraxvm.formats import FORMATS
from hyraxvm.formats.verify import sums
from hyraxvm.publish.site import Site
from hyraxvm.release import index, signing

LOCK: Final = ".download.lock"  # in artifacts/, shared by downloads into it
Say = Callable[[str], None]


def download(
    artifacts: Path,
    site: Site,
    fingerprint: str,
    *,
    image: str,
    version: str,
    kind: str,
    folder: Path,
    unpack: bool,
    say: Say,
) -> Path:
    """Get one file; return its path, or that of the folder that it was unpacked to.

    `artifacts` is the folder that `./inv clean` empties.

    `version` is a version, `release` or `nightly` for the newest one; `kind` is a format's name.

    Raises:
        UserError: The release has no such file; or the file was changed, cut off, or is not signed
            by the key with this fingerprint.  A file that is not as signed is kept with the
            suffix `.refused`.
        Failure: The transfer stopped several times without a byte gained.
    """
    if unpack and not FORMATS[kind].suffix.endswith(".zip"):
        raise UserError(f"format {kind!r} is not packed; leave --unpack out")
    published = index.read_index(site.text(index.INDEX), f"{site.url}{index.INDEX}")
    release = _read_signed(site, _choose_release(site, published, version), fingerprint)
    entry = _choose_file(release, image, kind)
    folder = folder / release.version
    with _kept_from_clean(artifacts, folder):
        _make_folder(folder)
        target = folder / entry.name
        if target.exists():
            if not target.is_file() or cache.file_digest(target) != entry.sha256:
                raise UserError(f"{target}: has other content; move it away, and try again")
            say(f"{target}: is complete already")
        else:
            _fetch(site, release, entry, target)
            say(f"{target}: {entry.size / 1e6:.1f} MB, signed by {fingerprint}")
        return _unpack(target) if unpack else target


@contextmanager
def _kept_from_clean(artifacts: Path, folder: Path) -> Iterator[None]:
    """Hold the download lock if `folder` is in `artifacts/`, so that `./inv clean` keeps it."""
    if not folder.resolve().is_relative_to(artifacts.resolve()):
        yield
        return
    with cache.lock(artifacts / LOCK, shared=True):
        yield


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"{folder}: cannot be made ({error.strerror}); name another folder with --to"
        ) from error


def _choose_release(site: Site, published: index.Index, version: str) -> index.Release:
    named = {"release": published.latest.release, "nightly": published.latest.nightly}
    wanted = named.get(version, version)
    found = published.find(wanted)
    if found is None:
        there = ", ".join(one.version for one in published.releases[:10]) or "none"
        what = f"no {version}" if version in named else f"no version {version!r}"
        raise UserError(f"{site.url}: there is {what}; there are: {there}")
    if found.withdrawn:
        newest = published.latest.release or published.latest.nightly or "none"
        raise UserError(f"{wanted} was withdrawn: {found.withdrawn}; the newest is: {newest}")
    return found


def _read_signed(site: Site, release: index.Release, fingerprint: str) -> index.Release:
    """Return the release of this version as it is signed."""
    where = f"{site.url}{release.path}"
    if release.key != fingerprint:
        raise UserError(
            f"{release.version}: is signed by key {release.key}, not by {fingerprint}; add --key "
            f"{release.key} if the maintainers, and not only this site, say that it is theirs"
        )
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-download-") as work:
        listed, signature = Path(work, SUMS), Path(work, f"{SUMS}.asc")
        listed.write_bytes(site.text(f"{release.path}/{SUMS}"))
        signature.write_bytes(site.text(f"{release.path}/{SUMS}.asc"))
        signing.verify(listed, signature, site.text(index.key_path(fingerprint)), fingerprint)
        said = sums(listed)
    data = site.text(f"{release.path}/{index.RELEASE}")
    if hashlib.sha256(data).hexdigest() != said.get(index.RELEASE):
        raise UserError(f"{where}/{index.RELEASE}: is not the signed one; do not use these files")
    signed = index.read_release(data, f"{where}/{index.RELEASE}")
    # A site could show an old release, with its true signature, as a newer one.
    if (signed.version, signed.path) != (release.version, release.path):
        raise UserError(f"{where}: holds release {signed.version}; do not use these files")
    for entry in (file for image in signed.images for file in image.files):
        if said.get(entry.name) != entry.sha256:
            raise UserError(f"{where}: {entry.name} is not in the signed list; do not use it")
    return signed


def _choose_file(release: index.Release, image: str, kind: str) -> index.File:
    for found in release.images:
        for entry in found.files:
            if (found.image, entry.format) == (image, kind):
                return entry
    there = ", ".join(
        f"{found.image} as {entry.format}" for found in release.images for entry in found.files
    )
    raise UserError(f"{release.version} has no image {image!r} as {kind}; it has: {there}")


def _fetch(site: Site, release: index.Release, entry: index.File, target: Path) -> None:
    # The digest is in the name, so that a part of other content is not continued.
    part = target.with_name(f".{entry.name}.{entry.sha256[:12]}.part")
    with cache.lock(part, f"{target}: is being downloaded by another program"):
        there = part.stat().st_size
        free = shutil.disk_usage(target.parent).free
        if free < entry.size - there:
            raise UserError(
                f"{target.parent}: {free / 1e6:.0f} MB free, {(entry.size - there) / 1e6:.0f} MB "
                "are needed; free some space, or name another folder with --to"
            )
        with meter(entry.name, entry.size, there) as moved:
            try:
                digest = site.fetch(f"{release.path}/{entry.name}", part, entry.size, moved)
            except OSError as error:
                raise UserError(
                    f"{part}: {error.strerror or error}; free some space, and type the same "
                    "command again to go on"
                ) from error
        got = part.stat().st_size
        if digest != entry.sha256:
            refused = target.with_name(f"{entry.name}.refused")
            part.replace(refused)
            why = (
                f"was cut off, {got} bytes of {entry.size}"
                if got < entry.size
                else f"is not what was signed (SHA-256 {digest[:12]}..., not {entry.sha256[:12]})"
            )
            raise UserError(f"{site.url}{release.path}/{entry.name}: {why}; kept as {refused}")
        archives.sync(part)
        part.replace(target)


def _unpack(artifact: Path) -> Path:
    """Unpack a zip into a new folder beside it; an existing one stays unchanged."""
    work = artifact.with_name(f".{artifact.name}.work")
    cache.remove_tree(work)
    work.mkdir()
    try:
        made = archives.unpack_zip(artifact, work)
        final = artifact.with_name(made.name)
        if final.exists():
            raise UserError(f"{final}: exists already; move it away to unpack again")
        made.rename(final)
    finally:
        cache.remove_tree(work)
    return final
