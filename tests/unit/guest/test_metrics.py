"""/metrics: what Prometheus' own client library reads, through the real nginx."""

from __future__ import annotations

import json
import math
import re
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.unit.guest.front_door import DataServer, until
from tests.unit.guest.guest_copy import Guest
from tests.unit.guest.https_door import HttpsDoor

DASHBOARD = Path(__file__).parents[3] / "docs/grafana-dashboard.json"
Metrics = dict[str, dict[tuple[str, ...], float]]


@pytest.fixture
def door(guest: Guest) -> Iterator[HttpsDoor]:
    server = DataServer()
    made = HttpsDoor(guest, server.port)
    guest.write("srv/hyrax/data/sst/a.nc", "")
    guest.write("proc/meminfo", "MemTotal: 2000000 kB\nMemAvailable: 1500000 kB\n")

    class Handler(socketserver.BaseRequestHandler):
        """One process for each connection, as hyrax-metrics.socket does with Accept=yes."""

        def handle(self) -> None:
            program = guest.root / "usr/lib/hyrax-vm/metrics"
            connection = self.request.fileno()
            subprocess.run(
                [program], stdin=connection, stdout=connection, env=guest.env, timeout=60
            )

    listener = socketserver.ThreadingUnixStreamServer(
        str(guest.root / "run/hyrax/metrics.sock"), Handler
    )
    threading.Thread(target=listener.serve_forever, args=(0.02,), daemon=True).start()
    made.start()
    yield made
    made.stop()
    listener.shutdown()
    listener.server_close()
    server.stop()


def scrape(door: HttpsDoor) -> Metrics:
    """Return metric -> values of its labels, sorted by the labels' names -> value."""
    answer = door.get("/metrics", timeout=60)
    assert answer.status == 200, answer.text
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    found: Metrics = {}
    for family in text_string_to_metric_families(answer.text):
        assert family.documentation
        assert family.type in ("counter", "gauge"), family
        for sample in family.samples:
            key = tuple(value for _, value in sorted(sample.labels.items()))
            assert key not in found.setdefault(sample.name, {})
            found[sample.name][key] = sample.value
    return found


def put(door: HttpsDoor, *words: str) -> None:
    status, out, err = door.guest.run("usr/bin/hyrax-server", "set", *words)
    assert status == 0, out + err


def test_the_values_are_those_of_the_machine(door: HttpsDoor, port: int, closed_port: int) -> None:
    for name, where in (("near", port), ("far", closed_port)):
        door.guest.write(
            f"etc/hyrax/data.d/{name}.conf", f"NAME={name}\nURL=nfs://127.0.0.1:{where}/x\n"
        )
    put(door, "proxy", "127.0.0.1")
    reader = {"X-Forwarded-For": "198.51.100.7", "User-Agent": "netCDF"}
    for _ in range(3):
        door.get("/opendap/data/sst/1.bin", reader)
    door.get("/opendap/data/sst/a.nc", {**reader, "User-Agent": "Googlebot"})
    log = door.guest.root / "var/log/hyrax-front-door/access.log"
    until(lambda: log.read_text().count("\n") == 4)
    door.guest.write("run/hyrax/health/ok", "data are served\n")
    found = scrape(door)
    assert found["hyrax_requests_total"] == {("sst", "no", "200"): 3, ("sst", "yes", "200"): 1}
    sent = found["hyrax_response_bytes_total"][("sst", "no", "200")]
    assert 3 * 2**20 < sent < 3 * 2**20 + 5000
    rows = [json.loads(row) for row in log.read_text().splitlines()]
    seconds = sum(row["seconds"] for row in rows if row["agent"] == "netCDF")
    assert found["hyrax_request_seconds_total"][("sst", "no", "200")] == pytest.approx(
        seconds, abs=0.002
    )
    assert found["hyrax_dataset_up"] == {
        ("far", "away"): 0, ("near", "waiting"): 1, ("sst", "local"): 1
    }  # fmt: skip
    latency = found["hyrax_dataset_latency_seconds"]
    assert 0 < latency[("near",)] < 1
    assert math.isnan(latency[("far",)]) and math.isnan(latency[("sst",)])
    assert found["hyrax_memory_bytes"] == {("total",): 2_048_000_000, ("available",): 1_536_000_000}
    assert 0 < found["hyrax_disk_bytes"][("free",)] <= found["hyrax_disk_bytes"][("size",)]
    assert (found["hyrax_up"][()], found["hyrax_drained"][()]) == (1, 0)
    assert found["hyrax_connections"][("open",)] >= 1
    assert "hyrax_certificate_days" not in found
    # Its own questions are no requests of readers.
    assert scrape(door)["hyrax_requests_total"] == found["hyrax_requests_total"]
    assert door.https("--self-signed")[0] == 0
    # All 825 days are left only within the second in which it was made.
    assert scrape(door)["hyrax_certificate_days"] in ({(): 824}, {(): 825})


def test_only_this_machine_and_the_networks_that_are_set(door: HttpsDoor) -> None:
    put(door, "proxy", "127.0.0.1")
    other = {"X-Forwarded-For": "192.0.2.9"}
    refused = door.get("/metrics", other)
    assert refused.status == 403
    assert "hyrax-server set metrics NETWORK" in refused.text
    put(door, "metrics", "192.0.2.0/24 2001:db8::/64")
    assert door.get("/metrics", other, timeout=60).status == 200
    assert door.get("/metrics", {"X-Forwarded-For": "2001:db8::7"}, timeout=60).status == 200
    assert door.get("/metrics", {"X-Forwarded-For": "192.0.3.9"}).status == 403
    assert door.get("/connections", other).status == 403
    put(door, "metrics", "default")
    assert door.get("/metrics", other).status == 403
    status, _, err = door.guest.run("usr/bin/hyrax-server", "set", "metrics", "everybody")
    assert (status, err.count("\n")) == (2, 1)


def test_the_dashboard_asks_for_metrics_and_labels_that_exist(door: HttpsDoor) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    asked = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    door.guest.write("var/log/hyrax-front-door/access.log", "")
    assert door.https("--self-signed")[0] == 0
    text = door.get("/metrics", timeout=60).text
    known = set(re.findall(r"^# HELP (\S+)", text, re.M))
    names = set(re.findall(r"hyrax_\w+", asked))
    assert names <= known
    assert {"hyrax_requests_total", "hyrax_up", "hyrax_certificate_days"} <= names
    labels = set(re.findall(r'(\w+)="', text)) | {"instance", "dataset", "status", "robot"}
    assert set(re.findall(r"(\w+)=~?\"", asked)) <= labels
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
