"""The boot tests read every claim in the servers' capabilities.toml."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyraxvm.config import images
from hyraxvm.core.paths import PROVISION, ROOT
from tests.boot.capabilities import Capabilities, load

BOOT = ROOT / "tests" / "boot"

SERVERS = images.load().server


@pytest.mark.parametrize("name", sorted(SERVERS))
def test_every_server_with_a_folder_says_what_it_claims(name: str) -> None:
    claims = load(name)
    assert set(claims.numbers) | set(claims.netcdf) <= set(claims.responses)
    assert not set(claims.refused) & set(claims.responses)
    assert claims.listings
    if SERVERS[name].folder:
        assert claims.model_fields_set == set(Capabilities.model_fields)
        assert claims.catalogs


def test_a_server_without_a_folder_claims_what_every_server_does() -> None:
    assert load("a server of no table") == Capabilities()


def test_nothing_is_claimed_that_no_test_asks_for() -> None:
    text = "".join(path.read_text() for path in BOOT.glob("test_*.py"))
    unused = [name for name in Capabilities.model_fields if f"server.{name}" not in text]
    assert unused == []


def test_only_servers_claim() -> None:
    folders = {path.parent.name for path in Path(PROVISION / "servers").glob("*/capabilities.toml")}
    assert folders == {server.folder for server in SERVERS.values() if server.folder}
