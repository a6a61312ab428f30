"""Slow clients and many of them: the front door keeps answering everybody else."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from tests.unit.guest.front_door import ECHO, MIB, DataServer, FrontDoor


def answered(door: FrontDoor, seconds: float = 5.0) -> None:
    """Assert that another reader is answered in time."""
    began = time.monotonic()
    assert door.get(ECHO, source="127.0.0.9", timeout=seconds).status == 200
    assert time.monotonic() - began < seconds


def test_clients_that_trickle_their_header_end_in_time(closed: FrontDoor) -> None:
    closed.edit("http-clients.conf", "client_header_timeout 15s", "client_header_timeout 3s")
    closed.start()
    clients = [closed.connect() for _ in range(80)]
    began = time.monotonic()
    for client in clients:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    while time.monotonic() - began < 4.5:
        for client in clients:
            with suppress(OSError):
                client.send(b"x")
        answered(closed)
        time.sleep(0.3)
    for client in clients:
        client.setblocking(False)
        # Not BlockingIOError: the connection is closed.
        with suppress(ConnectionResetError):
            assert client.recv(1000)[:12] in (b"", b"HTTP/1.1 408")
        client.close()


def test_readers_that_are_slow_hold_no_worker_of_the_server(door: FrontDoor) -> None:
    """The server has four workers, and each answer is larger than the buffers of the kernel."""
    clients = [door.connect() for _ in range(40)]
    for client in clients:
        client.sendall(b"GET /opendap/8.bin HTTP/1.0\r\n\r\n")
    for _ in range(5):
        for client in clients:
            assert client.recv(16384)
        answered(door)
        time.sleep(0.5)
    for client in clients:
        client.close()


def test_silent_connections_and_a_thousand_requests_at_once(door: FrontDoor) -> None:
    silent = []
    with ThreadPoolExecutor(250) as pool:
        asked = [
            pool.submit(door.get, ECHO, source=f"127.0.1.{number % 20 + 1}", timeout=60)
            for number in range(1000)
        ]
        for _ in range(3):
            silent += [door.connect() for _ in range(10)]
            answered(door)
            time.sleep(0.3)
        answers = [each.result() for each in asked]
    # Nobody's connection is dropped.
    assert {each.status for each in answers} == {200}
    for client in silent:
        client.close()


def test_a_reader_with_too_many_requests_at_once_is_asked_to_wait(closed: FrontDoor) -> None:
    closed.guest.write("usr/lib/hyrax/front-door", "reader_connections=3\n")
    closed.start()
    held = [closed.connect("127.0.0.5") for _ in range(3)]
    for client in held:
        client.sendall(b"GET /opendap/64.bin HTTP/1.0\r\n\r\n")
        assert client.recv(1000)
    refused = closed.get(ECHO, source="127.0.0.5")
    assert (refused.status, refused.headers["Retry-After"]) == (503, "10")
    assert refused.text.startswith("Too many requests at the same time.")
    # Its pages, and other readers.
    assert closed.get("/", source="127.0.0.5").status == 200
    answered(closed)
    for client in held:
        client.close()


def test_a_large_download_to_a_slow_reader_does_not_fill_the_disk(
    closed: FrontDoor, server: DataServer
) -> None:
    closed.edit("limits.sh", '"$buffer" -le 256', '"$buffer" -le 4')
    closed.edit("limits.sh", "buffer=256", "buffer=4")
    closed.start()
    with closed.connect() as slow:
        slow.sendall(b"GET /opendap/4096.bin HTTP/1.0\r\n\r\n")
        assert slow.recv(1000)
        before = -1
        while server.sent != before:
            before = server.sent
            time.sleep(0.5)
        # The bound, and what the kernel and nginx have in memory.
        assert 4 * MIB < server.sent < 16 * MIB
        answered(closed)


def test_the_space_for_slow_readers_follows_the_disk(closed: FrontDoor) -> None:
    def free(mib: int) -> int:
        """Have this many MiB free; return how often `health` has the front door set up again."""
        closed.guest.stand_in("stat", f"echo {mib * 256} 4096")
        closed.guest.write("calls.log", "")
        assert closed.guest.run("usr/lib/hyrax-vm/health", "once") == (0, "", "")
        return closed.guest.read("calls.log").count("--no-block reload hyrax-front-door.service")

    limits = "run/hyrax/front-door/data-limits.conf"
    assert free(8192) == 0  # there is no front door yet
    closed.start()
    assert "proxy_max_temp_file_size 8m;" in closed.guest.read(limits)
    assert [free(mib) for mib in (16_000, 8192, 4097)] == [0, 0, 0]
    assert free(17_000) == 1
    assert free(4000) == 1
    # A full disk: nothing waits there.
    assert free(3) == 1
    closed.reload()
    assert "proxy_max_temp_file_size 0m;" in closed.guest.read(limits)
    assert closed.get("/opendap/8.bin").body == bytes(8 * MIB)
    assert [free(mib) for mib in (0, 5, 500)] == [0, 0, 0]
    closed.guest.write("run/hyrax/front-door.problem", "unknown directive\n")
    assert free(8192) == 0
