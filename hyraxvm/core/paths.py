"""Paths of source files in the checkout."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKER = ROOT / "packer"
PROVISION = ROOT / "provision"
TEMPLATES = ROOT / "templates"
IMAGES_TOML = ROOT / "images.toml"
IMAGES_LOCK = ROOT / "images.lock"
