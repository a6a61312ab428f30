"""Hyrax VM: builds, packs and boot-tests small virtual machines that serve data with OPeNDAP."""

from importlib.metadata import version

__version__ = version("hyrax-vm")
