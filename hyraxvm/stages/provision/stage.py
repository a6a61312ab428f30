"""Stage `provision`: disk + rendered template, scripts and guest files -> `master.qcow2`.

Packer boots the disk with the disk's own kernel into `hyrax-build.target`, copies the guest's files
in and runs the scripts.  After the guest has powered off, its disk is the master.
"""

from __future__ import annotations

import io
import os
import shlex
import shutil
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hyraxvm import __version__
from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.paths import PACKER, PROVISION, ROOT
from hyraxvm.core.process import output, run
from hyraxvm.core.templates import render
from hyraxvm.stages.disk.stage import ROOT_LABEL, Disk
from hyraxvm.stages.provision import packer
from hyraxvm.stages.provision.samples import make_samples
from hyraxvm.vm.qemu import choose_accelerator

DEADLINE = 900.0  # seconds
APPEND = (
    f"root=LABEL={ROOT_LABEL} rw console={{console}},115200 net.ifnames=0 quiet "
    "systemd.unit=hyrax-build.target systemd.show_status=false"
)
TEMPLATE = PACKER / "image.pkr.hcl.j2"
SERVER_PARTS = ("units", "guest", "scripts")  # folders in a server's folder that go into the guest


def key(recipe: Recipe, disk: str, image: ServerImage, files: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs; `disk` is that stage's key.

    `files` is the digest of `image.files`, for an `image` from a manifest, which lacks them.

    The date and the git revision do not count, although the image records them: they change
    without changing what is built.
    """
    read: dict[str, Any] = {
        "name": True,
        "image": {"access"},
        "base_name": True,
        "base": {"distribution", "ssh", "masked_units", "upgrades"},
        "arch_name": True,
        "machine": {"cpus", "memory_mib", "disk_gib"},
        "server_name": True,
        "server": True,
        "server_image": True,
        "server_digest": True,
    }
    return cache.digest(
        disk,
        recipe.model_dump(include=read),
        image.model_dump(exclude={"files"}),
        files or cache.digest(image.files),
        __version__,
        root / TEMPLATE.relative_to(ROOT),
        *(root / "provision" / name for name in ("guest", "units", "scripts")),
        *filter(Path.is_dir, [server_part(recipe, name, root) for name in SERVER_PARTS]),
        root / "provision" / "servers" / "sandbox.j2",
        code.digest(root, __name__),
    )


def release(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return the content of the guest's version file; the manifest has the same."""
    return {
        "NAME": "Hyrax VM",
        "VERSION": __version__,
        "IMAGE": recipe.name,
        "ACCESS": recipe.image.access,
        "BASE": recipe.base_name,
        "ARCH": recipe.arch.name,
        "SERVER": image.name,
        "SERVER_VERSION": image.version,
        "SERVER_TITLE": recipe.server.title,
        "SERVER_USER": image.user,
        "HEALTH_PATH": recipe.server.health_path,
        "GIT_REVISION": git_revision(),
        "BUILD_DATE": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def git_revision() -> str:
    """Return the commit that is checked out, with `-dirty` if a file differs from it or is new.

    Without git, return `unknown`.
    """
    if not (ROOT / ".git").exists():
        return "unknown"
    revision = output(["git", "describe", "--always", "--abbrev=12"], cwd=ROOT).strip()
    # Not `--dirty`, which ignores new files: the stages take every file in their folders.
    changed = output(["git", "status", "--porcelain"], cwd=ROOT).strip()
    return f"{revision}-dirty" if changed else revision


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    disk: Disk,
    image: ServerImage,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the master disk; beside it is `release.env`.

    Raises `Failure`: Packer or a script failed; the message has the last lines.
    """

    def make(work: Path) -> None:
        facts = release(recipe, image)
        (work / "release.env").write_text(release_file(facts))
        template = stage_files(recipe, disk, image, facts, work)
        run(
            [
                sys.executable,
                "-m",
                "hyraxvm.stages.provision.packer",
                str(work / "packer"),
                str(template),
            ],
            log=log,
            deadline=DEADLINE,
            cwd=ROOT,
            env={
                **os.environ,
                "PACKER_CACHE_DIR": str(work / "packer_cache"),
                "CHECKPOINT_DISABLE": "1",
            },
            on_line=on_line,
        )
        on_line("compacting the master")
        provisioned, master = work / "output" / "provisioned.qcow2", work / "master.qcow2"
        command = ["qemu-img", "convert", "-O", "qcow2", str(provisioned), str(master)]
        run(command, log=log, deadline=DEADLINE)
        for rest in work.iterdir():
            if rest.name not in ("master.qcow2", "release.env"):
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()

    return results.produce("provision", stage_key, make) / "master.qcow2"


def stage_files(
    recipe: Recipe, disk: Disk, image: ServerImage, facts: dict[str, str], work: Path
) -> Path:
    """Write all that Packer needs into `work`; return the path of the rendered template."""
    samples = work / "samples"
    samples.mkdir()
    make_samples(samples)
    guest_tar = work / "guest.tar"
    units = render_units(recipe, image)
    files = {**guest_files(recipe), **server_files(recipe, image)}
    # The guest's `hyrax-server` starts and stops these.
    parts = [name for name in services(units) if name.endswith(".service")]
    files["usr/lib/hyrax/units"] = "\n".join(parts) + "\n", False
    pack_guest(units, files, release_file(facts), samples, guest_tar)
    scripts = []
    for name, text in render_scripts(recipe, image).items():
        script = work / name
        script.write_text(text)
        scripts.append(str(script))
    wrapper = work / "packer"
    # Ends Packer together with this process; packer.py takes no other hook.  On TERM Packer ends
    # its QEMU.
    wrapper.write_text(
        "#!/bin/sh\nexec setpriv --pdeathsig TERM -- "
        f'{shlex.quote(shutil.which("packer") or "packer")} "$@"\n'
    )
    wrapper.chmod(0o755)
    private = work / "build-key"
    output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "build", "-f", str(private)])
    template = work / "image.pkr.hcl"
    template.write_text(
        render_template(
            recipe,
            disk=disk.qcow2,
            kernel=disk.kernel,
            initrd=disk.initrd,
            output=work / "output",
            console=work.parent / f"{work.name}.console",
            private_key=private,
            public_key=private.with_suffix(".pub"),
            guest_tar=guest_tar,
            scripts=scripts,
        )
    )
    return template


def render_template(recipe: Recipe, **paths: object) -> str:
    """Return the text of the Packer template; `paths` are its other variables."""
    accelerator = choose_accelerator(recipe.arch).name
    return render(
        TEMPLATE,
        accelerator=accelerator,
        cpu=recipe.arch.cpu(accelerator),
        packer_version=packer.version(),
        append=APPEND.format(console=recipe.arch.console),
        arch=recipe.arch,
        cpus=recipe.machine.cpus,
        disk_gib=recipe.machine.disk_gib,
        memory_mib=recipe.machine.memory_mib,
        **paths,
    )


def render_scripts(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return name -> text of the provisioning scripts with the server's own, in running order."""
    units = services(render_units(recipe, image))
    own = server_part(recipe, "scripts").glob("*.sh.j2")
    scripts = [*(PROVISION / "scripts").glob("*.sh.j2"), *own]
    return {
        template.stem: render(template, recipe=recipe, image=image, names=names, units=units)
        for template in sorted(scripts, key=lambda path: path.name)
    }


def render_units(recipe: Recipe, image: ServerImage) -> dict[str, str]:
    """Return name -> text of the server's units; leave out a template that renders to nothing."""
    paths = [*(PROVISION / "units").iterdir(), *server_part(recipe, "units").iterdir()]
    texts = {
        path.name.removesuffix(".j2"): render(path, recipe=recipe, image=image)
        for path in sorted(paths)
    }
    return {name: text for name, text in texts.items() if text.strip()}


def services(units: dict[str, str]) -> list[str]:
    """Return the names of the units with an [Install] section, sorted: these are enabled."""
    return sorted(name for name, text in units.items() if "\n[Install]\n" in text)


def guest_files(recipe: Recipe) -> dict[str, tuple[str, bool]]:
    """Return path in the guest -> (text, executable) of the guest's files that are templates."""
    guest = PROVISION / "guest"
    return {
        str(path.relative_to(guest)).removesuffix(".j2"): (
            render(path, recipe=recipe),
            bool(path.stat().st_mode & 0o100),
        )
        for path in sorted(guest.rglob("*.j2"))
    }


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


def release_file(facts: dict[str, str]) -> str:
    """Return `KEY=value` lines that a POSIX shell can source; quote only where needed."""
    return "".join(f"{key}={shlex.quote(value)}\n" for key, value in facts.items())


def pack_guest(
    units: dict[str, str],
    files: dict[str, tuple[str, bool]],
    release_text: str,
    samples: Path,
    target: Path,
) -> None:
    """Pack the guest's files into a tar: owned by root, mode 0644 or 0755, modified at time 0.

    `files` has path -> (text, executable): the rendered templates of the guest, and the server's
    files.
    """
    with tarfile.open(target, "w", format=tarfile.USTAR_FORMAT) as tar:
        guest = PROVISION / "guest"
        for path in sorted(guest.rglob("*")):
            if path.suffix != ".j2":
                _add(tar, str(path.relative_to(guest)), path)
        for path in sorted(samples.iterdir()):
            _add(tar, f"srv/hyrax/sample/{path.name}", path)
        for name, text in units.items():
            _add(tar, f"usr/lib/systemd/system/{name}", text)
        for name, (text, executable) in files.items():
            _add(tar, name, text, executable=executable)
        _add(tar, names.RELEASE_FILE.lstrip("/"), release_text)


def _add(tar: tarfile.TarFile, name: str, source: Path | str, *, executable: bool = False) -> None:
    info = tarfile.TarInfo(name)
    info.uname = info.gname = "root"
    info.mode = 0o755 if executable else 0o644
    if isinstance(source, str):
        content = source.encode()
    elif source.is_symlink():
        info.type, info.linkname = tarfile.SYMTYPE, str(source.readlink())
        content = b""
    elif source.is_dir():
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        content = b""
    else:
        content = source.read_bytes()
        if source.stat().st_mode & 0o100:
            info.mode = 0o755
    info.size = len(content)
    if name.startswith("etc/sudoers.d/") and info.isreg():
        info.mode = 0o440  # sudo(8) requires it, and git cannot record it
    tar.addfile(info, io.BytesIO(content))
