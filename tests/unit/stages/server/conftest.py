"""A registry, a cache for each test, and the images that several tests share."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyraxvm.core.cache import StageCache
from hyraxvm.core.process import dying_with_parent
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server import hyrax_image, plain_image
from tests.unit.stages.server.image_maker import make_image


@pytest.fixture
def results(tmp_path: Path) -> StageCache:
    """The cache of this test's results, which `built` uses, too."""
    return StageCache(tmp_path / "cache")


@pytest.fixture(scope="session")
def running_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """`HOST:PORT` of a running registry, and a home in which skopeo's settings name it."""
    work = tmp_path_factory.mktemp("registry")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = work / "config.yml"
    config.write_text(
        "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: "
        f"{work}/data\nhttp:\n  addr: 127.0.0.1:{port}\nlog:\n  level: error\n"
    )
    program = shutil.which("docker-registry")
    assert program, "docker-registry is missing; ./inv installs it"
    conf = work / "home/.config/containers/registries.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(f'[[registry]]\nlocation = "127.0.0.1:{port}"\ninsecure = true\n')
    argv = dying_with_parent([program, "serve", str(config)])
    process = subprocess.Popen(argv, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                assert time.monotonic() < deadline, "the registry does not start"
                time.sleep(0.1)
        yield f"127.0.0.1:{port}", work / "home"
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def registry(running_registry: tuple[str, Path], monkeypatch: pytest.MonkeyPatch) -> str:
    address, home = running_registry
    monkeypatch.setenv("HOME", str(home))
    return address


@pytest.fixture(scope="session")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout of the plain image, packed by umoci; tests must not change it."""
    folder = tmp_path_factory.mktemp("plain")
    return make_image(folder / "layout", plain_image.LAYERS, *plain_image.CONFIG)


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> server.ServerImage:
    """What the stage `server` has read from an image like Hyrax's."""
    return hyrax_image.built(tmp_path_factory.mktemp("hyrax"))
