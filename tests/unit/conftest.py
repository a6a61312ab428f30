"""For all unit tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from browser import Browser, chromium
from hypothesis import settings

# A time limit for each example would fail on a busy machine.
settings.register_profile("hyrax-vm", deadline=None)
settings.load_profile("hyrax-vm")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made
