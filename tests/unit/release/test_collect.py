"""Whether a release may be made: the commit, its tag, what is pinned, built and tested."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hyraxvm import formats
from hyraxvm.config import images, publish
from hyraxvm.config.model import SMOKE
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import checks, collect, index
from hyraxvm.stages.package import stage as package
from hyraxvm.stages.plan import Plan
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.server import choice, oci
from hyraxvm.stages.server import stage as server
from tests.unit.release.gpgkeys import gpg, make_key
from tests.unit.release.shop import NAME, make_image, passed


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with one commit."""
    monkeypatch.setattr(checks, "__version__", "1.0.0")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    (tmp_path / "CHANGELOG.md").write_text("## 1.0.0 (2026-01-31)\n\n- Something new.\n")
    git(tmp_path, "add", ".")
    commit(tmp_path)
    return tmp_path


def at(root: Path) -> Workspace:
    return Workspace(root, root / "artifacts", StageCache(root / "cache"))


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    git(folder, *who, "commit", "-q", "--allow-empty", "-m", "x")


WHO = ("-c", "user.name=T", "-c", "user.email=t@example.org")


def sign_tag(folder: Path, key: str, *options: str) -> None:
    git(folder, *WHO, "tag", "-m", "x", *options, "--local-user", key, "v1.0.0")


def trust(folder: Path, *keys: str) -> None:
    """Commit the public keys of those who may sign tags."""
    (folder / checks.MAINTAINERS).write_text(gpg("--armor", "--export", *keys))
    git(folder, "add", ".")
    commit(folder)


def test_a_clean_tree_at_its_signed_tag_is_released(checkout: Path, key: str) -> None:
    other = make_key("Second maintainer <second@example.org>")
    trust(checkout, other, key)
    sign_tag(checkout, key)
    assert (
        checks.tagged_revision(at(checkout), "1.0.0") == git(checkout, "rev-parse", "HEAD").strip()
    )
    commit(checkout)
    with pytest.raises(UserError, match=r"tag v1.0.0 is on another commit than"):
        checks.tagged_revision(at(checkout), "1.0.0")


@pytest.mark.parametrize("kind", ["plain", "annotated", "moved", "stranger", "expired", "no keys"])
def test_a_tag_that_no_maintainer_has_signed_is_refused(
    checkout: Path, key: str, kind: str
) -> None:
    stranger = make_key(f"{kind} <{kind.replace(' ', '')}@example.org>")
    told = {
        "plain": "tag v1.0.0 is not signed with OpenPGP; type: git tag --force -s v1.0.0",
        "annotated": "tag v1.0.0 is not signed with OpenPGP",
        "moved": rf"is not signed as maintainers\.asc wants it: v1.0.0: is not what key {key} sig",
        "stranger": f"its signature is not one of key {key}, but of {stranger}",
        "expired": "that key has expired on",
        "no keys": r"maintainers\.asc: is missing; it has the public keys .* gpg --armor --export",
    }[kind]
    if kind == "expired":
        then = ("--faked-system-time", "20200101T000000")
        key = make_key("Former <former@example.org>", *then, expires="1y")
    if kind != "no keys":
        trust(checkout, key)
    if kind == "plain":
        git(checkout, "tag", "v1.0.0")
    elif kind == "annotated":
        git(checkout, *WHO, "tag", "-a", "-m", "x", "v1.0.0")
    elif kind == "expired":
        program = checkout.with_name(f"{checkout.name}-gpg")
        program.write_text('#!/bin/sh\nexec gpg --faked-system-time 20200201T000000 "$@"\n')
        program.chmod(0o755)
        git(checkout, "config", "gpg.program", str(program))
        sign_tag(checkout, key)
    else:
        sign_tag(checkout, stranger if kind == "stranger" else key)
    if kind == "moved":
        raw = git(checkout, "cat-file", "tag", "v1.0.0").replace("\nx\n", "\ny\n")
        made = subprocess.run(
            ["git", "hash-object", "-t", "tag", "-w", "--stdin"],
            cwd=checkout,
            input=raw,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        git(checkout, "update-ref", "refs/tags/v1.0.0", made)
    with pytest.raises(UserError, match=told) as caught:
        checks.tagged_revision(at(checkout), "1.0.0")
    assert "\n" not in str(caught.value)


def test_what_a_later_job_would_refuse_is_refused_at_once(
    checkout: Path, key: str, table: images.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = publish.load()
    store = settings.store.model_copy(update={"bucket": "some-bucket"})
    right = settings.model_copy(
        update={"store": store, "signing": settings.signing.model_copy(update={"key": key})}
    )

    def ready(found: publish.Settings, version: str | None = None) -> str:
        return checks.ready(at(checkout), table, None, found, version)

    with pytest.raises(UserError, match=r"has no digest for server 'hyrax'; type: ./inv pin hyrax"):
        ready(right)
    monkeypatch.setattr(oci, "remote_digest", lambda *words: f"sha256:{'ab' * 32}")
    choice.pin(table, "hyrax", checkout / "images.lock")
    trust(checkout, key)
    with pytest.raises(UserError, match=r"signing\.key: is empty"):
        ready(right.model_copy(update={"signing": settings.signing}))
    with pytest.raises(UserError, match=r"store\.bucket: is empty"):
        ready(right.model_copy(update={"store": settings.store}))
    assert ready(right) == "hyrax"
    with pytest.raises(UserError, match=r"there is no tag v1\.0\.0"):
        ready(right, "1.0.0")
    sign_tag(checkout, key)
    assert ready(right, "1.0.0") == "hyrax"
    (checkout / "file").write_text("2")
    with pytest.raises(UserError, match="file: not as in git"):
        ready(right)


def test_a_candidates_version_is_the_one_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "hyraxvm" / "core").mkdir(parents=True)
    for name in ("__init__.py", "core/__init__.py", "core/paths.py"):
        shutil.copy(ROOT / "hyraxvm" / name, tmp_path / "hyraxvm" / name)
    text = (ROOT / "pyproject.toml").read_text()
    text = re.sub(r'^version = ".*"$', 'version = "1.2.0-rc1"', text, flags=re.MULTILINE)
    (tmp_path / "pyproject.toml").write_text(text)
    said = subprocess.run(
        [sys.executable, "-c", "import hyraxvm; print(hyraxvm.__version__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert said == "1.2.0-rc1\n"  # not 1.2.0rc1, which is how Python packages write it
    assert index.kind(said.strip()) == "release"


def test_a_file_that_is_not_in_git_makes_the_revision_dirty(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provision, "ROOT", checkout)
    revision = git(checkout, "rev-parse", "--short=12", "HEAD").strip()
    assert provision.git_revision() == revision
    (checkout / "new").touch()
    assert provision.git_revision() == f"{revision}-dirty"
    (checkout / "new").unlink()
    (checkout / "file").write_text("2")
    assert provision.git_revision() == f"{revision}-dirty"


def test_what_is_not_ready_is_refused(checkout: Path, key: str) -> None:
    with pytest.raises(UserError, match=r"there is no tag v1.0.0; type: git tag -s v1.0.0"):
        checks.tagged_revision(at(checkout), "1.0.0")
    with pytest.raises(UserError, match=r"'1.0.1' is not the one in pyproject.toml, '1.0.0'"):
        checks.tagged_revision(at(checkout), "1.0.1")
    for version in ("1.0", "v1.0.0", "1.0.0/..", "1.0.0 ", "1.0.0\n"):
        with pytest.raises(UserError, match="is not a version; expected: "):
            checks.tagged_revision(at(checkout), version)
    with pytest.raises(UserError, match="is a nightly's version"):
        checks.tagged_revision(at(checkout), "20260101")
    trust(checkout, key)
    sign_tag(checkout, key)
    checks.tagged_revision(at(checkout), "1.0.0")
    (checkout / "CHANGELOG.md").write_text("## 1.0.0 (unreleased)\n")
    git(checkout, "add", ".")
    commit(checkout)
    sign_tag(checkout, key, "--force")
    with pytest.raises(UserError, match=r"the section on 1.0.0 says 'unreleased'; write"):
        checks.tagged_revision(at(checkout), "1.0.0")
    (checkout / "file").write_text("2")
    (checkout / "new").touch()
    with pytest.raises(UserError, match="file and 1 more: not as in git"):
        checks.tagged_revision(at(checkout), "1.0.0")


def test_nothing_but_hyrax_unless_it_is_named(table: images.Config, tmp_path: Path) -> None:
    without = table.model_copy(update={"server": {"dapdir": table.server["dapdir"]}})
    with pytest.raises(UserError, match="no server 'hyrax', and no other is released unless"):
        checks.recipes(at(tmp_path), without, [], None, print)
    found = checks.recipes(at(tmp_path), without, [], "dapdir", print)
    assert [one.name for one in found] == sorted(table.image)
    assert checks.server(table, None) == "hyrax"
    assert checks.server(table, "dapdir") == "dapdir"


def test_a_server_that_is_not_pinned_is_refused_and_nothing_is_written(
    table: images.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "images.lock"
    digest = f"sha256:{'ab' * 32}"
    monkeypatch.setattr(oci, "remote_digest", lambda *words: digest)
    with pytest.raises(
        UserError, match=r"has no digest for server 'hyrax'; type: ./inv pin hyrax, and commit"
    ):
        checks.recipes(at(tmp_path), table, ["nfs"], None, print)
    assert list(tmp_path.iterdir()) == []
    choice.pin(table, "hyrax", lock)
    (found,) = checks.recipes(at(tmp_path), table, ["nfs"], None, print)
    assert found.server_digest == digest


def test_only_what_is_whole_and_tested_is_collected(
    workspace: Workspace, nfs: images.Recipe, table: images.Config
) -> None:
    (found,) = collect.collect(workspace, [nfs], None)
    assert found.name == NAME
    assert collect.tested_artifacts(workspace, nfs)[0].verdict is not None
    smb = images.recipe(table, "smb", "dapdir")
    with pytest.raises(UserError, match="image 'smb' with server 'dapdir' is not built; type: "):
        collect.collect(workspace, [nfs, smb], None)
    image = workspace.artifacts / f"{NAME}.ova"
    good = image.read_bytes()
    image.write_bytes(good[:-1])
    with pytest.raises(UserError, match=r"ova: is not what its manifest says; build it again"):
        collect.collect(workspace, [nfs], None)
    image.write_bytes(good)
    shutil.rmtree(workspace.reports / image.name)
    with pytest.raises(UserError, match=r"ova: has passed no boot test; a release needs the who"):
        collect.collect(workspace, [nfs], None)
    passed(image, workspace.reports, SMOKE)
    with pytest.raises(UserError, match=r"ova: has passed its smoke boot only; .* \./inv boot-te"):
        collect.collect(workspace, [nfs], None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found["files"].pop(), "image 'nfs' is not built as hyperv; type: ./inv"),
        (
            lambda found: found["release"].update(GIT_REVISION="0123-dirty"),
            r"was built from files that are not in git .0123-dirty.",
        ),
        (
            lambda found: found["release"].update(VERSION="0.0.9"),
            r"is of version 0.0.9, this checkout is .*; type: ./inv build nfs --server dapdir",
        ),
        (
            lambda found: found["files"][1].update(key="0" * 64),
            r"ova: was made from other inputs than those of this checkout; type: ./inv build nfs",
        ),
        (lambda found: found["made_from"].update(refresh="2026-01-02"), "from other inputs than"),
        (lambda found: found["server"].pop("accounts"), "from other inputs than"),
        (lambda found: found.pop("made_from"), "from other inputs than"),
    ],
)
def test_a_manifest_that_is_not_for_release(
    workspace: Workspace, nfs: images.Recipe, change: Any, told: str
) -> None:
    path = workspace.artifacts / f"{NAME}.manifest.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=told):
        collect.collect(workspace, [nfs], None)


def test_a_checkout_that_has_other_inputs_is_told(workspace: Workspace, nfs: images.Recipe) -> None:
    larger = nfs.machine.model_copy(update={"memory_mib": 2048})
    with pytest.raises(UserError, match="was made from other inputs than those of this checkout"):
        collect.collect(workspace, [nfs.model_copy(update={"machine": larger})], None)


def test_an_image_of_another_day_and_commit_counts(
    workspace: Workspace, nfs: images.Recipe
) -> None:
    built = make_image(workspace.artifacts, refresh="2026-01-02")
    assert built.manifest["files"] != make_image(workspace.artifacts).manifest["files"]
    make_image(workspace.artifacts, refresh="2026-01-02")
    assert (
        collect.collect(workspace, [nfs], None)[0].manifest["made_from"]["refresh"] == "2026-01-02"
    )


def test_a_manifest_has_what_it_takes_to_know_the_keys(nfs: images.Recipe) -> None:
    """The manifest is one that the stage `package` wrote, for a server with files for the guest."""
    image = server.preview(nfs).model_copy(update={"files": {"etc/x": "text"}})
    plan = Plan(nfs, "2026-01-02")
    made = formats.Source(nfs, image, Path(), plan.provision(image), {}, "2026-01-02")
    manifest = json.loads(package._manifest(made, [], {}, {}))
    assert "files" not in manifest["server"]
    assert collect.keys(at(ROOT), nfs, manifest) == plan.formats(image)


@pytest.mark.parametrize("text", ["{", "\0", "[]", "{}", '{"release": 1, "files": []}', "\xff"])
def test_a_damaged_manifest_is_one_line(
    workspace: Workspace, nfs: images.Recipe, text: str
) -> None:
    path = workspace.artifacts / f"{NAME}.manifest.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest.json: is damaged; remove it, and build again"):
        collect.collect(workspace, [nfs], None)


def test_the_inputs_digest_knows_packages_and_recipe_but_no_dates(
    tmp_path: Path, nfs: images.Recipe, table: images.Config
) -> None:
    one = make_image(tmp_path)
    again = json.loads(json.dumps(one.manifest))
    again["release"]["BUILD_DATE"] = "2027-01-01T00:00:00Z"
    again["server"]["image_digest"] = f"sha256:{'cd' * 32}"
    assert collect.inputs(at(ROOT), collect.Built(nfs, again)) == collect.inputs(at(ROOT), one)
    again["packages"]["bash"] = "5.2-1"
    assert collect.inputs(at(ROOT), collect.Built(nfs, again)) != collect.inputs(at(ROOT), one)
    larger = nfs.machine.model_copy(update={"memory_mib": 2048})
    other = nfs.model_copy(update={"machine": larger})
    assert collect.inputs(at(ROOT), collect.Built(other, one.manifest)) != collect.inputs(
        at(ROOT), one
    )


def test_sums_of_a_checkout_do_not_take_in_releases(artifacts: Path) -> None:
    package.write_sums(artifacts)
    assert NAME in (artifacts / "SHA256SUMS").read_text()
