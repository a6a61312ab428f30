"""The guest's files: which there are, and which of them the provisioning boot reads.

The boot gets the files that it reads, and no others, so that its key can leave out the rest.  The
rest only lands: stage `guest` puts it into the provisioned disk.
"""

from __future__ import annotations

import io
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core.paths import PROVISION, ROOT
from hyraxvm.core.templates import render

UNITS: Final = "usr/lib/systemd/system"
# Folders of provision/guest that the scripts of provision/scripts/ read: GRUB's settings, and what
# sshd and sudo check.
READ_BY_BOOT: Final = ("etc/default/grub.d", "etc/ssh", "etc/sudoers.d")


class GuestFile(NamedTuple):
    """A file of the guest: its content, or where a link leads, and its type and mode."""

    content: bytes
    mode: int = stat.S_IFREG | 0o644


def text_file(text: str, executable: bool = False) -> GuestFile:
    """Return a file with a text."""
    return GuestFile(text.encode(), stat.S_IFREG | (0o755 if executable else 0o644))


def link(target: str) -> GuestFile:
    """Return a symbolic link."""
    return GuestFile(target.encode(), stat.S_IFLNK | 0o777)


def starts_server(recipe: Recipe, root: Path = ROOT) -> bool:
    """Return whether the provisioning boot starts the server, which may run any of the files."""
    return server_part(recipe, "scripts", root).is_dir()


def read_by_boot(recipe: Recipe, root: Path = ROOT) -> list[Path]:
    """Return the files in `provision/guest` that the provisioning boot gets, sorted."""
    guest = root / "provision" / "guest"
    tops = [guest] if starts_server(recipe, root) else [guest / name for name in READ_BY_BOOT]
    return sorted(path for top in tops for path in top.rglob("*") if _is_file(path))


def boot_files(recipe: Recipe, image: ServerImage, samples: Path) -> dict[str, GuestFile]:
    """Return path in the guest -> file, of what the provisioning boot gets.

    That are the server's units and files, the files in the folder `samples`, and those of
    `read_by_boot`.
    """
    units = render_units(recipe, image)
    # The guest's `hyrax-server` starts and stops these.
    started = [name for name in services(units) if name.endswith(".service")]
    return {
        **_rendered(recipe, read_by_boot(recipe)),
        **{
            f"srv/hyrax/sample/{p.name}": GuestFile(p.read_bytes())
            for p in sorted(samples.iterdir())
        },
        **{f"{UNITS}/{name}": text_file(text) for name, text in units.items()},
        **{name: text_file(*file) for name, file in server_files(recipe, image).items()},
        "usr/lib/hyrax/units": text_file("\n".join(started) + "\n"),
    }


def landing_files(recipe: Recipe) -> dict[str, GuestFile]:
    """Return path in the guest -> file, of what only lands.

    That is in `provision/guest`, or in the folder `guest` of the image's addition.
    """
    boot, found = set(read_by_boot(recipe)), {}
    for top in (PROVISION / "guest", *addition_folders(recipe)):
        paths = [path for path in top.rglob("*") if _is_file(path) and path not in boot]
        found.update(_rendered(recipe, sorted(paths), top))
    return found


def addition_folders(recipe: Recipe, root: Path = ROOT) -> list[Path]:
    """Return the folder with the guest's files of the image's addition; none without one."""
    name = recipe.image.addition
    return [root / "provision" / name / "guest"] if name else []


def guest_files(recipe: Recipe) -> dict[str, tuple[str, bool]]:
    """Return path in the guest -> (text, executable) of the guest's files that are templates."""
    found = _rendered(recipe, sorted((PROVISION / "guest").rglob("*.j2")))
    return {name: (file.content.decode(), bool(file.mode & 0o100)) for name, file in found.items()}


def render_units(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return name -> text of the server's units; leave out a template that renders to nothing."""
    paths = [*(PROVISION / "units").iterdir(), *server_part(recipe, "units").iterdir()]
    texts = {
        path.name.removesuffix(".j2"): render(path, recipe=recipe, image=image)
        for path in sorted(paths)
    }
    return {name: text for name, text in texts.items() if text.strip()}


def services(units: Mapping[str, str]) -> list[str]:
    """Return the names of the units with an [Install] section, sorted: these are enabled."""
    return sorted(name for name, text in units.items() if "\n[Install]\n" in text)


def server_files(recipe: Recipe, image: ServerImage) -> dict[str, tuple[str, bool]]:
    """Return path in the guest -> (text, executable) of the files that the server brings."""
    guest = server_part(recipe, "guest")
    found = {path: (text, False) for path, text in image.files.items()}
    for path in sorted(guest.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(guest)).removesuffix(".j2")
            text = render(path, recipe=recipe, image=image)
            found[name] = text, bool(path.stat().st_mode & 0o100)
    return found


def server_part(recipe: Recipe, name: str, root: Path = ROOT) -> Path:
    """Return a folder in the server's folder, or the generic one if the server does not have it.

    The generic units run the image's entrypoint.
    """
    servers = root / "provision" / "servers"
    own = servers / (recipe.server.folder or "generic") / name
    return own if own.is_dir() else servers / "generic" / name


def pack(files: Mapping[str, GuestFile], target: Path) -> None:
    """Pack files into a tar: owned by root, modified at time 0."""
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, file in sorted(files.items()):
            info = tarfile.TarInfo(name)
            info.uname = info.gname = "root"
            info.mode = stat.S_IMODE(file.mode)
            if stat.S_ISLNK(file.mode):
                info.type, info.linkname = tarfile.SYMTYPE, file.content.decode()
                tar.addfile(info)
            else:
                info.size = len(file.content)
                tar.addfile(info, io.BytesIO(file.content))


def _is_file(path: Path) -> bool:
    return path.is_symlink() or path.is_file()


def _rendered(
    recipe: Recipe, paths: list[Path], top: Path = PROVISION / "guest"
) -> dict[str, GuestFile]:
    """Return path in the guest -> file of files in the folder `top`."""
    return {str(path.relative_to(top)).removesuffix(".j2"): _read(recipe, path) for path in paths}


def _read(recipe: Recipe, path: Path) -> GuestFile:
    if path.is_symlink():
        return link(str(path.readlink()))
    if path.suffix == ".j2":
        file = text_file(render(path, recipe=recipe))
    else:
        file = GuestFile(path.read_bytes())
    if path.stat().st_mode & 0o100:
        return file._replace(mode=stat.S_IFREG | 0o755)
    # sudo(8) requires this mode, and git cannot record it.
    return file._replace(mode=stat.S_IFREG | 0o440) if path.parent.name == "sudoers.d" else file
