"""Stage `rootfs`: the Debian packages of one image -> `rootfs.tar`.

mmdebstrap resolves, downloads and installs the packages in one go, as root or in a user namespace.
The base says which mirror and which keys; by default mmdebstrap and the host's apt choose them.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hyraxvm.config.arch import Arch
from hyraxvm.config.images import Recipe
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.core.process import output, run
from hyraxvm.stages.rootfs import excluded

DEADLINE = 1800.0  # seconds; slow mirrors exist
EMULATED = 3  # times as long programs may take that QEMU runs

DPKG_STATUS = "./var/lib/dpkg/status"
# The keys of a base that say where its packages come from.
SOURCE = ("suite", "components", "keyring", "mirror")
APT_PREFERENCES = "etc/apt/preferences.d/hyrax-vm"
# Where mmdebstrap writes dpkg's options.
DPKG_OPTIONS = "etc/dpkg/dpkg.cfg.d/99mmdebstrap"
INITRAMFS_CONF = "etc/initramfs-tools/conf.d/hyrax-vm"
INITRAMFS_MODULES = "usr/share/initramfs-tools/modules.d/hyrax-vm"


def key(recipe: Recipe, refresh: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs.

    `refresh` is the day for which packages are fetched again, or empty.
    """
    base = recipe.base.model_dump(include={*SOURCE, "initramfs_modules"})
    return cache.digest(
        base,
        recipe.arch_name,
        recipe.packages,
        recipe.path_excludes,
        refresh,
        code.digest(root, __name__),
    )


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the root file system's tar; beside it is `packages.json`.

    Raises `Failure`: mmdebstrap failed, and the message has its last lines; or see
    `excluded.check`.  Raises `UserError`: see `source_options`.
    """

    def make(work: Path) -> None:
        config = work / "config"
        write_config(recipe, config)
        tar = work / "rootfs.tar"
        with package_cache(results) as packages:
            argv = command(recipe, config, tar, packages)
            run(argv, log=log, deadline=patience(recipe.arch, DEADLINE), on_line=on_line)
        cache.remove_tree(config)
        excluded.check(recipe, tar, work / "modules")
        cache.remove_tree(work / "modules")
        status = output(["tar", "--extract", "--to-stdout", "--file", str(tar), DPKG_STATUS])
        (work / "packages.json").write_text(json.dumps(parse_status(status), indent=1) + "\n")

    return results.produce("rootfs", stage_key, make) / "rootfs.tar"


def mode() -> str:
    """Return mmdebstrap's option for how it becomes root in a chroot."""
    return f"--mode={'root' if os.geteuid() == 0 else 'unshare'}"


def patience(arch: Arch, seconds: float, host: str = platform.machine()) -> float:
    """Return the seconds that programs of an architecture get for what takes `seconds` natively."""
    return seconds if host == arch.kernel else EMULATED * seconds


def check_host(arch: Arch, host: str = platform.machine()) -> None:
    """Raise `UserError` if this computer can neither boot nor run programs of an architecture."""
    needed = [arch.qemu_package, *([] if arch.bios else [arch.firmware_package])]
    missing = shutil.which(arch.qemu) is None
    missing |= not arch.bios and not arch.firmware_variables.exists()
    if missing:
        raise UserError(
            f"machines for {arch.name} cannot be booted here; type: apt-get install "
            f"--no-install-recommends {' '.join(needed)}"
        )
    if host == arch.kernel:
        return
    try:
        output(["arch-test", arch.name])
    except Failure:
        # systemd does the second part, but not in a container.
        binfmt = "/proc/sys/fs/binfmt_misc"
        raise UserError(
            f"programs for {arch.name} cannot run here, as they must while packages are installed; "
            f"type: apt-get install --no-install-recommends qemu-user-static; in a container also: "
            f"mount -t binfmt_misc none {binfmt}; "
            f"cat /usr/lib/binfmt.d/qemu-{arch.kernel}.conf >{binfmt}/register"
        ) from None


def packages(tar: Path) -> dict[str, str]:
    """Return name -> version of the Debian packages in a tar that `build` returned."""
    found: dict[str, str] = json.loads((tar.parent / "packages.json").read_text())
    return found


def parse_status(text: str) -> dict[str, str]:
    """Return name -> version of the installed packages in dpkg's status file (deb-control(5))."""
    found: dict[str, str] = {}
    for paragraph in text.split("\n\n"):
        fields = dict(
            line.split(": ", 1)
            for line in paragraph.splitlines()
            if re.match(r"[A-Z][\w-]*: ", line)
        )
        if fields.get("Status") == "install ok installed":
            found[fields["Package"]] = fields["Version"]
    return dict(sorted(found.items()))


def write_config(recipe: Recipe, folder: Path) -> None:
    """Write the files for apt, dpkg and initramfs-tools that the first package needs already.

    `dpkg-options` is an option file of dpkg; the others have their paths in the guest.
    """
    lines = [
        f"path-include={glob[1:]}" if glob.startswith("!") else f"path-exclude={glob}"
        for glob in recipe.path_excludes
    ]
    files = {
        "dpkg-options": lines,
        # mmdebstrap makes a merged /usr; the package usrmerge would add 46 MB of Perl.
        APT_PREFERENCES: ["Package: usrmerge", "Pin: release *", "Pin-Priority: -1"],
        # Only the listed drivers: "most" of a generic kernel costs 30 MB and seconds of each boot.
        # Level 19 saves 0.9 MB and takes 15 times as long, 3 minutes where QEMU runs zstd.
        INITRAMFS_CONF: ["MODULES=list", "COMPRESS=zstd", "COMPRESSLEVEL=9"],
        INITRAMFS_MODULES: recipe.base.initramfs_modules,
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(content) + "\n")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def command(recipe: Recipe, config: Path, tar: Path, packages: Path) -> list[str]:
    """Return mmdebstrap's command line; downloaded packages stay in the folder `packages`."""
    return [
        "mmdebstrap",
        mode(),
        "--variant=apt",
        *source_options(recipe),
        f"--include={','.join(recipe.packages)}",
        "--aptopt=APT::Install-Recommends false",
        "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        *keep_packages(packages),
        # A file in /etc/dpkg would not apply to the packages that are only unpacked.
        f"--dpkgopt={config}/dpkg-options",
        # A build that a power cut ends begins again, so dpkg need not wait for the disk: that saves
        # a quarter of the time.  The guest's dpkg waits.
        "--dpkgopt=force-unsafe-io",
        f"--customize-hook=sed -i '/^force-unsafe-io$/d' \"$1/{DPKG_OPTIONS}\"",
        f"--setup-hook=copy-in {shlex.quote(f'{config}/etc')} {shlex.quote(f'{config}/usr')} /",
        *source_arguments(recipe, tar),
    ]


def source_options(recipe: Recipe) -> list[str]:
    """Return mmdebstrap's options for the architecture, the components and the keyring.

    Raises `UserError`: this machine does not have the keyring.
    """
    options, keyring = [f"--architectures={recipe.arch.name}"], recipe.base.keyring
    if recipe.base.components:
        options.append(f"--components={','.join(recipe.base.components)}")
    if keyring:
        if not Path(keyring.file).is_file():
            raise UserError(f"{keyring.file} is missing; type: apt-get install {keyring.package}")
        options.append(f"--keyring={keyring.file}")
    return options


def source_arguments(recipe: Recipe, tar: Path) -> list[str]:
    """Return mmdebstrap's arguments: suite, tar to write, and the mirror if the base names one."""
    return [recipe.base.suite, str(tar), *([recipe.base.mirror] if recipe.base.mirror else [])]


@contextmanager
def package_cache(results: StageCache) -> Iterator[Path]:
    """Yield a folder of the Debian packages downloaded before; keep what is added to it.

    Each run has its own: two tars that write the same file side by side fail.
    """
    shared = results.folder / "packages"
    shared.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(
        prefix=".packages-", dir=results.folder, ignore_cleanup_errors=True
    ) as name:
        own = Path(name)
        for package in shared.glob("*.deb"):
            os.link(package, own / package.name)
        yield own
        for package in own.glob("*.deb"):
            package.replace(shared / package.name)


def keep_packages(folder: Path, last_hook: str = "customize") -> list[str]:
    """Return mmdebstrap's options that take packages from `folder` and keep new ones there.

    `last_hook` is the kind of hook that the variant runs last (mmdebstrap(1), HOOKS).
    """
    return [
        "--skip=download/empty,essential/unlink",
        '--setup-hook=mkdir -p "$1/var/cache/apt/archives"',
        f"--setup-hook=sync-in {shlex.quote(str(folder))} /var/cache/apt/archives",
        f"--{last_hook}-hook=sync-out /var/cache/apt/archives {shlex.quote(str(folder))}",
    ]
