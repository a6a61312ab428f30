"""`./inv bench serve`: the embedded server next to other DAP2 servers in Python, natively."""

from __future__ import annotations

import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import netCDF4
import numpy as np

from hyraxvm.core.errors import Failure
from hyraxvm.core.paths import PROVISION
from hyraxvm.core.process import dying_with_parent, output
from hyraxvm.core.workspace import Workspace

# What the peers need, besides dapdir's own packages; installed for this only.
PEERS: Final = [
    *("pydap[server,netcdf]==3.5.9", "gunicorn==27.0.1"),
    *("xpublish==0.5.2", "xpublish-opendap==0.2.0", "opendap-protocol==1.1.1", "netcdf4"),
]
SERVERS: Final = ("dapdir", "pydap", "xpublish-opendap", "opendap-protocol")
SECONDS: Final = 5  # of a row with many requests
CLIENTS: Final = 8  # connections of such a row
SUBSETS: Final = 5000
ROUNDS: Final = 3  # of which the median counts

# Shapes of the variable `v`: 40 kB, 760 kB and 460 MB.
FILES: Final = {"small": (1, 100, 100), "middle": (10, 100, 190), "large": (115, 1000, 1000)}

_XPUBLISH: Final = """
import sys, uvicorn, xarray, xpublish
from pathlib import Path
from xpublish_opendap import OpenDapPlugin
found = {p.stem: xarray.open_dataset(p, chunks={}) for p in Path(sys.argv[1]).glob("*.nc")}
rest = xpublish.Rest(found, plugins={"opendap": OpenDapPlugin()})
uvicorn.run(rest.app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""

_PROTOCOL: Final = """
import sys, netCDF4, numpy, urllib.parse
import opendap_protocol as dap
from pathlib import Path
KINDS = {"f4": dap.Float32, "f8": dap.Float64}
def load(path):
    file = netCDF4.Dataset(path)
    def array(name):
        v = file[name]
        return dict(name=name, data=v, dtype=KINDS[v.dtype.str[1:]])
    dataset = dap.Dataset(name=path.stem)
    maps = [dap.Array(name=n, data=file[n][:], dtype=dap.Float64) for n in "tyx"]
    grid = dap.Grid(name="v", data=file["v"], dtype=dap.Float32, dimensions=maps)
    grid.append(dap.Attribute(name="units", value="K", dtype=dap.String))
    dataset.append(*maps, grid)
    return dataset
found = {p.stem: load(p) for p in Path(sys.argv[1]).glob("*.nc")}
def app(environ, start):
    name, _, suffix = environ["PATH_INFO"].strip("/").rpartition(".")
    dataset = found[name.removesuffix(".nc")]
    query = urllib.parse.unquote(environ.get("QUERY_STRING", ""))
    start("200 OK", [("Content-Type", "application/octet-stream")])
    return getattr(dataset, suffix)(constraint=query)
"""


@contextmanager
def _running(command: list[str], url: str, environment: dict[str, str]) -> Iterator[str]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            dying_with_parent(command), env=environment, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            end = time.monotonic() + 60
            port = int(url.split(":")[2].split("/")[0])
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                    break
                if time.monotonic() > end or process.poll() is not None:
                    log.seek(0)
                    raise Failure(f"{command[0]} does not answer: {log.read()[-500:]!r}")
                time.sleep(0.05)
            yield url
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(15)
            process.kill()
            process.wait()


def _port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _peers(cache: Path) -> Path:
    """Return the Python of a virtual environment that has the peers."""
    folder = cache / "bench-serve"
    python = folder / "bin" / "python"
    wanted = "\n".join(PEERS)
    done = folder / "packages"
    if not done.is_file() or done.read_text() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        output([str(python), "-m", "pip", "install", "--quiet", *PEERS], deadline=1800)
        done.write_text(wanted)
    return python


@contextmanager
def _server(name: str, python: Path, root: Path) -> Iterator[str]:
    """Start a server; yield the URL below which the files are, with NAME where one goes."""
    port = _port()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Two processes each, as dapdir has.
    command = [str(python), "-m", "gunicorn", "-w", "2", "--timeout", "600"]
    command += ["-b", f"127.0.0.1:{port}", "--chdir", str(root)]
    path = "/NAME.nc"
    if name == "dapdir":
        command, path = [sys.executable, "-m", "dapdir"], "/opendap/NAME.nc"
        environment |= {"DAPDIR_ROOT": str(root), "DAPDIR_BIND": f"127.0.0.1:{port}"}
        environment["PYTHONPATH"] = str(PROVISION / "servers" / "dapdir")
    elif name == "pydap":
        command.append(f"pydap.wsgi.app:DapServer({str(root)!r})")
    elif name == "xpublish-opendap":
        command = [str(python), "-c", _XPUBLISH, str(root), str(port)]
        path = "/datasets/NAME/opendap"
    else:
        (root / "protocol_app.py").write_text(_PROTOCOL.replace("sys.argv[1]", repr(str(root))))
        command.append("protocol_app:app")
    with _running(command, f"http://127.0.0.1:{port}{path}", environment) as url:
        yield url


def _per_second(url: str) -> float:
    """Return the answers per second to several clients; 0 if some are errors."""
    text = output(
        ["wrk", "-t1", f"-c{CLIENTS}", f"-d{SECONDS}s", "--timeout", "30s", url], deadline=120
    )
    if "Non-2xx" in text:
        return 0
    found = re.search(r"Requests/sec:\s+([\d.]+)", text)
    return float(found[1]) if found else 0


def _megabytes(url: str, path: Path, cold: bool) -> float:
    """Return the MB per second of one response."""
    rates = []
    for _ in range(ROUNDS):
        if cold:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        started = time.monotonic()
        size = output(
            ["curl", "-sgf", "-o", "/dev/null", "-w", "%{size_download}", url], deadline=600
        )
        rates.append(int(size) / 1e6 / (time.monotonic() - started))
    return statistics.median(rates)


def _through_a_socket(path: Path) -> float:
    """Return the MB per second of `dd` of the file, through a socket of this machine."""
    rates = []
    for _ in range(ROUNDS):
        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            started = time.monotonic()
            reader = subprocess.Popen(
                ["curl", "-s", "--http0.9", "-o", "/dev/null", f"http://127.0.0.1:{port}/"]
            )
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                subprocess.run(
                    ["dd", f"if={path}", "bs=1M", "status=none"],
                    stdout=connection.fileno(),
                    check=True,
                )
            reader.wait()
            rates.append(path.stat().st_size / 1e6 / (time.monotonic() - started))
    return statistics.median(rates)


def _subsets(url: str, path: Path) -> float:
    """Return how many small subsets a second netCDF4 reads; 0 if a value is wrong."""
    chance = np.random.default_rng(1)
    with netCDF4.Dataset(path) as file:
        expected = file["v"][0]
    with netCDF4.Dataset(url) as file:
        variable = file["v"]
        started = time.monotonic()
        for y, x in chance.integers(0, 90, (SUBSETS, 2)):
            part = slice(y, y + 5), slice(x, x + 5)
            if not np.array_equal(variable[0, *part], expected[part]):
                return 0
        return SUBSETS / (time.monotonic() - started)


def _make(root: Path) -> None:
    for name, shape in FILES.items():
        with netCDF4.Dataset(root / f"{name}.nc", "w") as file:
            for dimension, length in zip("tyx", shape, strict=True):
                file.createDimension(dimension, length)
                file.createVariable(dimension, "f8", (dimension,))[:] = np.arange(length)
            variable = file.createVariable("v", "f4", tuple("tyx"))
            variable.units = "K"
            for number in range(shape[0]):
                variable[number] = np.random.default_rng(number).random(shape[1:], dtype="f4")


def serve() -> list[str]:
    """Measure the servers one after the other; return a table in Markdown.

    Raises `Failure`: a tool is missing, or a server does not start.
    """
    for tool in ("wrk", "curl", "dd"):
        if shutil.which(tool) is None:
            raise Failure(f"{tool} is missing; type: ./inv doctor")
    rows: dict[str, dict[str, str]] = {}
    with tempfile.TemporaryDirectory(prefix="hyrax-vm-bench-") as work:
        root = Path(work)
        _make(root)
        large = root / "large.nc"
        measures: dict[str, Callable[[str], float]] = {
            "`.dds` per second": lambda s: _per_second(f"{s.replace('NAME', 'small')}.dds"),
            "`.das` per second": lambda s: _per_second(f"{s.replace('NAME', 'small')}.das"),
            "`.dods` of 40 kB per second": lambda s: _per_second(
                f"{s.replace('NAME', 'small')}.dods?v"
            ),
            "`.dods` of 760 kB per second": lambda s: _per_second(
                f"{s.replace('NAME', 'middle')}.dods?v"
            ),
            "`.dods` of 460 MB, cold, MB/s": lambda s: _megabytes(
                f"{s.replace('NAME', 'large')}.dods?v", large, True
            ),
            "`.dods` of 460 MB, warm, MB/s": lambda s: _megabytes(
                f"{s.replace('NAME', 'large')}.dods?v", large, False
            ),
            "subsets per second, netCDF4": lambda s: _subsets(
                s.replace("NAME", "small"), root / "small.nc"
            ),
        }
        python = _peers(Workspace.here().cache.folder)
        for name in SERVERS:
            with _server(name, python, root) as url:
                for row, measure in measures.items():
                    try:
                        value = measure(url)
                    except (Failure, OSError, RuntimeError, IndexError, KeyError):
                        value = 0  # the server cannot do it
                    rows.setdefault(row, {})[name] = f"{value:.0f}" if value else "fails"
        plain = _through_a_socket(large)
    mine = float(rows["`.dods` of 460 MB, warm, MB/s"]["dapdir"])
    return [
        f"| | {' | '.join(SERVERS)} |",
        f"|---|{'---|' * len(SERVERS)}",
        *(f"| {row} | {' | '.join(found.values())} |" for row, found in rows.items()),
        "",
        f"`dd` of the same file through a socket: {plain:.0f} MB/s; dapdir has {mine / plain:.2f} "
        "of that.",
    ]
