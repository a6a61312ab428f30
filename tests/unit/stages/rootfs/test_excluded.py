"""What a base leaves out is out, under whichever name a package has it, and nothing needs it."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.errors import Failure
from hyraxvm.stages.rootfs import excluded

TABLE = images.load()
KERNEL = "/usr/lib/modules/6.1.0/kernel"


def recipe(paths: list[str], modules: list[str]) -> images.Recipe:
    found = images.recipe(TABLE, "nfs", "dapdir", base="debian-13")
    lists = {"path_excludes": paths, "module_excludes": modules}
    processor = found.processor.model_copy(update={"path_excludes": []})
    base = found.base.model_copy(update={**lists, "on": {found.arch_name: processor}})
    return found.model_copy(update={"base": base})


def module(folder: Path, name: str, depends: str) -> bytes:
    """Return an object file with the section that modinfo reads."""
    source, target = folder / f"{name}.c", folder / f"{name}.ko"
    source.write_text(
        '__attribute__((section(".modinfo"), used)) static const char info[] = '
        f'"license=GPL\\0depends={depends}\\0name={name}";\n'
    )
    subprocess.run(["gcc", "-c", str(source), "-o", str(target)], check=True)
    return target.read_bytes()


def packed(folder: Path, files: dict[str, bytes]) -> Path:
    tar = folder / "rootfs.tar"
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(f".{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return tar


@pytest.mark.parametrize("name", ["debian-12", "debian-13", "ubuntu-24.04"])
def test_each_base_leaves_out_the_hardware_database_wherever_udev_has_it(name: str) -> None:
    rules = images.recipe(TABLE, "nfs", "dapdir", base=name).path_excludes
    there = "/lib" if name == "debian-12" else "/usr/lib"
    assert excluded.is_excluded(f"{there}/udev/hwdb.d/20-OUI.hwdb", rules)
    assert not excluded.is_excluded(f"{there}/udev/rules.d/50-udev-default.rules", rules)


def test_the_last_rule_that_fits_wins() -> None:
    rules = ["/usr/share/doc/*", "!/usr/share/doc/*/copyright"]
    assert excluded.is_excluded("/usr/share/doc/sed/deep/NEWS", rules)
    assert not excluded.is_excluded("/usr/share/doc/sed/copyright", rules)


def test_a_file_that_a_package_has_under_lib_is_found(tmp_path: Path) -> None:
    tar = packed(tmp_path, {"/usr/lib/udev/hwdb.d/20-OUI.hwdb": b"x", "/usr/bin/sed": b"x"})
    for rule in ("/lib/udev/hwdb.d/*", "/usr/lib/udev/hwdb.d/*"):
        with pytest.raises(Failure) as caught:
            excluded.check(recipe([rule], []), tar, tmp_path / "scratch")
        assert str(caught.value) == (
            "images.toml: base.debian-13: path_excludes has no effect on "
            "/usr/lib/udev/hwdb.d/20-OUI.hwdb: a package has them under another path; add it "
            "(`dpkg -L PACKAGE` shows it)"
        )
    excluded.check(recipe(["/usr/lib/udev/rules.d/*"], []), tar, tmp_path / "scratch")


def test_a_file_that_a_script_made_is_no_fault(tmp_path: Path) -> None:
    tar = packed(tmp_path, {"/usr/share/info/dir": b"x", "/usr/lib/udev/hwdb.d/own.hwdb": b"x"})
    rules = ["/usr/share/info/*", "/lib/udev/hwdb.d/*", "/usr/lib/udev/hwdb.d/*"]
    excluded.check(recipe(rules, []), tar, tmp_path / "scratch")


def test_no_module_needs_one_that_is_left_out(tmp_path: Path) -> None:
    files = {
        f"{KERNEL}/drivers/watchdog/iTCO_wdt.ko": module(tmp_path, "iTCO_wdt", "pmc-bxt,watchdog"),
        f"{KERNEL}/drivers/watchdog/watchdog.ko": module(tmp_path, "watchdog", ""),
    }
    with pytest.raises(Failure) as caught:
        excluded.check(recipe([], ["drivers/mfd/*"]), packed(tmp_path, files), tmp_path / "one")
    assert str(caught.value) == (
        "images.toml: base.debian-13: module_excludes leaves out what other modules need: "
        'iTCO_wdt needs pmc_bxt; leave both out, or bring the second one back with "!"'
    )
    files[f"{KERNEL}/drivers/mfd/pmc_bxt.ko"] = module(tmp_path, "pmc_bxt", "")
    excluded.check(recipe([], []), packed(tmp_path, files), tmp_path / "two")
