"""`./inv try`: a machine that keeps running, and the checkout's guest files put into it.

The machine is made of an image's master and runs from an overlay, so that it starts without packing
and testing.  Putting files in compares all of them with those in the machine; nothing has to
remember what was put in before.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.config.model import ServerImage
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import output
from hyraxvm.core.progress import Progress
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages import pipeline
from hyraxvm.stages.guest.units import MASKED, PRESET
from hyraxvm.stages.package.stage import read_release
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.provision.guest_tar import (
    UNITS,
    GuestFile,
    boot_files,
    landing_files,
    pack,
)
from hyraxvm.tools.testing import NO_TEST
from hyraxvm.vm import kept
from hyraxvm.vm.machine import free_port
from hyraxvm.vm.qemu import HTTP, SSH, Drive, MachineSpec

FOLDER: Final = "try"  # in artifacts/
READY: Final = 600.0  # seconds until SSH answers, on a busy machine without KVM
SETTINGS: Final = "name=opt/org.opendap.hyrax/settings,file=hyrax.toml"

# Runs a shell script as root in the guest, with an input; returns what it prints.
Shell = Callable[[str, bytes], str]


@dataclasses.dataclass(frozen=True)
class Trial:
    """The machine of an image: all that belongs to it is in `folder`."""

    folder: Path

    @classmethod
    def of(cls, workspace: Workspace, recipe: Recipe) -> Trial:
        """Return the machine of an image on its base and architecture, which need not run."""
        return cls(workspace.artifacts / FOLDER / names.system(recipe))

    @property
    def running(self) -> bool:
        """Whether the machine runs."""
        return kept.running(self.folder) is not None

    @property
    def disk(self) -> Path:
        """The master that the machine was made of, beside its manifest."""
        return next(self.folder.glob("hyrax-vm-*.qcow2"))

    def stop(self) -> bool:
        """End the machine and remove it; return whether it ran."""
        ran = kept.stop(self.folder)
        cache.remove_tree(self.folder)
        return ran

    def start(self, workspace: Workspace, plan: Plan, progress: Progress) -> None:
        """Make the master if it is not in the cache, and start a new machine of it."""
        recipe = plan.recipe
        with workspace.cache.in_use():
            made = pipeline.master(workspace, plan, progress)
            self.stop()
            self.folder.mkdir(parents=True)
            name = names.artifact_name(recipe, made.server.image.version)
            disk = self.folder / f"{name}.qcow2"
            try:
                disk.hardlink_to(made.disk)  # which stays when the cache forgets the master
            except OSError:  # the cache is on another file system
                shutil.copyfile(made.disk, disk)
            manifest = {
                "name": name,
                "release": read_release(made.disk.parent / "release.env"),
                "machine": recipe.machine.model_dump(),
                "server": made.server.image.model_dump(),
            }
            (self.folder / f"{name}{names.MANIFEST}").write_text(json.dumps(manifest))
        key = self.folder / "key"
        output(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "try", "-f", str(key)])
        public = json.dumps(key.with_suffix(".pub").read_text().strip())
        (self.folder / "hyrax.toml").write_text(f"[vm]\nssh_keys = [{public}]\n")
        spec = MachineSpec(
            drives=(Drive("virtio", self.disk, "qcow2"),),
            nics=("virtio",),
            memory_mib=recipe.machine.memory_mib,
            cpus=recipe.machine.cpus,
            arch=recipe.arch,
            extra=("-fw_cfg", SETTINGS),
        ).with_overlays(self.folder)
        kept.start(spec, self.folder, {HTTP: free_port(HTTP), SSH: free_port(2222)})

    def image(self) -> ServerImage:
        """Return what is known of the server in the machine."""
        manifest = json.loads(self.disk.with_suffix(names.MANIFEST).read_text())
        return ServerImage.model_validate(manifest["server"])

    def ssh(self) -> list[str]:
        """Return the command line that opens a shell in the machine."""
        return [
            *("ssh", "-i", str(self.folder / "key"), "-p", str(kept.ports(self.folder)[SSH])),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "LogLevel=ERROR", "-o", "ConnectTimeout=30", "-o", "BatchMode=yes"),
            "opendap@127.0.0.1",
        ]

    def shell(self, script: str, given: bytes = b"") -> str:
        """Run a script as root in the machine; return its output.

        Raises `Failure`: it fails, or SSH does not answer; the message has what was printed.
        """
        command = [*self.ssh(), f"sudo sh -c {shlex.quote(script)}"]
        done = subprocess.run(command, input=given, capture_output=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr).decode("utf-8", "replace").strip()
            raise Failure(f"in the machine: exit status {done.returncode}: {said[-2000:]}")
        return done.stdout.decode("utf-8", "replace")

    def wait(self) -> None:
        """Wait until SSH answers; raise `Failure` if it does not in time."""
        until = ["timeout", str(READY), "sh", "-c", 'until "$@"; do sleep 0.5; done', "sh"]
        done = subprocess.run([*until, *self.ssh(), "true"], capture_output=True, check=False)
        if done.returncode:
            raise Failure(
                f"the machine's SSH does not answer; its console: {self.folder / 'console.log'}"
            )


def ready(workspace: Workspace, plan: Plan, progress: Progress, fresh: bool = False) -> Trial:
    """Return the running machine of an image, with the guest files of this checkout in it.

    It is started if it does not run, and with `fresh`.  Raises `Failure`: a stage, the machine or
    the guest failed.
    """
    trial = Trial.of(workspace, plan.recipe)
    if fresh or not trial.running:
        trial.start(workspace, plan, progress)
    with progress.stage("waiting for SSH"):
        trial.wait()
    for line in put(trial.shell, guest_files(plan.recipe, trial.image())):
        progress.say(line)
    return trial


def test(
    workspace: Workspace, plan: Plan, progress: Progress, expression: str | None, keep: bool
) -> None:
    """Run the boot tests that match pytest's `-k` on the machine; `keep` leaves it running.

    Raises `Failure`: a test failed, or as `ready`; `UserError`: no test matches.
    """
    trial = ready(workspace, plan, progress)
    reports = workspace.reports / f"try-{names.system(plan.recipe)}"
    command = [
        *(sys.executable, "-m", "pytest", "tests/boot", "-v", "-p", "no:cacheprovider"),
        *("--artifact", str(trial.disk), "--kept", str(trial.folder), "--reports", str(reports)),
        *(["-k", expression] if expression is not None else []),
    ]
    try:
        done = subprocess.run(command, cwd=workspace.root, check=False)
    finally:
        if not keep:
            trial.stop()
    if done.returncode == NO_TEST:
        raise UserError(
            f"-k {expression!r}: no test in tests/boot matches, of those for the machine `first` "
            f"of {plan.recipe.name}"
        )
    if done.returncode:
        raise Failure(f"tests/boot: exit status {done.returncode}; console: {reports}")


def guest_files(recipe: Recipe, image: ServerImage) -> dict[str, GuestFile]:
    """Return path in the guest -> file, of all that the checkout puts into the guest as text."""
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-try-") as nothing:
        return {**boot_files(recipe, image, Path(nothing)), **landing_files(recipe)}


def put(shell: Shell, files: Mapping[str, GuestFile], root: str = "/") -> list[str]:
    """Put the files into the guest that it does not have so, and restart what uses them.

    Return lines for people.  Raises `Failure`: the guest refuses.
    """
    changed = _differing(shell, files, root)
    if not changed:
        return ["the machine has the guest files of this checkout"]
    with tempfile.NamedTemporaryFile(prefix="hyrax-vm-try-") as tar:
        pack({name: files[name] for name in changed}, Path(tar.name))
        unpack = f"tar -x --no-same-owner --preserve-permissions --no-overwrite-dir -C {root}"
        shell(unpack, Path(tar.name).read_bytes())
    units = users(files, changed)
    lines = [f"put in: /{name}" for name in changed]
    of_units = {_target(name, file) for name, file in files.items() if name.startswith(UNITS)}
    if of_units & {*changed}:
        shell("systemctl daemon-reload", b"")
    if units:
        shell(f"systemctl try-restart {shlex.join(units)}", b"")
        lines.append(f"restarted, if they ran: {', '.join(units)}")
    if {PRESET, MASKED} & {*changed}:
        lines.append("which units start at boot stays as it is in this machine; to see: --fresh")
    return lines


def users(files: Mapping[str, GuestFile], changed: list[str]) -> list[str]:
    """Return the units that have changed, or name a changed file, and can be restarted; sorted."""
    found = set()
    for name, file in files.items():
        unit = re.match(rf"{UNITS}/([^/]+\.(?:service|path|timer|socket))(\.d/|$)", name)
        if unit:
            text = file.content.decode("utf-8", "replace")
            named = any(re.search(rf"/{re.escape(path)}(\s|$)", text) for path in changed)
            if name in changed or named or (unit[2] and _target(name, file) in changed):
                found.add(unit[1])
    return sorted(found)


def _target(name: str, file: GuestFile) -> str:
    """Return the path in the guest of what a link leads to, or else of the file."""
    if not stat.S_ISLNK(file.mode):
        return name
    return os.path.normpath(Path(name).parent / file.content.decode()).removeprefix("/")


def _differing(shell: Shell, files: Mapping[str, GuestFile], root: str) -> list[str]:
    """Return the paths of the files that have another content, mode or target, sorted."""
    regular = sorted(name for name, file in files.items() if stat.S_ISREG(file.mode))
    links = sorted(name for name, file in files.items() if stat.S_ISLNK(file.mode))
    # Few programs for all files: without KVM the start of one takes 30 ms.
    script = f"""cd {shlex.quote(root)} && list=$(cat)
        echo "$list" | xargs -d '\\n' sha256sum 2>/dev/null
        echo "$list" | xargs -d '\\n' stat -c '%a  %n' 2>/dev/null
        find {shlex.join(links)} -maxdepth 0 -type l -printf '%l  %p\\n' 2>/dev/null
        :"""
    found: dict[str, list[str]] = {}
    for line in shell(script, "\n".join(regular).encode()).splitlines():
        value, _, name = line.partition("  ")
        found.setdefault(name, []).append(value)
    return [name for name in sorted([*regular, *links]) if found.get(name) != _shown(files[name])]


def _shown(file: GuestFile) -> list[str]:
    """Return what sha256sum and stat show of a file, or where a link leads."""
    if stat.S_ISLNK(file.mode):
        return [file.content.decode()]
    return [hashlib.sha256(file.content).hexdigest(), f"{stat.S_IMODE(file.mode):o}"]
