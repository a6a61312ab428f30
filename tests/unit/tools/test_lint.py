"""The linters, and what must never be in the repository."""

from __future__ import annotations

import ast
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from hyraxvm.core.paths import ROOT
from hyraxvm.tools import lint


@pytest.mark.parametrize("name", lint.commands())
def test_clean(name: str) -> None:
    argv = lint.commands()[name]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_shell_script_is_linted() -> None:
    listed = subprocess.run(
        ["git", "grep", "-lE", "^#! ?/bin/sh", "--", ":!*.j2", ":!tests", ":!*.py", ":!*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = {str(path.relative_to(ROOT)) for path in lint.shell_scripts()}
    assert set(listed.stdout.split()) <= found
    names = {Path(path).name for path in found}
    assert names >= {"inv", "hyrax-data", "lib.sh", "banner", "data-trial", "start-ssh"}


def test_no_hosts_of_registries_or_mirrors() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    host = re.compile(
        r"(deb|security|ftp\.\w+)\.debian\.(org|net)|pypi\.org|pythonhosted|docker\.io"
    )
    files = [ROOT / name for name in listed.stdout.splitlines() if "test_lint" not in name]
    assert len(files) > 50
    for path in files:
        if path.is_file():
            assert not host.search(path.read_text("utf-8", "replace")), path


def test_a_class_name_means_one_class() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for path in sorted((ROOT / "hyraxvm").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(str(path.relative_to(ROOT)))
    assert len(places) > 50
    assert {name: found for name, found in places.items() if len(found) > 1} == {}
