"""QEMU's command line, the choice of the accelerator, the console, and that no QEMU is left."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pexpect  # type: ignore[import-untyped]
import pytest

from hyraxvm.console import Console, ConsoleError
from hyraxvm.errors import Failure, UserError
from hyraxvm.machine import Machine, MachineError, free_port
from hyraxvm.qemu import Drive, MachineSpec, choose_accelerator, qemu_argv
from hyraxvm.vmx import VmxSpec, parse_vmx, render_vmx


def disk(folder: Path, size: str = "16M") -> Path:
    path = folder / "disk, with a comma.vmdk"
    subprocess.run(["qemu-img", "create", "-q", "-f", "vmdk", str(path), size], check=True)
    return path


def spec_of(path: Path, **changes: object) -> MachineSpec:
    # No boot loader on the disk: the firmware waits for ever, which is all that these tests need.
    fields = {"nics": ("vmxnet3",), "memory_mb": 64, "cpus": 1, **changes}
    return MachineSpec(drives=(Drive("pvscsi", path, "vmdk"),), **fields)  # type: ignore[arg-type]


# --- the command line -------------------------------------------------------------------------


def pairs(argv: list[str], option: str) -> list[str]:
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_argv_has_the_devices_that_the_vmx_declares() -> None:
    vmx = parse_vmx(render_vmx(VmxSpec(display_name="x", disks=("a.vmdk",), nvram="n")))
    spec = MachineSpec.from_vmx(vmx, Path("/folder, odd"))
    mac = "00:0c:29:00:00:01"
    argv = qemu_argv(
        spec, "tcg", ports={8080: 18080, 22: 0}, serial=["-serial", "null"], macs=[mac]
    )
    assert pairs(argv, "-device") == [
        "VGA",
        "pvscsi,id=pvscsi",
        "scsi-hd,bus=pvscsi.0,drive=disk0_0,bootindex=1",
        f"vmxnet3,netdev=net0,romfile=,mac={mac}",
    ]
    assert pairs(argv, "-netdev") == [
        "user,id=net0,hostfwd=tcp:127.0.0.1:0-:22,hostfwd=tcp:127.0.0.1:18080-:8080"
    ]
    (block,) = map(json.loads, pairs(argv, "-blockdev"))
    assert block["driver"] == "vmdk"
    assert block["file"] == {"driver": "file", "filename": "/folder, odd/a.vmdk"}
    assert (pairs(argv, "-m"), pairs(argv, "-smp")) == (["1024M"], ["2"])
    assert pairs(argv, "-machine") == ["pc"]
    assert (pairs(argv, "-accel"), pairs(argv, "-cpu")) == (["tcg,thread=multi"], ["Nehalem"])


@pytest.mark.parametrize(
    ("controller", "nic", "devices"),
    [
        ("lsisas1068", "e1000", ["mptsas1068,id=lsisas1068", "e1000,netdev=net0,romfile="]),
        ("virtio", "virtio", ["virtio-scsi-pci,id=virtio", "virtio-net-pci,netdev=net0,romfile="]),
        ("pvscsi", "e1000e", ["pvscsi,id=pvscsi", "e1000e,netdev=net0,romfile="]),
    ],
)
def test_argv_of_the_other_devices(controller: str, nic: str, devices: list[str]) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=(nic,))
    argv = qemu_argv(spec, "kvm", ports={}, serial=[])
    assert [pairs(argv, "-device")[1], pairs(argv, "-device")[-1]] == devices
    assert (pairs(argv, "-accel"), pairs(argv, "-cpu")) == (["kvm"], ["host"])


@pytest.mark.parametrize(
    ("controller", "device"), [("ide", "ide-hd"), ("virtio-blk", "virtio-blk-pci")]
)
def test_argv_of_disks_without_a_controller_of_their_own(controller: str, device: str) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=())
    argv = qemu_argv(spec, "tcg", ports={}, serial=[])
    assert pairs(argv, "-device") == ["VGA", f"{device},drive=disk0_0,bootindex=1"]


def test_argv_gives_each_sas_disk_an_address() -> None:
    drives = tuple(Drive("lsisas1068", Path(name), "raw") for name in "ab")
    argv = qemu_argv(MachineSpec(drives=drives, nics=()), "tcg", ports={}, serial=[])
    assert pairs(argv, "-device")[2:] == [
        "scsi-hd,bus=lsisas1068.0,drive=disk0_0,bootindex=1,wwn=0x5000c50000000001",
        "scsi-hd,bus=lsisas1068.0,drive=disk0_1,wwn=0x5000c50000000002",
    ]


def test_argv_efi_has_the_code_read_only_and_private_variables() -> None:
    spec = MachineSpec(drives=(Drive("pvscsi", Path("d"), "raw"),), nics=(), firmware="efi")
    argv = qemu_argv(spec, "tcg", ports={}, serial=[], variables=Path("/scratch/vars"))
    code, variables, _ = map(json.loads, pairs(argv, "-blockdev"))
    assert pairs(argv, "-machine") == ["pc,pflash0=code,pflash1=vars"]
    assert code["filename"].endswith("OVMF_CODE_4M.fd")
    assert code["read-only"] is True
    assert variables["filename"] == "/scratch/vars"
    assert "read-only" not in variables


@pytest.mark.parametrize(
    ("controller", "nic", "said"),
    [
        ("lsilogic", "e1000", "disk controller 'lsilogic': QEMU emulates only pvscsi, lsisas1068"),
        ("pvscsi", "ne2k", "network card 'ne2k': QEMU emulates only vmxnet3, e1000"),
    ],
)
def test_argv_refuses_unknown_devices(controller: str, nic: str, said: str) -> None:
    spec = MachineSpec(drives=(Drive(controller, Path("d"), "raw"),), nics=(nic,))
    with pytest.raises(UserError, match=said):
        qemu_argv(spec, "tcg", ports={}, serial=[])


# --- the accelerator --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "device", "name", "reason"),
    [
        ("fpu vmx sse", "/dev/null", "kvm", "/dev/null can be used"),
        ("fpu svm sse", "/dev/null", "kvm", "can be used"),
        ("fpu sse", "/dev/null", "tcg", "neither vmx nor svm"),
        ("fpu vmxnet svm_lock", "/dev/null", "tcg", "neither vmx nor svm"),
        ("fpu vmx", "/dev/nowhere", "tcg", "/dev/nowhere: No such file"),
        ("fpu vmx", "/proc", "tcg", "/proc: Is a directory"),
    ],
)
def test_choose_accelerator(
    tmp_path: Path, flags: str, device: str, name: str, reason: str
) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"processor\t: 0\nmodel name\t: vmx svm\nflags\t\t: {flags}\nbugs\t: svm\n")
    found = choose_accelerator(cpuinfo, Path(device))
    assert found.name == name
    assert reason in found.reason


# --- the console ------------------------------------------------------------------------------


@contextlib.contextmanager
def terminal(command: str, folder: Path) -> Iterator[Console]:
    """A console on `command`, run in a real terminal of 80 columns."""
    log = folder / "console.log"
    with (
        log.open("ab") as shown,
        subprocess.Popen(
            ["script", "-qec", command, "/dev/null"],
            stdin=subprocess.PIPE,
            stdout=shown,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], "PS1": "opendap@hyrax-vm:~$ ", "TERM": "vt220"},
        ) as process,
    ):
        assert process.stdin is not None
        console = Console(log, process.stdin, lambda: process.poll() is None)
        try:
            yield console
        finally:
            console.close()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(params=["sh", "bash --norc"])
def console(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Console]:
    """A console on a real shell at a prompt like Debian's, with something shown before."""
    (tmp_path / "console.log").write_text("".join(f"line {n}\n" for n in range(100)))
    with terminal(request.param, tmp_path) as console:
        console.expect(r"\$ ", 10)
        console.prepare()
        yield console


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("true", 0, ""),
        ("exit 7", 7, ""),
        ("echo out; echo err >&2; false", 1, "out\nerr"),
        ("printf 'no newline'", 0, "no newline"),
        ("printf 'a\\n\\nb\\n\\n'", 0, "a\n\nb\n"),
        ("printf '%0500d' 7", 0, "0" * 499 + "7"),
        ("cat; echo 'stdin is empty'", 0, "stdin is empty"),
        ("echo '$HOME' \"it's\" '|&;<>'", 0, "$HOME it's |&;<>"),
        ("echo 'Cádiz €'", 0, "Cádiz €"),
        ("echo end-0123456789abcdef 0", 0, "end-0123456789abcdef 0"),
        (f"echo {'x' * 2500} | wc -c", 0, "2501"),
        ("seq 2000", 0, "\n".join(str(n) for n in range(1, 2001))),
    ],
)
def test_console_runs_commands(console: Console, command: str, status: int, output: str) -> None:
    assert console.run(command, 10) == (status, output)
    assert console.run("echo again", 10) == (0, "again")


def test_console_check_tells_what_failed(console: Console) -> None:
    assert console.check("echo fine") == "fine"
    with pytest.raises(
        ConsoleError, match=r"(?s)^LC_ALL=C ls /nowhere: exit status 2: .*No such file"
    ):
        console.check("LC_ALL=C ls /nowhere")


def test_console_deadline_shows_the_last_50_lines(console: Console) -> None:
    begun = time.monotonic()
    with pytest.raises(ConsoleError) as caught:
        console.run("sleep 5", 0.5)
    assert time.monotonic() - begun < 3
    assert "no answer within 0.5 s" in str(caught.value)
    _, shown = str(caught.value).split("--- the console's last lines ---\n")
    assert len(shown.splitlines()) == 50
    assert "line 99\n" in shown
    assert "\x1b" not in shown


@pytest.mark.parametrize("command", ["a\nb", "x" * 3001])
def test_console_refuses_what_a_terminal_cannot_take(console: Console, command: str) -> None:
    with pytest.raises(ValueError, match="one line of 3,000 bytes"):
        console.run(command)


def test_console_logs_in_only_with_the_right_password(tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        stty -echo
        seen=
        while :; do
            printf 'hyrax-vm login: '; read -r user
            # The banner is renewed while the name is typed.
            [ -n "$seen" ] || { seen=1; printf '\\nnews\\nhyrax-vm login: '; read -r user; }
            printf 'Password: '; read -r password
            [ "$user/$password" = opendap/right ] && break
            printf '\\nLogin incorrect\\n'
        done
        PS1='opendap@hyrax-vm:~$ ' exec sh -i
        """
    )
    path = tmp_path / "login.sh"
    path.write_text(script)
    with terminal(f"sh {path}", tmp_path) as console:
        assert console.try_login("opendap", "wrong", 10) is False
        console.login("opendap", "right", 10)
        assert console.run("echo $((6 * 7))", 10) == (0, "42")


def test_console_of_a_machine_that_ends_does_not_wait_for_the_deadline(tmp_path: Path) -> None:
    with terminal("echo last words", tmp_path) as console:
        begun = time.monotonic()
        assert "last words" in console.expect("words", 30)
        with pytest.raises(ConsoleError, match="the machine ended"):
            console.expect("more", 30)
        assert time.monotonic() - begun < 10


# --- the machine ------------------------------------------------------------------------------


def qemus(marker: Path) -> list[int]:
    """The processes whose command line names `marker`."""
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
    with Machine(spec, tmp_path / "a", tmp_path / "logs, a") as machine:
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
        spec_of(path).over(tmp_path / n, size) for n, size in (("a", None), ("b", 2**26))
    )
    with (
        Machine(small, tmp_path / "a", tmp_path / "a") as one,
        Machine(large, tmp_path / "b", tmp_path / "b") as two,
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
    spec = spec_of(disk(tmp_path), firmware="efi", memory_mb=256)
    with Machine(spec, tmp_path / "s", tmp_path / "logs") as machine:
        machine.reset()
        machine.console.expect("BdsDxe", 60)
    assert b"BdsDxe" in (tmp_path / "logs" / "console.log").read_bytes()


def test_machine_that_cannot_start_says_what_qemu_said(tmp_path: Path) -> None:
    with (
        pytest.raises(MachineError, match=r"nowhere\.vmdk"),
        Machine(spec_of(tmp_path / "nowhere.vmdk"), tmp_path, tmp_path),
    ):
        pass
    assert not qemus(tmp_path)


def test_overlay_of_what_is_no_disk_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.vmdk").write_text("no disk")
    with pytest.raises(Failure, match=r"x\.vmdk"):
        spec_of(tmp_path / "x.vmdk").over(tmp_path)


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_machine_is_ended_by_any_exception(tmp_path: Path, error: type[BaseException]) -> None:
    with pytest.raises(error), Machine(spec_of(disk(tmp_path)), tmp_path, tmp_path):
        assert qemus(tmp_path)
        raise error
    assert not qemus(tmp_path)


def test_powerdown_of_a_guest_that_does_not_listen_fails_in_time(tmp_path: Path) -> None:
    with Machine(spec_of(disk(tmp_path)), tmp_path, tmp_path) as machine:
        with pytest.raises(MachineError, match=r"still running 0\.5 s later"):
            machine.powerdown(0.5)
        assert machine.running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_machine_dies_with_its_process(tmp_path: Path, number: signal.Signals) -> None:
    disk(tmp_path)
    program = f"""
import sys, time
from pathlib import Path
from hyraxvm.machine import Machine
from hyraxvm.qemu import Drive, MachineSpec
folder = Path({str(tmp_path)!r})
spec = MachineSpec((Drive("pvscsi", folder / "disk, with a comma.vmdk", "vmdk"),), (), 64, 1)
with Machine(spec, folder, folder):
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
from hyraxvm.machine import interactive
from hyraxvm.qemu import Drive, MachineSpec
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
