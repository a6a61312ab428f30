"""Hyrax VM: builds, packs and boot-tests small virtual machines that serve data with OPeNDAP."""
