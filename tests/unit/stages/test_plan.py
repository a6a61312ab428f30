"""The keys of the stages: what changes them, and what does not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from hyraxvm.config import bases, images
from hyraxvm.core import code
from hyraxvm.core.paths import ROOT
from hyraxvm.formats import made_for
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.server import stage as server

TABLE = images.load()
NFS = images.recipe(TABLE, "nfs", "dapdir")
IMAGE = server.preview(NFS)
FORMATS = {chosen.name: chosen for chosen in made_for(NFS.arch)}
# The stages in their order: a stage has what an earlier one lacks.
STAGES = ("rootfs", "server", "disk", "provision", "guest", *FORMATS)
MODULES = {name: f"hyraxvm.stages.{name}.stage" for name in STAGES[:5]} | {
    name: chosen.module for name, chosen in FORMATS.items()
}
TREES = ("hyraxvm", "packer", "provision", "templates", "docs")


def keys(plan: Plan) -> dict[str, str]:
    """Return stage or format -> its key."""
    return {
        "rootfs": plan.rootfs,
        "server": plan.server,
        "disk": plan.disk,
        "provision": plan.provision(IMAGE),
        "guest": plan.guest(IMAGE),
        **plan.formats(IMAGE),
    }


@cache
def usual() -> dict[str, str]:
    """Return the keys of `NFS` in this checkout."""
    return keys(Plan(NFS))


def moved_with(**changed: object) -> set[str]:
    """Return the stages and formats whose key changes with a part of the recipe."""
    new = keys(Plan(NFS.model_copy(update=changed)))
    return {name for name in STAGES if usual()[name] != new[name]}


def moved(before: Plan, after: Plan) -> set[str]:
    """Return the stages and formats whose keys differ between two plans."""
    old, new = keys(before), keys(after)
    return {name for name in STAGES if old[name] != new[name]}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the files of the checkout that the stages are made from."""
    root = tmp_path_factory.mktemp("checkout")
    for name in TREES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, root / name, symlinks=True, ignore=ignored)
    return root


@contextmanager
def edited(path: Path) -> Iterator[None]:
    """Append a line to a file; restore the file at the end of the block."""
    before = path.read_bytes()
    path.write_bytes(before + b"# an edit\n")
    try:
        yield
    finally:
        path.write_bytes(before)


@pytest.fixture(scope="module")
def unedited(checkout: Path) -> dict[str, str]:
    """The keys of the copy."""
    return keys(Plan(NFS, root=checkout))


@pytest.fixture
def edit(checkout: Path, unedited: dict[str, str]) -> Callable[[str], set[str]]:
    """A function: file of the copy -> the stages and formats whose keys its edit changes."""

    def moved_by(name: str) -> set[str]:
        with edited(checkout / name):
            after = keys(Plan(NFS, root=checkout))
        return {stage for stage in STAGES if unedited[stage] != after[stage]}

    return moved_by


def test_a_copy_of_a_checkout_has_the_same_keys(checkout: Path) -> None:
    assert keys(Plan(NFS, root=checkout)) == keys(Plan(NFS))


def loaded(module: str) -> set[str]:
    """Return the files of the project that importing a module really runs."""
    program = (
        f"import {module}, json, sys; print(json.dumps("
        "[m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'hyraxvm']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def modules(stage: str, checkout: Path) -> set[str]:
    found = code.closure(checkout, MODULES[stage]).files
    return {str(path.relative_to(checkout)) for path in found}


@pytest.fixture(scope="module")
def edits(checkout: Path, unedited: dict[str, str]) -> dict[str, set[str]]:
    """Every module of a stage -> the stages and formats whose keys change with an edit of it."""
    found = {}
    for name in sorted(set().union(*(modules(stage, checkout) for stage in STAGES))):
        with edited(checkout / name):
            after = keys(Plan(NFS, root=checkout))
        found[name] = {stage for stage in STAGES if unedited[stage] != after[stage]}
    assert keys(Plan(NFS, root=checkout)) == unedited  # each edit was undone
    return found


@pytest.mark.parametrize("stage", STAGES)
def test_an_edit_of_any_module_of_a_stage_moves_its_key(
    stage: str, edits: dict[str, set[str]], checkout: Path
) -> None:
    # At least what Python itself loads; imports inside functions are more.
    wanted = {str(Path(path).relative_to(ROOT)) for path in loaded(MODULES[stage])}
    assert wanted <= modules(stage, checkout)
    for name in modules(stage, checkout):
        assert stage in edits[name], name


@pytest.mark.parametrize(
    "name",
    [
        "provision/servers/dapdir/README.md",
        "provision/servers/dapdir/capabilities.toml",
        "provision/servers/hyrax/capabilities.toml",
        "docs/architecture.md",
    ],
)
def test_what_goes_into_no_image_moves_no_key(name: str, edit: Callable[[str], set[str]]) -> None:
    assert edit(name) == set()


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("provision/servers/dapdir/requirements.txt", "server"),
        ("provision/servers/dapdir/dapdir/app.py", "server"),
        ("provision/build/usr/lib/hyrax-vm-build/start-ssh", "disk"),
        ("provision/guest/usr/bin/hyrax-data", "guest"),
        ("provision/guest/usr/lib/hyrax-vm/lib.sh", "guest"),
        ("provision/guest/usr/lib/hyrax-vm/masked-units.j2", "guest"),
        ("provision/guest/usr/lib/systemd/system/hyrax.target", "guest"),
        ("provision/guest/usr/lib/systemd/system-preset/50-hyrax-vm.preset.j2", "guest"),
        ("provision/guest/etc/default/grub.d/50-hyrax.cfg.j2", "provision"),
        ("provision/guest/etc/ssh/sshd_config.d/10-hyrax.conf", "provision"),
        ("provision/guest/etc/sudoers.d/hyrax", "provision"),
        ("provision/scripts/90-clean.sh.j2", "provision"),
        ("provision/units/opt-hyrax.mount", "provision"),
        ("provision/servers/generic/units/hyrax-server.service.j2", "provision"),
        ("provision/servers/sandbox.j2", "provision"),
        ("packer/image.pkr.hcl.j2", "provision"),
    ],
)
def test_an_input_moves_its_stage_and_what_follows(
    name: str, first: str, edit: Callable[[str], set[str]]
) -> None:
    follows = {"server": 1, "disk": 2, "provision": 3, "guest": 4}[first]
    assert edit(name) == set(STAGES[follows:])


def test_the_boot_that_starts_the_server_reads_every_file(checkout: Path) -> None:
    before = Plan(HYRAX, root=checkout).provision(IMAGE)
    with edited(checkout / "provision/guest/usr/bin/hyrax-data"):
        assert Plan(HYRAX, root=checkout).provision(IMAGE) != before


@pytest.mark.parametrize(
    ("name", "formats"),
    [
        ("templates/image.vmx.j2", {"vmx"}),
        ("templates/image.ovf.j2", {"ova"}),
        ("templates/create-vm.ps1.j2", {"hyperv"}),
        ("templates/README.md.j2", {"vmx", "hyperv"}),
        ("templates/README.html.j2", {"vmx", "hyperv"}),
    ],
)
def test_a_template_moves_the_formats_that_render_it(
    name: str, formats: set[str], edit: Callable[[str], set[str]]
) -> None:
    assert edit(name) == formats


HYRAX = images.recipe(TABLE, "nfs", "hyrax", "docker://made/here:1", f"sha256:{'ab' * 32}")


def test_a_hook_is_code_of_the_server_that_has_it(checkout: Path) -> None:
    before = Plan(HYRAX, root=checkout).disk
    dapdir = Plan(NFS, root=checkout).disk
    with edited(checkout / "provision/servers/hyrax/prepare.py"):
        assert Plan(HYRAX, root=checkout).disk != before
        assert Plan(NFS, root=checkout).disk == dapdir


def test_units_of_a_server_do_not_pack_it_again(checkout: Path) -> None:
    before = Plan(HYRAX, root=checkout)
    old = before.server, before.provision(IMAGE)
    with edited(checkout / "provision/servers/hyrax/units/hyrax-bes.service.j2"):
        after = Plan(HYRAX, root=checkout)
        assert after.server == old[0]
        assert after.provision(IMAGE) != old[1]


def test_the_version_of_a_library_is_part_of_the_code(monkeypatch: pytest.MonkeyPatch) -> None:
    found = code.closure(ROOT, "hyraxvm.stages.provision.stage").distributions
    assert {"Jinja2", "netCDF4", "pydantic"} <= set(found)
    before = Plan(NFS)
    old = before.provision(IMAGE)
    monkeypatch.setattr(code, "version", lambda name: "0")
    assert Plan(NFS).provision(IMAGE) != old


def test_imports_are_followed_wherever_they_stand(tmp_path: Path) -> None:
    files = {
        "hyraxvm/__init__.py": "",
        "hyraxvm/a.py": "from hyraxvm import b\ndef f():\n    import hyraxvm.deep.c\n",
        "hyraxvm/b.py": "import os, numpy\n",
        "hyraxvm/deep/__init__.py": "from .d import thing\n",
        "hyraxvm/deep/c.py": "",
        "hyraxvm/deep/d.py": "from .. import e\nfrom ..b import name\n",
        "hyraxvm/e.py": "",
        "hyraxvm/unused.py": "",
        "elsewhere/hook.py": "from hyraxvm.e import x\n",
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    found = code.closure(tmp_path, "hyraxvm.a")
    assert [str(path.relative_to(tmp_path)) for path in found.files] == [
        "hyraxvm/__init__.py",
        "hyraxvm/a.py",
        "hyraxvm/b.py",
        "hyraxvm/deep/__init__.py",
        "hyraxvm/deep/c.py",
        "hyraxvm/deep/d.py",
        "hyraxvm/e.py",
    ]
    assert found.distributions == ("numpy",)
    hook = code.closure(tmp_path, tmp_path / "elsewhere")
    assert [path.name for path in hook.files] == ["hook.py", "__init__.py", "e.py"]
    with pytest.raises(FileNotFoundError, match=r"hyraxvm\.nothing: no such code"):
        code.closure(tmp_path, "hyraxvm.nothing")


def test_each_stage_depends_on_its_declared_inputs_only() -> None:
    plan = Plan(NFS)
    assert moved(plan, Plan(NFS)) == set()
    assert moved(plan, Plan(NFS, "2026-01-01")) == set(STAGES)
    more = NFS.access.model_copy(update={"packages": ["nfs-common", "tcpdump"]})
    other = NFS.model_copy(update={"access": more})
    assert moved(plan, Plan(other)) == set(STAGES) - {"server"}
    memory = NFS.machine.model_copy(update={"memory_mib": 2048})
    other = NFS.model_copy(update={"machine": memory})
    assert moved(plan, Plan(other)) == set(STAGES[3:])
    budget = {**NFS.budget, "ova": 1}
    assert moved(plan, Plan(NFS.model_copy(update={"budget": budget}))) == set()


GUEST = {"guest", *FORMATS}
PROVISION = {"provision", *GUEST}
ROOTFS = {"rootfs", "disk", *PROVISION}
# Key of a base -> another value, and the stages that are made again.
BASE: dict[str, tuple[object, set[str]]] = {
    "distribution": ("Devuan", GUEST),
    "version": ("12.1", {*FORMATS}),
    "short": ("d12", set()),
    "suite": ("sid", {*STAGES}),
    "arch": ("arm64", set()),  # the value in the recipe counts
    "keyring": (bases.Keyring(file="/keys.gpg", package="keys"), {*STAGES}),
    "mirror": ("file:///mirror", {*STAGES}),
    "components": (["main", "contrib"], {*STAGES}),
    "python": ("3.99", {*STAGES} - {"rootfs"}),
    "packages": (["systemd"], ROOTFS),
    "initramfs_modules": (["ext4"], ROOTFS),
    "path_excludes": (["/x/*"], ROOTFS),
    "modules": ("/x", ROOTFS),
    "module_excludes": (["x/*"], ROOTFS),
    "ssh": ("ssh.socket", GUEST),
    "masked_units": (["other.mount"], GUEST),
    "upgrades": (["origin=x"], GUEST),
    "osinfo": ("debian99", {*FORMATS}),
    "untried": (True, set()),
}
GUEST_OS = bases.GuestOs(vmx="other", vmw="other", ovf=1, description="other")
PROCESSOR: dict[str, tuple[object, set[str]]] = {
    "packages": (["linux-image"], ROOTFS),
    "path_excludes": (["/x/*"], ROOTFS),
    "guest_os": (GUEST_OS, {*FORMATS}),
}


def test_each_key_of_a_base_has_its_row() -> None:
    assert {*BASE, "on"} == set(bases.Base.model_fields)
    assert set(PROCESSOR) == set(bases.Processor.model_fields)


@pytest.mark.parametrize("name", BASE)
def test_a_key_of_a_base_moves_the_stages_that_read_it(name: str) -> None:
    value, stages = BASE[name]
    base = NFS.base.model_copy(update={name: value})
    assert moved_with(base=base) == stages


@pytest.mark.parametrize("name", PROCESSOR)
def test_a_key_of_a_processor_moves_the_stages_that_read_it(name: str) -> None:
    value, stages = PROCESSOR[name]
    on = {"amd64": NFS.processor.model_copy(update={name: value})}
    base = NFS.base.model_copy(update={"on": on})
    assert moved_with(base=base) == stages


@pytest.mark.parametrize(
    ("table", "stages"), [("image", {*FORMATS}), ("access", set()), ("server", PROVISION)]
)
def test_a_title_moves_what_shows_it(table: str, stages: set[str]) -> None:
    titled = getattr(NFS, table).model_copy(update={"title": "another"})
    assert moved_with(**{table: titled}) == stages


def test_the_devices_of_a_format_move_that_format() -> None:
    devices = NFS.machine.devices["ova"].model_copy(update={"nic": "vmxnet3"})
    machine = NFS.machine.model_copy(update={"devices": {**NFS.machine.devices, "ova": devices}})
    assert moved_with(machine=machine) == {"ova"}


def test_a_pulled_server_is_not_made_of_the_packages_of_the_base() -> None:
    base = HYRAX.base.model_copy(update={"suite": "trixie", "python": "3.13"})
    assert Plan(HYRAX).server == Plan(HYRAX.model_copy(update={"base": base})).server
