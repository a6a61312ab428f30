"""Settings and fixtures for all unit tests."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.unit.browser import Browser, chromium

pytest_plugins = ["tests.unit.release.fixtures"]

# The same commit always gets the same examples, so that a red test is a change's own.
# `--hypothesis-profile=explore` looks for new ones. A busy machine would exceed a deadline.
settings.register_profile("hyrax-vm", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=5000)
settings.load_profile("hyrax-vm")


# Fixtures that take a second or more to make: with `--dist loadgroup` the tests that share one run
# in one worker, which alone makes it.
SHARED = (
    *("browser", "root", "shelf", "image", "layout", "running_registry", "unedited"),
    *("served", "shared"),  # front doors of tests/unit/guest
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        names = getattr(item, "fixturenames", ())
        for name in SHARED:
            if name in names:
                item.add_marker(pytest.mark.xdist_group(name))
                break


def pytest_configure(config: pytest.Config) -> None:
    # A program that a shell starts in the background ignores Ctrl-C, one that nohup starts ignores
    # SIGHUP, and so do their children: here the programs that are tested.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # To collect the tests makes a million objects that stay. The garbage collector would look
    # through them again and again, in each worker.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
    gc.freeze()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with chromium() as made:
        yield made
