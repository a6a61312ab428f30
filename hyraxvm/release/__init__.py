"""Releases: what is checked, collected, described and signed."""
