"""Stage `provision`: disk + rendered template, scripts, files to run -> `provisioned.qcow2`.

Packer boots the disk with the disk's own kernel into `hyrax-build.target`, copies in the files that
this boot reads, and runs the scripts: accounts, boot loaders, the server's first start.  Stage
`guest` adds the files that only land.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from hyraxvm import __version__
from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, Overdue
from hyraxvm.core.paths import PACKER, PROVISION, ROOT
from hyraxvm.core.process import output, run
from hyraxvm.core.templates import render
from hyraxvm.stages.disk.stage import ROOT_LABEL, Disk
from hyraxvm.stages.provision import packer, version_file
from hyraxvm.stages.provision.guest_tar import (
    boot_files,
    pack,
    read_by_boot,
    render_units,
    server_part,
    services,
    starts_server,
    text_file,
)
from hyraxvm.stages.provision.samples import make_samples
from hyraxvm.vm.machine import emulator_failed
from hyraxvm.vm.qemu import choose_accelerator

DEADLINE: Final = 420.0  # seconds for one attempt, which takes 60 to 120 on two cores without KVM
RESULT: Final = "provisioned.qcow2"
TEMPLATE: Final = PACKER / "image.pkr.hcl.j2"
# Folders in a server's folder that go into the guest.
SERVER_PARTS: Final = ("units", "guest", "scripts")
# The hardware of this boot, and the file systems on it.
NEEDED_MODULES: Final = {"ext4", "sd_mod", "virtio_pci", "virtio_scsi"}
# Nothing else runs in this boot, so the kernel's mitigations would only cost time.  `norandmaps` is
# for the reason of `hyraxvm.vm.qemu.SAME_ADDRESSES`.
APPEND: Final = (
    f"root=LABEL={ROOT_LABEL} rw console={{console}},115200 net.ifnames=0 quiet "
    "mitigations=off norandmaps module_blacklist={unneeded} "
    "systemd.unit=hyrax-build.target systemd.show_status=false"
)


def key(recipe: Recipe, disk: str, image: ServerImage, files: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs; `disk` is that stage's key.

    `files` is the digest of `image.files`, for an `image` from a manifest, which lacks them.
    """
    read: dict[str, Any] = {
        "arch_name": True,
        "machine": {"cpus", "memory_mib", "disk_gib"},
        "server_name": True,
        "server": True,
        "server_image": True,
        "server_digest": True,
    }
    if starts_server(recipe, root):  # which reads the version file, and any file of the guest
        read |= {"name": True, "image": {"access", "addition"}, "base_name": True}
        read["base"] = {"distribution", "ssh", "masked_units", "upgrades"}
    guest = root / "provision" / "guest"
    ran = [(str(path.relative_to(guest)), path) for path in read_by_boot(recipe, root)]
    return cache.digest(
        disk,
        recipe.model_dump(include=read),
        image.model_dump(exclude={"files"}),
        files or cache.digest(image.files),
        __version__ if starts_server(recipe, root) else "",
        root / TEMPLATE.relative_to(ROOT),
        *(part for pair in ran for part in pair),
        *(root / "provision" / name for name in ("units", "scripts")),
        *filter(Path.is_dir, [server_part(recipe, name, root) for name in SERVER_PARTS]),
        root / "provision" / "servers" / "sandbox.j2",
        code.digest(root, __name__),
    )


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    disk: Disk,
    image: ServerImage,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Return the path of the provisioned disk.

    Raises `Failure`: Packer or a script failed; the message has the last lines.
    """

    def make(work: Path) -> None:
        version = ".".join(map(str, packer.version()))
        on_line(f"Packer {version}: {shutil.which('packer')}")
        template = stage_files(recipe, disk, image, work)
        command = [
            *(sys.executable, "-m", "hyraxvm.stages.provision.packer"),
            *(str(work / "packer"), str(template)),
        ]
        environment = {
            **os.environ,
            "PACKER_CACHE_DIR": str(work / "packer_cache"),
            "CHECKPOINT_DISABLE": "1",
        }

        def provision() -> None:
            run(command, log=log, deadline=DEADLINE, cwd=ROOT, env=environment, on_line=on_line)

        try:
            provision()
        except Failure as error:
            # Seldom, without KVM, QEMU loses an interrupt of the guest, which then waits for ever.
            if not isinstance(error, Overdue) and not emulator_failed(_console(work)):
                raise
            on_line("the emulator failed: provisioning again")
            shutil.rmtree(work / "output", ignore_errors=True)
            provision()
        (work / "output" / RESULT).replace(work / RESULT)
        for rest in work.iterdir():
            if rest.name != RESULT:
                shutil.rmtree(rest) if rest.is_dir() else rest.unlink()

    return results.produce("provision", stage_key, make) / RESULT


def _console(work: Path) -> Path:
    """Return the path of the serial console's log."""
    return work.parent / f"{work.name}.console"


def stage_files(recipe: Recipe, disk: Disk, image: ServerImage, work: Path) -> Path:
    """Write all that Packer needs into `work`; return the path of the rendered template."""
    samples = work / "samples"
    samples.mkdir()
    make_samples(samples)
    guest_tar = work / "guest.tar"
    files = boot_files(recipe, image, samples)
    if starts_server(recipe):
        facts = version_file.declared(recipe, image)
        files[names.RELEASE_FILE.lstrip("/")] = text_file(version_file.release_file(facts))
    pack(files, guest_tar)
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
            console=_console(work),
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
    unneeded = [name for name in recipe.base.initramfs_modules if name not in NEEDED_MODULES]
    return render(
        TEMPLATE,
        accelerator=accelerator,
        cpu=recipe.arch.cpu(accelerator),
        packer_version=packer.version(),
        append=APPEND.format(console=recipe.arch.console, unneeded=",".join(unneeded)),
        arch=recipe.arch,
        # QEMU's emulator sometimes fails with several CPUs, which hardly make this boot faster.
        cpus=recipe.machine.cpus if accelerator == "kvm" else 1,
        disk_gib=recipe.machine.disk_gib,
        memory_mib=recipe.machine.memory_mib,
        result=RESULT,
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
