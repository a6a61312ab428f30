"""The front door of a booted machine: what it is confined to, /health, slow and many clients."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from hyraxvm.vm.qemu import HTTP
from tests.boot.guest import Answer, Guest
from tests.boot.machines import RecordProperty

UNIT = "hyrax-front-door.service"
SAMPLE = "/opendap/sample/sst.nc.dds"
CALM = 5.0  # seconds in which another client is answered, whatever some clients do
REPEATED = 200
# These tests cost much, and what they test is the same in all images.
once = pytest.mark.access("nfs")


def links(guest: Guest) -> dict[str, str]:
    """Return link -> state, as `hyrax-server status` shows the chain."""
    said = json.loads(guest.run("hyrax-server status --json").output)
    return {row["link"]: row["state"] for row in said["links"]}


def health(guest: Guest, status: int, seconds: float = 60) -> Answer:
    """Wait until /health has this status; nginx may be on its way back."""
    deadline = time.monotonic() + seconds
    last: object = None
    while time.monotonic() < deadline:
        with suppress(OSError):
            last = answer = guest.get("/health", timeout=5)
            if answer.status == status:
                return answer
        time.sleep(0.5)
    raise AssertionError(last)


def test_it_is_confined(guest: Guest) -> None:
    pid = guest.check(f"systemctl show --value -p MainPID {UNIT}")
    status = guest.check(f"grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/{pid}/status")
    found = dict(line.split(":\t") for line in status.splitlines())
    bind = 1 << 10  # CAP_NET_BIND_SERVICE
    assert int(found["CapEff"], 16) == int(found["CapBnd"], 16) == bind
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    assert guest.check(f"ps -o user:20= -p {pid}") == "hyrax-front-door"
    inside = f"sudo -n nsenter -t {pid} -m --"
    assert guest.run(f"{inside} ls /srv/hyrax/sample").status != 0
    assert guest.check("systemctl is-enabled nginx.service || true") == "masked"
    # The data server itself is not on the network.
    listening = guest.check("sudo -n ss -H -l -n -t").splitlines()
    (behind,) = [line.split()[3] for line in listening if line.split()[3].endswith(":8081")]
    assert behind.rpartition(":")[0].strip("[]").removeprefix("::ffff:") == "127.0.0.1"


def test_it_answers_over_ipv6(guest: Guest) -> None:
    assert guest.check(f"curl -s -g 'http://[::1]:{HTTP}{SAMPLE}'").startswith("Dataset {")


def test_health_says_whether_data_are_served(guest: Guest) -> None:
    assert health(guest, 200).text == "data are served\n"
    guest.check("hyrax-server drain")
    answer = guest.get("/health")
    assert answer.status == 503
    assert "drained since" in answer.text
    assert guest.get(SAMPLE).status == 200
    guest.check("hyrax-server undrain")
    assert guest.get("/health").status == 200


@once
def test_status_names_the_broken_link(guest: Guest) -> None:
    assert set(links(guest).values()) == {"ok"}
    guest.check("sudo -n systemctl stop $(cat /usr/lib/hyrax/units)")
    try:
        answer = guest.get(SAMPLE)
        assert (answer.status, answer.headers["Retry-After"]) == (503, "10")
        assert guest.get("/").status == 200
        assert health(guest, 503).text == "the data server does not serve its samples\n"
        found = links(guest)
        assert (found["front door"], found["data server"]) == ("ok", "broken")
    finally:
        guest.check("hyrax-server restart", timeout=300)
    health(guest, 200)
    guest.check(f"sudo -n systemctl stop {UNIT}")
    found = links(guest)
    assert (found["front door"], found["data server"]) == ("broken", "ok")
    guest.check(f"sudo -n systemctl start {UNIT}")
    health(guest, 200)


@once
def test_it_is_back_after_a_crash(guest: Guest, record_property: RecordProperty) -> None:
    guest.check(f"sudo -n systemctl kill --signal=KILL {UNIT}")
    began = time.monotonic()
    while True:
        with suppress(OSError):
            if guest.get("/", timeout=3).status == 200:
                break
        assert time.monotonic() < began + 60
        time.sleep(0.2)
    record_property("front door: seconds after kill -9", round(time.monotonic() - began, 1))


@once
def test_it_costs_little(guest: Guest, record_property: RecordProperty) -> None:
    used = int(guest.check(f"systemctl show --value -p MemoryCurrent {UNIT}"))
    record_property("front door: memory in MB", round(used / 1e6, 1))
    assert used < 40e6
    seconds: dict[int, float] = {}
    for _ in range(2):
        for port in (8081, HTTP):
            url = f"http://127.0.0.1:{port}{SAMPLE}?#[1-{REPEATED}]"
            said = guest.check(
                f'sh -c \'b=$(date +%s%N); curl -s -o /dev/null "{url}"; e=$(date +%s%N); '
                "echo $((e - b))'",
                timeout=300,
            )
            seconds[port] = min(seconds.get(port, 1e9), int(said) / 1e9)
    record_property("dds per second, directly", round(REPEATED / seconds[8081], 1))
    record_property("dds per second, front door", round(REPEATED / seconds[HTTP], 1))


# ------------------------------------------------------------------------ slow and many clients


@pytest.fixture
def clients(guest: Guest) -> Iterator[list[socket.socket]]:
    """Connections that the test opens; they are closed at its end."""
    opened: list[socket.socket] = []
    yield opened
    for client in opened:
        client.close()


def connect(guest: Guest, clients: list[socket.socket]) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    made.settimeout(20)
    made.connect(("127.0.0.1", guest.machine.ports[HTTP]))
    clients.append(made)
    return made


def slowest(guest: Guest, clients: list[socket.socket], what: bytes, seconds: float) -> float:
    """Have all clients send or read a little, again and again; return another client's wait."""
    worst, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        for client in clients:
            with suppress(OSError):
                client.send(what) if what else client.recv(16384)
        began = time.monotonic()
        assert guest.get(SAMPLE).status == 200
        worst = max(worst, time.monotonic() - began)
        time.sleep(0.2)
    return worst


@once
def test_slow_clients_do_not_keep_others_waiting(
    guest: Guest, clients: list[socket.socket], record_property: RecordProperty
) -> None:
    for _ in range(80):
        connect(guest, clients).sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    trickling = slowest(guest, clients, b"x", 15)
    readers: list[socket.socket] = []
    try:
        # From one address the OLFS gets 12 of them at a time; the others are asked to wait.
        for _ in range(40):
            request = b"GET /opendap/sample/sst.nc.ascii HTTP/1.0\r\n\r\n"
            connect(guest, readers).sendall(request)
        reading = slowest(guest, readers[:40], b"", 10)
    finally:
        for client in readers:
            client.close()
    record_property("another client waits beside 80 that trickle, s", round(trickling, 1))
    record_property("another client waits beside 40 slow readers, s", round(reading, 1))
    assert max(trickling, reading) < CALM


@once
def test_a_thousand_requests_at_once_drop_no_connection(
    guest: Guest, record_property: RecordProperty
) -> None:
    # They come from the guest itself: QEMU's user network has a queue for one connection only.
    url = f"http://10.0.2.15:{HTTP}{SAMPLE}?#[1-1000]"
    began = time.monotonic()
    # After some seconds curl writes a table of its transfers to standard error, in spite of -s.
    said = guest.check(
        "curl -s -Z --parallel-immediate --parallel-max 200 -m 120 -H 'Connection: close' "
        f"-o /dev/null -w '%{{http_code}} %{{exitcode}}\\n' '{url}' 2>/dev/null | sort | uniq -c",
        timeout=300,
    )
    record_property("seconds for 1,000 requests at once", round(time.monotonic() - began, 1))
    counts = {answer: int(n) for n, answer in (x.split(maxsplit=1) for x in said.splitlines())}
    assert sum(counts.values()) == 1000
    assert counts.keys() <= {"200 0", "503 0"}
    assert counts["200 0"]
    began = time.monotonic()
    assert guest.get(SAMPLE).status == 200
    assert time.monotonic() - began < CALM
    used = int(guest.check(f"systemctl show --value -p MemoryCurrent {UNIT}"))
    record_property("front door: memory afterwards in MB", round(used / 1e6, 1))
