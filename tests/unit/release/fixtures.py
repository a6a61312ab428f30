"""One store, one web server, one key and two finished releases for all tests of a worker.

The tests of releases, of publishing and of stores share them; `tests/unit/conftest.py` loads them.
"""

from __future__ import annotations

import functools
import itertools
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.loaders import create_loader

from hyraxvm.config import images
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import site as web_site
from hyraxvm.release import signing
from hyraxvm.store import parts
from tests.unit.release.gpgkeys import keyring, make_key
from tests.unit.release.shop import FORMATS, NAME, Shop, assemble, make_image, passed, workshop
from tests.unit.store.loopback import ACCESS, SECRET, Rclone, s3

_numbers = itertools.count()


@pytest.fixture(scope="session")
def own_environment() -> Iterator[None]:
    """Set a keyring and credentials of the tests; hide the settings of this user."""
    with (
        pytest.MonkeyPatch.context() as patch,
        keyring(),
    ):
        for name in os.environ:
            if name.startswith(("AWS_", "HYRAX_VM_")):
                patch.delenv(name)
        patch.setenv("AWS_ACCESS_KEY_ID", ACCESS)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        # All clients share one description of the S3 API, as those of one botocore session do.
        patch.setattr("botocore.session.create_loader", functools.cache(create_loader))
        yield


@pytest.fixture(scope="session")
def key(own_environment: None) -> str:
    return make_key("Releases <releases@example.org>")


@pytest.fixture(scope="session")
def public(key: str) -> bytes:
    return signing.public_key(key)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    made = s3(tmp_path_factory.mktemp("store") / "data")
    yield made
    made.kill()


@pytest.fixture
def shop(server: Rclone, key: str) -> Shop:
    return Shop(server, f"bucket-{os.getpid()}-{next(_numbers)}", key)


@pytest.fixture
def mortal(tmp_path: Path, key: str) -> Iterator[Shop]:
    """A bucket in a store that no other test uses: it may be killed."""
    made = Shop(s3(tmp_path / "data"), "mortal-bucket", key)
    yield made
    made.server.kill()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, key: str) -> Path:
    """Release 1.0.0 of two images; tests must not change it."""
    work = tmp_path_factory.mktemp("artifacts")
    built = [make_image(work, image) for image in ("nfs", "smb")]
    return assemble(work, "1.0.0", built, key)


@pytest.fixture(scope="session")
def second(tmp_path_factory: pytest.TempPathFactory, key: str) -> Path:
    """Release 1.1.0 of one image with other packages."""
    work = tmp_path_factory.mktemp("artifacts")
    return assemble(work, "1.1.0", [make_image(work, seed=b"2", packages={"bash": "5.3"})], key)


@pytest.fixture(scope="session")
def nightly(tmp_path_factory: pytest.TempPathFactory, key: str) -> Callable[[str], Path]:
    """A function: version -> the folder of that nightly, made once; tests must not change it."""

    @functools.cache
    def make(version: str) -> Path:
        work = tmp_path_factory.mktemp("nightly")
        return assemble(work, version, [make_image(work, seed=version.encode())], key)

    return make


@pytest.fixture(scope="session")
def tested_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The content that `artifacts` begins with; tests must not change it."""
    folder = tmp_path_factory.mktemp("tested")
    with workshop(folder) as made:
        make_image(folder)
        for entry in FORMATS.values():
            passed(folder / f"{NAME}{entry.suffix}", made.reports)
    return folder


@pytest.fixture
def workspace(tested_image: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A workspace that all tasks use, with a tested image in its `artifacts/`."""
    with workshop(tmp_path) as made:
        shutil.copytree(tested_image, tmp_path, dirs_exist_ok=True)
        yield made


@pytest.fixture
def artifacts(workspace: Workspace) -> Path:
    return workspace.artifacts


@pytest.fixture(scope="session")
def table() -> images.Config:
    return images.load()


@pytest.fixture(scope="session")
def nfs(table: images.Config) -> images.Recipe:
    return images.recipe(table, "nfs", "dapdir")


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait between two tries; botocore and downloads wait for seconds."""
    monkeypatch.setattr(web_site, "WAIT", 0.001)
    monkeypatch.setattr("botocore.retries.standard.ExponentialBackoff.delay_amount", lambda *a: 0)


@pytest.fixture
def tiny_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Make parts of 100,000 bytes: rclone accepts any size, AWS at least 5 MiB."""
    monkeypatch.setattr(parts, "PART", 100_000)
    monkeypatch.setattr(parts, "MIB", 1)
    return 100_000


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory, server: Rclone, key: str, folder: Path) -> Path:
    """A bucket with a release and a nightly, as files; tests must not change it."""
    made = Shop(server, f"downloads-{os.getpid()}", key)
    made.send(folder)
    work = tmp_path_factory.mktemp("nightly")
    nightly = assemble(work, "20260102", [make_image(work, seed=b"n")], key)
    made.send(nightly)
    return made.folder


@pytest.fixture(scope="session")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rclone]:
    """A web server that supports ranges."""
    made = Rclone(tmp_path_factory.mktemp("web") / "www", kind="http")
    yield made
    made.kill()


@pytest.fixture
def own(site: Path, web: Rclone) -> Iterator[tuple[str, Path]]:
    """The URL and the folder of a copy of `site` that a test may change."""
    name = f"copy-{next(_numbers)}"
    shutil.copytree(site / "vm", web.folder / name)
    time.sleep(0.02)  # until rclone reads the folder again, see loopback.py
    yield f"{web.url}/{name}", web.folder / name
