"""Bases that extend each other, and what a base decides."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.config import images, names
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import IMAGES_TOML
from hyraxvm.formats import FORMATS, readme
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded
from hyraxvm.stages.server import stage as server
from hyraxvm.tools import listing


def load(tmp_path: Path, more: str) -> images.Config:
    path = tmp_path / "images.toml"
    path.write_text(IMAGES_TOML.read_text() + more)
    return images.load(path)


def recipe(tmp_path: Path, more: str, base: str) -> images.Recipe:
    image = f'[image.new]\ntitle = "New"\nbase = "{base}"\naccess = "nfs"\nmachine = "small"\n'
    return images.recipe(load(tmp_path, more + image), "new", "dapdir")


def test_debian_13_is_made_of_its_own_packages_and_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    table = images.load()
    new, old = (images.recipe(table, "nfs", "dapdir", base=f"debian-{n}") for n in (13, 12))
    # Without login nobody can log in on the console; without repart the root does not grow.
    added = {"linux-sysctl-defaults", "login", "systemd-repart"}
    assert set(new.packages) ^ set(old.packages) == added
    argv = rootfs.command(new, Path("/config"), Path("/out.tar"), Path("/debs"))
    assert argv[-2:] == ["trixie", "/out.tar"]
    pip = embedded.pip_command(new, Path("/r"), Path("/t"))
    assert "--python-version=3.13" in pip
    layer = " ".join(embedded.layer_command(new, Path("/s"), Path("/p"), Path("/debs"), Path("/l")))
    assert "/usr/local/lib/python3.13/dist-packages" in layer
    assert "/usr/lib/python3.13 " in layer
    assert old.base.python not in " ".join([*pip, layer])
    files = {name: text for name, (text, _) in guest_tar.guest_files(new).items()}
    masked = files["usr/lib/hyrax-vm/masked-units"].splitlines()
    assert {"tmp.mount", "rpcbind.service"} <= {*masked} and "" not in masked
    assert any("systemd-ssh-generator" in glob for glob in new.path_excludes)
    page = readme.texts("vmx", new, "nm", server.preview(new))["README.txt"]
    assert "Debian 13, 2 CPUs" in page
    assert "--osinfo debian12" in page
    assert old.base.title not in page


def test_modules_are_left_out_where_the_kernel_of_the_base_has_them() -> None:
    table = images.load()
    for base, folder in (("debian-13", "/usr/lib/modules"), ("debian-12", "/lib/modules")):
        excludes = images.recipe(table, "nfs", base=base).path_excludes
        modules = [glob for glob in excludes if "/kernel/" in glob]
        assert f"{folder}/*/kernel/sound/*" in modules
        assert f"!{folder}/*/kernel/drivers/net/ethernet/intel/*" in modules
        assert all(glob.lstrip("!").startswith(f"{folder}/*/kernel/") for glob in modules)
        assert len(modules) == len(table.base[base].module_excludes)


def test_an_image_can_be_made_on_another_base() -> None:
    table = images.load()
    usual = images.recipe(table, "nfs", "dapdir")
    other = next(name for name in table.base if name != usual.base_name)
    chosen = images.recipe(table, "nfs", "dapdir", base=other)
    assert (chosen.base_name, chosen.image.base) == (other, other)
    assert names.artifact_name(chosen, "1.0") != names.artifact_name(usual, "1.0")
    with pytest.raises(UserError, match=r"there is no base 'suse'; images.toml has: .*debian-13"):
        images.recipe(table, "nfs", base="suse")


def test_bases_that_no_image_is_made_of_are_tested_too_unless_untried() -> None:
    table = images.load()
    used = {image.base for image in table.image.values() if image.tested}
    assert {*images.other_bases(table)} == {"debian-12", "debian-13"} - used
    assert len(used) == 1


@pytest.fixture
def ubuntu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> images.Recipe:
    """An image on Ubuntu, whose keyring is a file that a test can make."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found = images.recipe(images.load(), "nfs", "dapdir", base="ubuntu-24.04")
    assert found.base.keyring
    keyring = found.base.keyring.model_copy(update={"file": str(tmp_path / "keys.gpg")})
    return found.model_copy(update={"base": found.base.model_copy(update={"keyring": keyring})})


def test_ubuntu_comes_from_its_own_archive(ubuntu: images.Recipe, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"keys.gpg is missing; type: apt-get install ubuntu-key"):
        rootfs.command(ubuntu, Path("/config"), Path("/out.tar"), Path("/debs"))
    (tmp_path / "keys.gpg").touch()
    argv = rootfs.command(ubuntu, Path("/config"), Path("/out.tar"), Path("/debs"))
    assert f"--keyring={tmp_path / 'keys.gpg'}" in argv
    assert "--components=main,universe" in argv
    assert argv[-2:] == ["noble", "/out.tar"]
    assert {"linux-image-generic", "shim-signed"} <= set(ubuntu.packages)
    assert not {"grub-cloud-amd64", "linux-image-amd64", "systemd-repart"} & set(ubuntu.packages)
    assert "/lib/firmware/*" in ubuntu.path_excludes
    layer = " ".join(
        embedded.layer_command(ubuntu, Path("/s"), Path("/p"), Path("/debs"), Path("/l"))
    )
    assert "/usr/local/lib/python3.12/dist-packages" in layer


def test_ubuntu_has_its_own_names_in_the_guest_and_in_descriptors(ubuntu: images.Recipe) -> None:
    image = server.preview(ubuntu)
    files = {name: text for name, (text, _) in guest_tar.guest_files(ubuntu).items()}
    preset = files["usr/lib/systemd/system-preset/50-hyrax-vm.preset"]
    assert "enable ssh.socket\n" in preset
    assert "ssh.service" not in preset
    base = files["usr/lib/hyrax-vm/base.sh"]
    assert "DISTRIBUTION='Ubuntu'" in base
    assert "SSH_UNIT='ssh.socket'" in base
    assert "origin=Ubuntu,archive=${distro_codename}-security" in base
    script = provision.render_scripts(ubuntu, image)["30-bootloader.sh"]
    assert "enable_cloud" not in script
    assert "grub-install --target=i386-pc" in script
    texts = FORMATS["vmx"].texts(ubuntu, "nm", image)
    assert 'guestOS = "ubuntu-64"' in texts["nm.vmx"]
    assert "Ubuntu 24.04, 2 CPUs" in texts["README.txt"]
    assert 'vmw:osType="ubuntu64Guest"' in FORMATS["ova"].texts(ubuntu, "nm", image)["nm.ovf"]
    assert names.artifact_name(ubuntu, "1.0.0") == "hyrax-vm-nfs-dapdir1.0.0-ubuntu24.04-amd64"


def test_a_base_that_nobody_has_built_is_shown_as_such() -> None:
    table = images.load()
    rows = {row.split()[0]: row for row in listing.bases(table).splitlines()[1:]}
    assert [name for name, row in rows.items() if "untried:" in row] == ["ubuntu-24.04"]
    assert "amd64, arm64" in rows["debian-13"]
    assert "--base ubuntu-24.04, untried: nobody has built it yet" in rows["ubuntu-24.04"]
    assert not [image for image in table.image.values() if table.base[image.base].untried]


def test_a_value_replaces_and_add_and_drop_change_the_list(tmp_path: Path) -> None:
    config = load(
        tmp_path,
        """
[base.one]
extends = "debian-12"
short = "one"
drop = { packages = ["nano", "less"] }
add = { packages = ["vim-tiny"], masked_units = ["a.service"] }
[base.two]
extends = "one"
short = "two"
initramfs_modules = ["ext4"]
add = { packages = ["less"], masked_units = ["b.service"] }
on.amd64 = { packages = ["linux-image-cloud-amd64"] }
""",
    )
    old, one, two = (config.base[name] for name in ("debian-12", "one", "two"))
    assert set(old.packages) - set(one.packages) == {"nano", "less"}
    assert one.packages[-1] == "vim-tiny"
    assert two.packages == [*one.packages, "less"]
    assert (one.masked_units, two.masked_units) == (["a.service"], ["a.service", "b.service"])
    assert (old.initramfs_modules != ["ext4"], two.initramfs_modules) == (True, ["ext4"])
    assert two.on["amd64"].packages == ["linux-image-cloud-amd64"]
    assert two.on["amd64"].guest_os == old.on["amd64"].guest_os
    assert (one.suite, one.title) == ("bookworm", "Debian 12")


@pytest.mark.parametrize(
    ("more", "parts"),
    [
        (
            '[base.x]\nextends = "suse"\n',
            ["base.x.extends: there is no [base.suse]; there are", "debian-12"],
        ),
        ('[base.x]\nextends = "x"\n', ["base.x.extends: 'x' leads back to itself: x -> x"]),
        (
            '[base.x]\nextends = "y"\n[base.y]\nextends = "z"\n[base.z]\nextends = "y"\n',
            [".extends: 'y' leads back to itself: y -> z -> y"],
        ),
        ('[base.x]\nextends = "debian"\nsuite = "x"\n', ["base.x.version: is missing"]),
        ('[base.x]\nextends = "debian-12"\nsuit = "x"\n', ["base.x.suit: unknown key", "suite"]),
        (
            '[base.x]\nextends = "debian-12"\nadd = { package = ["x"] }\n',
            ["base.x.add.package: unknown key", "packages"],
        ),
        (
            '[base.x]\nextends = "debian-12"\ndrop = { packages = ["nanoo"] }\n',
            ["base.x.drop.packages: 'nanoo' is not in the list"],
        ),
        ('[base.x]\nextends = "debian-12"\narch = "vax"\n', ["base.x.arch: 'vax'", "'amd64' or"]),
        (
            '[base.x]\nextends = "debian-12"\narch = "arm64"\n',
            ["base.x.arch: there is no [base.x.on.arm64]; there are: amd64"],
        ),
        ('[base.x]\nextends = "debian-12"\npython = 3\n', ["base.x.python: 3"]),
        (
            '[base.x]\nextends = "debian-12"\non.amd64.guest_os.vmx = "a b"\n',
            ["base.x.on.amd64.guest_os.vmx: 'a b'"],
        ),
        (
            '[base.x]\nextends = "debian-12"\non.amd64.guest_os.os = "a"\n',
            ["base.x.on.amd64.guest_os.os: unknown key", "vmw, vmx"],
        ),
    ],
)
def test_a_wrong_base_is_told_in_one_line(tmp_path: Path, more: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load(tmp_path, more)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{tmp_path / 'images.toml'}: ")
    for part in parts:
        assert part in message


def test_a_base_that_can_only_be_extended_is_in_no_image(tmp_path: Path) -> None:
    assert "debian" not in images.load().base
    with pytest.raises(
        UserError, match=r"image.new.base: 'debian' lacks version, so it can only be"
    ):
        recipe(tmp_path, "", "debian")
