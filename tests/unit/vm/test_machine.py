"""The machine: its ports, its logs, and that no QEMU is left running."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from hyraxvm.core.errors import Failure
from hyraxvm.vm.machine import MachineError, VirtualMachine, emulator_failed, free_port
from hyraxvm.vm.qemu import Drive, MachineSpec


def disk(folder: Path, size: str = "16M") -> Path:
    path = folder / "disk, with a comma.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(path), size], check=True)
    return path


def spec_of(path: Path, firmware: str = "bios", memory_mib: int = 64) -> MachineSpec:
    # The disk has no boot loader: the firmware waits for ever, which is enough for these tests.
    drives = (Drive("pvscsi", path, "vmdk"),)
    return MachineSpec(drives, ("vmxnet3",), memory_mib, cpus=1, firmware=firmware)


def qemus(marker: Path) -> list[int]:
    """Return the processes whose command line contains `marker`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if str(marker).encode() in words and words.startswith(b"qemu"):
            found.append(int(entry.name))
    return found


def gone(marker: Path) -> bool:
    deadline = time.monotonic() + 5
    while qemus(marker) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not qemus(marker)


def test_machine_forwards_free_ports_and_writes_its_logs(tmp_path: Path) -> None:
    spec = spec_of(disk(tmp_path))
    with VirtualMachine(spec, tmp_path / "a", tmp_path / "logs, a") as machine:
        assert machine.running
        assert sorted(machine.ports) == [22, 8080]
        for port in machine.ports.values():
            socket.create_connection(("127.0.0.1", port), 5).close()
        assert machine.url == f"http://127.0.0.1:{machine.ports[8080]}"
        assert len(qemus(tmp_path)) == 1
    assert not machine.running
    assert not qemus(tmp_path)
    assert "pvscsi" in (tmp_path / "logs, a" / "qemu.txt").read_text()


def test_two_machines_on_one_disk_have_own_ports_and_leave_it_unchanged(tmp_path: Path) -> None:
    path = disk(tmp_path)
    before = path.read_bytes()
    small, large = (
        spec_of(path).with_overlays(tmp_path / n, size) for n, size in (("a", None), ("b", 2**26))
    )
    with (
        VirtualMachine(small, tmp_path / "a", tmp_path / "a") as one,
        VirtualMachine(large, tmp_path / "b", tmp_path / "b") as two,
    ):
        assert len({*one.ports.values(), *two.ports.values()}) == 4
        texts = [(tmp_path / name / "qemu.txt").read_text() for name in ("a", "b")]
        macs = [re.findall(r"mac=(00:0c:29(?::[0-9a-f]{2}){3})", text) for text in texts]
        assert [len(found) for found in macs] == [1, 1]
        assert macs[0] != macs[1]
    sizes = [
        json.loads(
            subprocess.run(
                ["qemu-img", "info", "--output=json", str(spec.drives[0].path)],
                capture_output=True,
                check=True,
            ).stdout
        )["virtual-size"]
        for spec in (small, large)
    ]
    assert sizes == [2**24, 2**26]
    assert path.read_bytes() == before


def test_machine_resets_and_shows_the_firmware_on_the_console(tmp_path: Path) -> None:
    spec = spec_of(disk(tmp_path), firmware="efi", memory_mib=256)
    with VirtualMachine(spec, tmp_path / "s", tmp_path / "logs") as machine:
        machine.reset()
        begun = machine.cpu_seconds
        machine.console.expect("BdsDxe", 60)
        used = machine.cpu_seconds
    assert 0 < begun < used == machine.cpu_seconds
    assert b"BdsDxe" in (tmp_path / "logs" / "console.log").read_bytes()


def test_machine_that_cannot_start_says_what_qemu_said(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"nowhere\.vmdk"),
        VirtualMachine(spec_of(tmp_path / "nowhere.vmdk"), tmp_path, tmp_path),
    ):
        pass
    assert not qemus(tmp_path)


def test_overlay_of_what_is_no_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.vmdk").write_text("no disk")
    with pytest.raises(Failure, match=r"x\.vmdk"):
        spec_of(tmp_path / "x.vmdk").with_overlays(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_machine_is_ended_by_any_exception(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), VirtualMachine(spec_of(disk(tmp_path)), tmp_path, tmp_path):
        assert qemus(tmp_path)
        raise error
    assert not qemus(tmp_path)


def test_powerdown_of_a_guest_that_does_not_listen_fails_in_time(tmp_path: Path) -> None:
    with VirtualMachine(spec_of(disk(tmp_path)), tmp_path, tmp_path) as machine:
        with pytest.raises(MachineError, match=r"still running 0\.5 s later"):
            machine.powerdown(0.5)
        assert machine.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_machine_dies_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    disk(tmp_path)
    program = f"""
import sys, time
from pathlib import Path
from hyraxvm.vm.machine import VirtualMachine
from hyraxvm.vm.qemu import Drive, MachineSpec
folder = Path({str(tmp_path)!r})
spec = MachineSpec((Drive("pvscsi", folder / "disk, with a comma.vmdk", "vmdk"),), (), 64, 1)
with VirtualMachine(spec, folder, folder):
    print("up", flush=True)
    time.sleep(60)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(qemus(tmp_path)) == 1
        process.send_signal(number)
        process.wait(10)
    assert gone(tmp_path)


def test_free_port_falls_back_where_the_wanted_one_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert free_port(port) not in (port, 0)
    assert free_port(port) == port


def test_interactive_runs_in_the_foreground_until_ctrl_a_x(tmp_path: Path) -> None:
    path = disk(tmp_path)
    before = path.read_bytes()
    program = f"""
from pathlib import Path
from hyraxvm.vm.machine import interactive
from hyraxvm.vm.qemu import Drive, MachineSpec
spec = MachineSpec((Drive("pvscsi", Path({str(path)!r}), "vmdk"),), ("vmxnet3",), 64, 1)
raise SystemExit(interactive(spec, say=lambda line: print(line, flush=True)))
"""
    child = pexpect.spawn(sys.executable, ["-c", program], encoding="utf-8", timeout=20)
    try:
        child.expect("Ctrl-A X ends the machine")
        port = re.search(r"http://127\.0\.0\.1:(\d+)/opendap/", child.before)
        assert port
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", int(port[1])), 5).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail(f"port {port[1]} is not forwarded")
        child.send("\x01x")
        child.expect(pexpect.EOF)
        child.wait()
        assert child.exitstatus == 0
    finally:
        child.close(force=True)
    assert path.read_bytes() == before


def test_an_emulator_that_lost_a_timer_is_recognized(tmp_path: Path) -> None:
    """The words are those of a Linux 6.1 that hung so."""
    console = tmp_path / "console.log"
    assert not emulator_failed(console)
    stall = (
        "[{}] rcu: INFO: rcu_preempt detected stalls on CPUs/tasks:\r\n"
        "[{}] rcu: rcu_preempt kthread timer wakeup didn't happen for 5251 jiffies! g-1123 f0x0 "
        "RCU_GP_WAIT_FQS(5) ->state=0x402\r\n"
    )
    console.write_text(stall.format("   23.510429", "   23.510429"))
    assert not emulator_failed(console)
    with console.open("a") as log:
        log.write(stall.format("   44.527028", "   44.527028"))
    assert emulator_failed(console)


def test_an_emulator_that_runs_stale_code_is_recognized(tmp_path: Path) -> None:
    """The words are those of a Linux 6.12 in QEMU 7.2."""
    console = tmp_path / "console.log"
    console.write_text("[    2.931684] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\r\n")
    assert emulator_failed(console)
    console.write_text("[    2.931684] Oops: general protection fault, 0000 [#1] SMP\r\n")
    assert not emulator_failed(console)
