"""For all unit tests."""

from __future__ import annotations

from hypothesis import settings

# A time limit for each example would fail on a busy machine.
settings.register_profile("hyrax-vm", deadline=None)
settings.load_profile("hyrax-vm")
