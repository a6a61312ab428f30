"""Hyrax VM: builds, packs and boot-tests small virtual machines that serve data with OPeNDAP."""

import tomllib

from hyraxvm.core.paths import ROOT

# As it is written: what is installed says 1.2.0rc1 where pyproject.toml says 1.2.0-rc1.
__version__: str = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
