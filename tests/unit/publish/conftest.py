"""Fixtures for the tests of publishing and downloading."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own(own_environment: None) -> None:
    """Hide the credentials, settings and keys of this user from all tests here."""


@pytest.fixture(autouse=True)
def _own_memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Remember the lists that commands have seen for one test only."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
