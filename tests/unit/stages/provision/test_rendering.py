"""Everything that is rendered: quoting, facts that must be there, and shellcheck of scripts."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jinja2 import UndefinedError

from hyraxvm.config import images
from hyraxvm.config.arch import AMD64
from hyraxvm.core import templates
from hyraxvm.core.paths import PROVISION, ROOT, TEMPLATES
from hyraxvm.formats import readme
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.provision import guest_tar, packer, version_file
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.server import stage as server
from hyraxvm.vm import qemu

RECIPE = images.recipe(images.load(), "nfs", "dapdir")
IMAGE = server.preview(RECIPE)
PATHS = {
    name: f"/w/{name}"
    for name in ("disk", "kernel", "initrd", "output", "console", "private_key", "public_key")
}


def template(**more: object) -> str:
    return provision.render_template(
        RECIPE, **PATHS, guest_tar="/w/guest.tar", scripts=["/w/a"], **more
    )


@given(st.text() | st.text(alphabet="$%{}a"))
@example("%%{")
@example("$$${a}")
def test_hcl_strings_decode_to_what_went_in(text: str) -> None:
    quoted = templates.hcl(text)
    # The only two escapes of HCL that JSON does not have.
    assert re.sub(r"\$\$\{|%%\{", lambda escape: escape[0][1:], json.loads(quoted)) == text
    assert "\n" not in quoted


@given(st.text(st.characters(codec="ascii", exclude_characters="\x00")))
def test_systemd_quoting_leaves_nothing_to_expand(text: str) -> None:
    inner = templates.systemd_quote(text)[1:-1]
    assert "\n" not in inner
    assert not inner.replace("$$", "").count("$")
    assert not inner.replace("%%", "").count("%")
    assert not inner.replace("\\\\", "").replace('\\"', "").count('"')


def test_a_missing_variable_is_an_error() -> None:
    with pytest.raises(UndefinedError):
        templates.render(PROVISION / "scripts" / "80-check.sh.j2", recipe=RECIPE)


def test_packer_accepts_the_template(tmp_path: Path) -> None:
    for name in ("disk", "private_key"):
        (tmp_path / name).write_text("")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    script = tmp_path / "a.sh"
    script.write_text("#!/bin/sh\n")
    (tmp_path / "guest.tar").write_text("")
    text = provision.render_template(
        RECIPE,
        **{**PATHS, "private_key": key, "disk": tmp_path / "disk"},
        guest_tar=tmp_path / "guest.tar",
        scripts=[str(script)],
    )
    path = tmp_path / "image.pkr.hcl"
    path.write_text(text)
    done = subprocess.run(["packer", "validate", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("version", "wanted"), [((1, 6, 6), False), ((1, 7, 0), True)])
def test_plugins_are_required_only_of_a_packer_that_knows_them(
    monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...], wanted: bool
) -> None:
    monkeypatch.setattr(packer, "version", lambda: version)
    assert ("required_plugins" in template()) is wanted


@pytest.mark.parametrize(("name", "model", "cpus"), [("tcg", AMD64.tcg_cpu, 1), ("kvm", "host", 2)])
def test_the_build_has_a_cpu_that_runs_programs_of_el9_and_one_in_an_emulator(
    monkeypatch: pytest.MonkeyPatch, name: str, model: str, cpus: int
) -> None:
    monkeypatch.setattr(provision, "choose_accelerator", lambda arch: qemu.Accelerator(name, "why"))
    text = template()
    assert f'accelerator    = "{name}"' in text
    assert f'["-cpu", "{model}"],' in text
    assert re.search(rf"^ *cpus += {cpus}$", text, re.MULTILINE)


def test_the_build_reaches_the_guest_over_loopback_only() -> None:
    text = template()
    assert '["-chardev", "socket,id=ssh,host=127.0.0.1,port={{ .SSHHostPort }},' in text
    assert re.findall(r'"-netdev", "(.*)"', text) == ["user,id=user.0,restrict=on"]
    assert "hostfwd" not in text
    assert "ssh_password" not in text


def test_every_rendered_script_passes_shellcheck(tmp_path: Path) -> None:
    scripts = provision.render_scripts(RECIPE, IMAGE)
    assert list(scripts) == ["10-system.sh", "30-bootloader.sh", "80-check.sh", "90-clean.sh"]
    for name, text in scripts.items():
        (tmp_path / name).write_text(text)
    files = [*(tmp_path / name for name in scripts), ROOT / "inv", ROOT / ".ci" / "run"]
    files.append(PROVISION / "build/usr/lib/hyrax-vm-build/start-ssh")
    done = subprocess.run(
        # SC1091: the version file is made in the guest.
        ["shellcheck", "--exclude=SC1091", *files],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_servers_unit_says_what_it_is_and_is_sandboxed() -> None:
    unit = guest_tar.render_units(RECIPE, IMAGE)["hyrax-server.service"].splitlines()
    assert "Description=dapdir (embedded default, not Hyrax) 1.0.0" in unit
    assert 'ExecStart="/usr/bin/python3" "-m" "dapdir"' in unit
    assert 'Environment="DAPDIR_ROOT=/data"' in unit
    assert "BindReadOnlyPaths=/srv/hyrax:/data:rbind" in unit
    assert "User=dapdir" in unit
    for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "CapabilityBoundingSet="):
        assert line in unit


def test_the_version_file_reads_back_in_a_shell_and_in_the_manifest(tmp_path: Path) -> None:
    facts = version_file.release(RECIPE, IMAGE)
    path = tmp_path / "release"
    path.write_text(version_file.release_file(facts))
    assert package.read_release(path) == facts
    shell = f'. {path}; printf "%s|%s" "$NAME" "$SERVER_TITLE"'
    said = subprocess.run(["sh", "-c", shell], capture_output=True, text=True, check=True).stdout
    assert said == f"{facts['NAME']}|{facts['SERVER_TITLE']}"


@pytest.mark.parametrize(
    ("image", "command"),
    [
        ("nfs", "hyrax-data add nfs://192.0.2.10/data/ocean"),
        ("smb", "hyrax-data add smb://192.0.2.10/ocean --user reader"),
        ("local", "scp -r ocean opendap@ADDRESS:/srv/hyrax/data/"),
        ("workshop", "hyrax-setup workshop on 192.168.1.0/24"),
    ],
)
def test_the_readmes_say_what_to_type(image: str, command: str) -> None:
    texts = readme.texts("vmx", images.recipe(images.load(), image), "hyrax-vm-x", IMAGE)
    html, text = texts["README.html"], texts["README.txt"]
    for wanted in ("hyrax-vm-x.vmx", command, "http://ADDRESS:8080/opendap/"):
        assert wanted in html
        assert wanted in text
    assert "<script" not in html
    assert "src=" not in html
    assert text.count("\r\n") == text.count("\n")


def test_the_readmes_name_the_file_and_the_hardware_for_each_hypervisor() -> None:
    machine = RECIPE.machine.model_copy(update={"memory_mib": 2048, "cpus": 3})
    text = readme.texts("hyperv", RECIPE.model_copy(update={"machine": machine}), "nm", IMAGE)
    page = text["README.txt"]
    for wanted in (
        "`nm.zip`",
        "`nm.ova`",
        "`nm.qcow2`",
        "`nm-hyperv.zip`",
        "--memory 2048 --vcpus 3",
        "--memory 2048 --cores 3 --cpu host",
        "-cpu host -m 2048",
    ):
        assert wanted in page
    assert "1024" not in page
    for name in (
        "Workstation",
        "Fusion",
        "ESXi",
        "VirtualBox",
        "virt-manager",
        "Proxmox",
        "Hyper-V",
    ):
        assert name in page
    assert page.index("create-vm.ps1") < page.index("## 2. Log in")


def test_the_page_on_hypervisors_is_made_from_its_template() -> None:
    expected, found = readme.document(), readme.DOCUMENT.read_text("utf-8")
    command = f".venv/bin/python -m {readme.__name__}"
    assert found == expected, f"docs/hypervisors.md is not up to date; type: {command}"
    assert all(path.parent == TEMPLATES for path in readme.SOURCES)


def test_nothing_but_hyrax_is_called_hyrax() -> None:
    """The product is called Hyrax VM; the embedded server has its own name."""
    page = readme.texts("vmx", RECIPE, "hyrax-vm-x", IMAGE)["README.txt"]
    assert "dapdir (embedded default, not Hyrax) 1.0.0" in page
    allowed = ("Hyrax VM", "not Hyrax")
    for line in page.splitlines():
        rest = line
        for phrase in allowed:
            rest = rest.replace(phrase, "")
        assert "Hyrax" not in rest, line
