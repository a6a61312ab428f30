"""Fixtures for the tests of the files that people edit."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own(own_environment: None) -> None:
    """Hide the credentials, settings and keys of this user from all tests here."""
