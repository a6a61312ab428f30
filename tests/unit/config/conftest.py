"""For the tests of the files that people edit."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session", autouse=True)
def _own(own_environment: None) -> None:
    """No test here sees credentials, settings or keys of this user."""
