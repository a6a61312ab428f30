"""The linters, and what must never stand in the repository."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from hyraxvm.core.paths import ROOT


@pytest.mark.parametrize(
    "command",
    [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["ruff-check", "ruff-format", "mypy"],
)
def test_clean(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_hosts_of_registries_or_mirrors() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    host = re.compile(
        r"(deb|security|ftp\.\w+)\.debian\.(org|net)|pypi\.org|pythonhosted|docker\.io"
    )
    files = [ROOT / name for name in listed.stdout.splitlines() if "test_style" not in name]
    assert len(files) > 50
    for path in files:
        if path.is_file():
            assert not host.search(path.read_text("utf-8", "replace")), path
