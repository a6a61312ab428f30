"""hyrax-setup keyboard: the layout of the console's keyboard."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.unit.guest.guest_copy import TREE, Guest

CONF = "etc/hyrax/keyboard"
UNIT = TREE / "usr/lib/systemd/system/hyrax-keyboard.service"


@pytest.fixture
def vm(guest: Guest) -> Guest:
    for name in ("qwertz/de", "qwertz/fr_CH", "azerty/fr", "qwerty/us", "qwerty/us-intl.iso15"):
        guest.write(f"usr/share/keymaps/i386/{name}.kmap.gz", "")
    guest.write("usr/share/keymaps/i386/include/qwerty-layout.kmap.gz", "")
    return guest


def keyboard(guest: Guest, *arguments: str) -> tuple[int, str, str]:
    return guest.run("usr/bin/hyrax-setup", "keyboard", *arguments)


def test_a_layout_is_set_shown_and_reset(vm: Guest) -> None:
    assert keyboard(vm) == (0, "us\n", "")
    for layout, folder in (("de", "qwertz"), ("fr_CH", "qwertz"), ("us-intl.iso15", "qwerty")):
        said = f"the console's keyboard layout is now {layout}\n"
        assert keyboard(vm, layout) == (0, said, "")
        assert vm.read(CONF) == f"KEYMAP=/usr/share/keymaps/i386/{folder}/{layout}.kmap.gz\n"
        assert keyboard(vm) == (0, f"{layout}\n", "")
    assert vm.read("calls.log").count("systemctl restart hyrax-keyboard.service") == 3
    assert keyboard(vm, "default")[0] == 0
    assert keyboard(vm) == (0, "us\n", "")


def test_check_changes_nothing(vm: Guest) -> None:
    assert keyboard(vm, "de", "--check") == (0, "", "")
    assert not (vm.root / CONF).exists()
    assert keyboard(vm, "xx", "--check")[0] == 2


@pytest.mark.parametrize(
    "layout", ["xx", "../de", "qwertz/de", "d*", "de fr", "qwerty-layout", ".de", "de\nKEYMAP=x"]
)
def test_what_is_not_a_layout_is_refused(vm: Guest, layout: str) -> None:
    status, out, err = keyboard(vm, layout)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "is not a keyboard layout; for example: de, fr" in err
    assert not (vm.root / CONF).exists()


def test_a_layout_that_cannot_be_loaded_is_said(vm: Guest) -> None:
    vm.stand_in("systemctl", "exit 1")
    status, _, err = keyboard(vm, "de")
    assert (status, vm.read(CONF).count("de.kmap.gz")) == (1, 1)
    assert "the layout was saved, but not loaded; see: journalctl -u hyrax-keyboard" in err


def test_a_settings_file_sets_it(vm: Guest, tmp_path: Path) -> None:
    file = tmp_path / "hyrax.toml"
    for layout, status in (("fr", 0), ("xx", 2)):
        file.write_text(f'[vm]\nkeyboard = "{layout}"\n')
        done = vm.run("usr/lib/hyrax-vm/settings", "apply", str(file))
        assert done[0] == status, done
        assert vm.read(CONF) == "KEYMAP=/usr/share/keymaps/i386/azerty/fr.kmap.gz\n"
    assert "line 2: keyboard: 'xx' is not a keyboard layout" in json.dumps(done)


def test_a_computer_without_layouts_checks_the_form_alone(guest: Guest, tmp_path: Path) -> None:
    """As ./inv settings does where the file is written."""
    file = tmp_path / "hyrax.toml"
    for layout, status in (("fr", 0), ("f/r", 2)):
        file.write_text(f'[vm]\nkeyboard = "{layout}"\n')
        assert guest.run("usr/lib/hyrax-vm/settings", "check", str(file))[0] == status


def test_the_unit_reads_what_the_command_writes() -> None:
    unit = UNIT.read_text()
    assert "EnvironmentFile=/etc/hyrax/keyboard\n" in unit
    assert re.search(r"^ExecStart=/usr/bin/loadkeys .*\$\{KEYMAP\}$", unit, re.MULTILINE)
