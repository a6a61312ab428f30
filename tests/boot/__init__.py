"""Tests of a shipped file, booted."""
