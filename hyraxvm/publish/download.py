"""`./inv download`: get a published file.  A file gets its name only if it is whole and signed.

The signed index says which release is the newest, and where it is; the signed `release.json` says
what it has.  Sites are tried in their order.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hyraxvm.config.arch import ARCHES
from hyraxvm.config.names import SUMS
from hyraxvm.core import archives, cache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.progress import meter
from hyraxvm.formats import FORMATS
from hyraxvm.formats.verify import sums
from hyraxvm.publish.signed_index import read_signed
from hyraxvm.publish.site import Site
from hyraxvm.release import index, signing

LOCK: Final = ".download.lock"  # in artifacts/, shared by downloads into it
Say = Callable[[str], None]


class Here(UserError):
    """The fault is on this computer: another site would not help."""


@dataclass(frozen=True)
class Wanted:
    """What is asked for: `version` is a version, `release` or `nightly` for the newest one.

    `kind` is a format's name.  Without `arch` it is this computer's, where there is such a file,
    and without `base` the one that the release has first.
    """

    image: str
    version: str
    kind: str
    arch: str = ""
    base: str = ""


@dataclass(frozen=True)
class Reader:
    """Whoever downloads: the keys that count, and the file with the dates of lists seen.

    `artifacts` is the folder that `./inv clean` empties.
    """

    artifacts: Path
    keys: Sequence[str]
    seen: Path


def download(
    reader: Reader, sites: Sequence[Site], wanted: Wanted, folder: Path, unpack: bool, say: Say
) -> Path:
    """Get one file from the first site that has it; return its path, or that of its folder.

    Another site continues what one has begun.

    Raises:
        UserError: The last site has no such file; or the file was changed, cut off, or is not
            signed by one of the keys.  A file that is not as signed is kept with the suffix
            `.refused`.
        Failure: The last transfer stopped several times without a byte gained.
    """
    if unpack and not FORMATS[wanted.kind].suffix.endswith(".zip"):
        raise Here(f"format {wanted.kind!r} is not packed; leave --unpack out")
    for site, following in itertools.pairwise([*sites, None]):
        assert site is not None
        try:
            target = _get(reader, site, wanted, folder, say)
        except Here:
            raise
        except Failure as failure:
            if following is None:
                raise
            say(f"{failure}; trying {following.url}")
        else:
            with _kept_from_clean(reader.artifacts, target.parent):
                return _unpack(target) if unpack else target
    raise Here("no site is named; see download.url in publish.toml, or name one with --url")


def _get(reader: Reader, site: Site, wanted: Wanted, folder: Path, say: Say) -> Path:
    published = read_signed(site, reader.keys, reader.seen, say)
    release = _read_signed(site, _choose_release(site, published, wanted.version), reader.keys)
    entry = _choose_file(release, wanted)
    folder = folder / release.version
    with _kept_from_clean(reader.artifacts, folder):
        _make_folder(folder)
        target = folder / entry.name
        if target.exists():
            if not target.is_file() or cache.file_digest(target) != entry.sha256:
                raise Here(f"{target}: has other content; move it away, and try again")
            say(f"{target}: is complete already")
        else:
            _fetch(site, release, entry, target)
            say(f"{target}: {entry.size / 1e6:.1f} MB, signed by {release.key}")
        return target


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
        raise Here(
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


def _read_signed(site: Site, release: index.Release, keys: Sequence[str]) -> index.Release:
    """Return the release of this version as it is signed."""
    where = f"{site.url}{release.path}"
    if release.key not in keys:
        raise UserError(
            f"{release.version}: is signed by key {release.key}, not by {' or '.join(keys)}; add "
            f"--key {release.key} if the maintainers, and not only this site, say that it is theirs"
        )
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-download-") as work:
        listed, signature = Path(work, SUMS), Path(work, f"{SUMS}.asc")
        listed.write_bytes(site.text(f"{release.path}/{SUMS}"))
        signature.write_bytes(site.text(f"{release.path}/{SUMS}.asc"))
        signing.verify(listed, signature, site.text(index.key_path(release.key)), release.key)
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


def _choose_file(
    release: index.Release, wanted: Wanted, host: str = platform.machine()
) -> index.File:
    """Return the file that is asked for; `host` is the kernel's name of this architecture.

    Raises `UserError`: the release does not have it.
    """
    fitting = [
        (found.arch, entry)
        for found in release.images
        for entry in found.files
        if (found.image, entry.format) == (wanted.image, wanted.kind)
        and wanted.arch in ("", found.arch)
        and wanted.base in ("", found.base)
    ]
    if not fitting:
        several = len({(found.arch, found.base) for found in release.images}) > 1
        there = ", ".join(
            f"{found.image} as {entry.format}"
            + (f" for {found.arch} on {found.base}" if several else "")
            for found in release.images
            for entry in found.files
        )
        what = f"{wanted.image!r} as {wanted.kind}"
        what += f" for {wanted.arch}" if wanted.arch else ""
        what += f" on {wanted.base}" if wanted.base else ""
        raise UserError(f"{release.version} has no image {what}; it has: {there}")
    own = [arch.name for arch in ARCHES.values() if host in (arch.kernel, arch.name)]
    return min(fitting, key=lambda pair: pair[0] not in own)[1]


def _fetch(site: Site, release: index.Release, entry: index.File, target: Path) -> None:
    # The digest is in the name, so that a part of other content is not continued.
    part = target.with_name(f".{entry.name}.{entry.sha256[:12]}.part")
    with cache.lock(part, f"{target}: is being downloaded by another program"):
        there = part.stat().st_size
        free = shutil.disk_usage(target.parent).free
        if free < entry.size - there:
            raise Here(
                f"{target.parent}: {free / 1e6:.0f} MB free, {(entry.size - there) / 1e6:.0f} MB "
                "are needed; free some space, or name another folder with --to"
            )
        with meter(entry.name, entry.size, there) as moved:
            try:
                digest = site.fetch(f"{release.path}/{entry.name}", part, entry.size, moved)
            except OSError as error:
                raise Here(
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
            raise Here(f"{final}: exists already; move it away to unpack again")
        made.rename(final)
    finally:
        cache.remove_tree(work)
    return final
