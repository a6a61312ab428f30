"""What a release is made of, and what is refused."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from shop import NAME, Shop, assemble, make_image

from hyraxvm import (
    cli,
    config,
    disk,
    formats,
    housekeeping,
    index,
    notes,
    oci,
    package,
    provision,
    publish,
    publishing,
    release,
    rootfs,
    sbom,
    server,
    signing,
    source,
    tested,
)
from hyraxvm.errors import UserError
from hyraxvm.paths import ROOT


def test_the_folder_is_what_sha256sum_and_the_manifest_say(folder: Path) -> None:
    done = subprocess.run(
        ["sha256sum", "--check", "--strict", "SHA256SUMS"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count(": OK\n") == len(list(folder.iterdir())) - 2
    entry = json.loads((folder / "release.json").read_text())
    assert (entry["version"], entry["path"], entry["date"]) == (
        "1.0.0",
        "releases/1.0.0",
        "2026-01-02T03:04:06Z",
    )
    assert [image["image"] for image in entry["images"]] == ["nfs", "smb"]
    manifest = json.loads((folder / f"{NAME}.manifest.json").read_text())
    said = {file["name"]: file["sha256"] for file in entry["images"][0]["files"]}
    assert said == {file["name"]: file["sha256"] for file in manifest["files"]}


def test_the_bill_of_materials_is_valid_and_names_every_package(folder: Path) -> None:
    text = (folder / f"{NAME}.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    assert found["specVersion"] == "1.6"
    assert found["metadata"]["component"]["name"] == NAME
    assert found["metadata"]["timestamp"] == "2026-01-02T03:04:06+00:00"
    purls = {component["name"]: component["purl"] for component in found["components"]}
    assert purls == {
        "bash": "pkg:deb/debian/bash@5.2?arch=amd64&distro=debian-12",
        "libstdc++6": "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro=debian-12",
        "openssh-server": ("pkg:deb/debian/openssh-server@1:9.2p1-2?arch=amd64&distro=debian-12"),
        "numpy": "pkg:pypi/numpy@2.3.5",
        "dapdir": f"pkg:oci/dapdir@sha256:{'ab' * 32}",
    }
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in found["dependencies"]}
    assert depends["server:dapdir"] == ["pkg:pypi/numpy@2.3.5"]
    assert len(depends[NAME]) == 4
    manifest = json.loads((folder / f"{NAME}.manifest.json").read_text())
    assert sbom.sbom(manifest) == text


def test_the_provenance_names_what_went_in_and_what_came_out(folder: Path) -> None:
    found = json.loads((folder / "provenance.intoto.json").read_text())
    assert found["_type"] == "https://in-toto.io/Statement/v1"
    assert found["predicateType"] == "https://slsa.dev/provenance/v1"
    subjects = {one["name"]: one["digest"]["sha256"] for one in found["subject"]}
    said = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert subjects == {k: v for k, v in said.items() if k != "provenance.intoto.json"}
    built = found["predicate"]["buildDefinition"]
    inputs = {
        one.get("name", one.get("uri")): one.get("digest") for one in built["resolvedDependencies"]
    }
    digest = hashlib.sha256((ROOT / "images.toml").read_bytes()).hexdigest()
    assert inputs["images.toml"] == {"sha256": digest}
    assert inputs["dapdir 1.0.0"] == {"sha256": "ab" * 32}
    assert "pkg:deb/debian/bash@5.2?arch=amd64" in inputs
    assert "provision/scripts" in " ".join(map(str, inputs))
    git = [one for one in built["resolvedDependencies"] if "gitCommit" in one.get("digest", {})]
    assert [one["digest"]["gitCommit"] for one in git] == ["0123456789ab" + "0" * 28]
    assert built["internalParameters"]["tools"]["git"][0].isdigit()
    assert found["predicate"]["runDetails"]["metadata"]["startedOn"] == "2026-01-02T03:04:06Z"


def test_assembling_again_changes_nothing_and_does_not_sign(
    tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = [make_image(tmp_path)]
    made = assemble(tmp_path, "1.0.0", built, key)
    before = {path.name: path.read_bytes() for path in made.iterdir()}
    monkeypatch.setenv("GNUPGHOME", str(tmp_path))  # has no keys
    assert assemble(tmp_path, "1.0.0", built, key) == made
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    with pytest.raises(UserError, match="gpg cannot sign with key"):
        assemble(tmp_path, "1.0.0", built, key, text="- Another text.")
    assert {path.name: path.read_bytes() for path in made.iterdir()} == before
    assert [path.name for path in made.parent.iterdir()] == ["1.0.0"]


def test_notes_tell_what_changed_since_the_release_before(
    shop: Shop, tmp_path: Path, folder: Path, public: bytes, key: str
) -> None:
    publish.folder(shop.store(), folder, public, shop.settings(), lambda line: None)
    before, old = release.previous(shop.store(), "release", "1.2.0")
    assert before == "1.0.0"
    packages = {"bash": "5.3", "libstdc++6": "12.2.0-14", "zstd": "1.5"}
    made = assemble(
        tmp_path, "1.2.0", [make_image(tmp_path, packages=packages)], key, previous=before, old=old
    )
    assert (made / "RELEASE-NOTES.md").read_text() == (
        "# Hyrax VM 1.2.0\n\n- Something new.\n\n## Packages changed since 1.0.0\n\n"
        "### Image nfs, server dapdir 1.0.0\n\n"
        "- bash 5.2 -> 5.3\n- openssh-server 1:9.2p1-2 (removed)\n- zstd 1.5 (new)\n"
    )
    assert release.previous(shop.store(), "release", "1.0.0") == ("", {})


@pytest.mark.parametrize("bucket", [True, False])
def test_what_is_made_now_and_published_later_has_the_same_notes(
    shop: Shop,
    folder: Path,
    public: bytes,
    artifacts: Path,
    monkeypatch: pytest.MonkeyPatch,
    bucket: bool,
) -> None:
    publish.folder(shop.store(), folder, public, shop.settings(), lambda line: None)
    settings = shop.settings()
    if not bucket:
        none = settings.store.model_copy(update={"bucket": ""})
        settings = settings.model_copy(update={"store": none})
    monkeypatch.setattr(publishing, "load", lambda: settings)
    monkeypatch.setattr(release, "check", lambda version: "0" * 40)
    monkeypatch.setattr(notes, "section", lambda text, version: "- Something new.")
    table = config.load()
    only = table.model_copy(update={"image": {"nfs": table.image["nfs"]}})
    monkeypatch.setattr(config, "load", lambda: only)
    before = shop.objects()
    cli.run(["release", "1.2.0", "--built", "--no-publish", "--server", "dapdir"])
    assert shop.objects() == before
    text = (artifacts / "releases/1.2.0/RELEASE-NOTES.md").read_text()
    assert text == "# Hyrax VM 1.2.0\n\n- Something new.\n" + (
        "\n## Packages changed since 1.0.0\n\n### Image nfs, server dapdir 1.0.0\n\nNone.\n"
        if bucket
        else ""
    )


def test_while_a_release_is_made_nothing_is_cleaned_and_none_is_made_beside_it(
    shop: Shop, artifacts: Path, nfs: config.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release, "check", lambda version: "0" * 40)
    monkeypatch.setattr(notes, "section", lambda text, version: "- Something new.")
    tried: list[str] = []

    def build(recipes: object) -> None:
        for attempt in (lambda: housekeeping.clean(with_cache=False), lambda: make(len)):
            with pytest.raises(UserError) as raised:
                attempt()
            tried.append(str(raised.value))

    def make(build: Any) -> Path:
        more = {"settings": shop.settings(), "store": None, "on_line": tried.append}
        return release.make("1.2.0", [nfs], build=build, **more)

    made = make(build)
    assert tried[:2] == [
        "a release runs in this checkout; wait for it, or end it",
        "another release is made in this checkout; wait for it, or end it",
    ]
    assert release.read(made, signing.public_key(shop.key), shop.key).version == "1.2.0"
    assert f"removed {made.parent}" in housekeeping.clean(with_cache=False)


@pytest.mark.parametrize(
    ("changelog", "told"),
    [
        ("# Changelog\n\n## 0.9.0 (2026-01-01)\n", "has no section `## 1.0.0"),
        ("## 1.0.0 (unreleased)\n- x\n", "says 'unreleased'; write `## 1.0.0 .YYYY-MM-DD.`"),
        ("## 1.0.0\n- x\n", "says None"),
    ],
)
def test_a_changelog_that_does_not_know_the_release(changelog: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        notes.section(changelog, "1.0.0")


def test_the_section_of_the_changelog() -> None:
    text = "# C\n\n## 1.0.1 (2026-02-02)\n\n- b\n\n## 1.0.0 (2026-01-01)\n\n- a\n- A\n"
    assert notes.section(text, "1.0.1") == "- b"
    assert notes.section(text, "1.0.0") == "- a\n- A"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository at a commit with a tag."""
    monkeypatch.setattr(release, "ROOT", tmp_path)
    monkeypatch.setattr(release, "__version__", "1.0.0")
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    git(tmp_path, "init", "-q")
    (tmp_path / "file").write_text("1")
    (tmp_path / "CHANGELOG.md").write_text("## 1.0.0 (2026-01-31)\n\n- Something new.\n")
    git(tmp_path, "add", ".")
    commit(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def commit(folder: Path) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    git(folder, *who, "commit", "-q", "--allow-empty", "-m", "x")


@pytest.mark.parametrize("kind", ["plain", "annotated"])
def test_a_clean_tree_at_its_tag_is_released(checkout: Path, kind: str) -> None:
    who = ("-c", "user.name=T", "-c", "user.email=t@example.org")
    git(checkout, *who, "tag", *(["-a", "-m", "x"] if kind == "annotated" else []), "v1.0.0")
    assert release.check("1.0.0") == git(checkout, "rev-parse", "HEAD").strip()
    commit(checkout)
    with pytest.raises(UserError, match=r"tag v1.0.0 is on another commit than"):
        release.check("1.0.0")


def test_a_candidates_version_is_the_one_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "hyraxvm").mkdir()
    for name in ("__init__.py", "paths.py"):
        shutil.copy(ROOT / "hyraxvm" / name, tmp_path / "hyraxvm")
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
    assert said == "1.2.0-rc1\n"  # not 1.2.0rc1, as installed packages have it
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


def test_what_is_not_ready_is_refused(checkout: Path) -> None:
    with pytest.raises(UserError, match=r"there is no tag v1.0.0; type: git tag -s v1.0.0"):
        release.check("1.0.0")
    with pytest.raises(UserError, match=r"'1.0.1' is not the one in pyproject.toml, '1.0.0'"):
        release.check("1.0.1")
    for version in ("1.0", "v1.0.0", "1.0.0/..", "1.0.0 ", "1.0.0\n"):
        with pytest.raises(UserError, match="is no version; allowed are"):
            release.check(version)
    with pytest.raises(UserError, match="is a nightly's version"):
        release.check("20260101")
    git(checkout, "tag", "v1.0.0")
    release.check("1.0.0")
    (checkout / "CHANGELOG.md").write_text("## 1.0.0 (unreleased)\n")
    git(checkout, "add", ".")
    commit(checkout)
    git(checkout, "tag", "--force", "v1.0.0")
    with pytest.raises(UserError, match=r"the section on 1.0.0 says 'unreleased'; write"):
        release.check("1.0.0")
    (checkout / "file").write_text("2")
    (checkout / "new").touch()
    with pytest.raises(UserError, match="file and 1 more: not as in git"):
        release.check("1.0.0")


def test_nothing_but_hyrax_unless_it_is_named(table: config.Config) -> None:
    without = table.model_copy(update={"server": {"dapdir": table.server["dapdir"]}})
    with pytest.raises(UserError, match="no server 'hyrax', and no other is released unless"):
        release.recipes(without, [], None, print)
    assert [one.name for one in release.recipes(without, [], "dapdir", print)] == sorted(
        table.image
    )
    assert release.server(table, None) == "hyrax"
    assert release.server(table, "dapdir") == "dapdir"


def test_a_server_that_is_not_pinned_is_refused_and_nothing_is_written(
    table: config.Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "images.lock"
    monkeypatch.setattr(release, "IMAGES_LOCK", lock)
    digest = f"sha256:{'ab' * 32}"
    monkeypatch.setattr(oci, "remote_digest", lambda *words: digest)
    with pytest.raises(
        UserError, match=r"has no digest for server 'hyrax'; type: ./inv pin hyrax, and commit"
    ):
        release.recipes(table, ["nfs"], None, print)
    assert list(tmp_path.iterdir()) == []
    source.pin(table, "hyrax", lock)
    (found,) = release.recipes(table, ["nfs"], None, print)
    assert found.server_digest == digest


def test_only_what_is_whole_and_tested_is_collected(
    artifacts: Path, nfs: config.Recipe, table: config.Config
) -> None:
    (found,) = tested.collect([nfs], None)
    assert found.name == NAME
    assert tested.there(nfs)[0].verdict is not None
    smb = config.recipe(table, "smb", "dapdir")
    with pytest.raises(UserError, match="image 'smb' with server 'dapdir' is not built; type: "):
        tested.collect([nfs, smb], None)
    image = artifacts / f"{NAME}.ova"
    good = image.read_bytes()
    image.write_bytes(good[:-1])
    with pytest.raises(UserError, match=r"ova: is not what its manifest says; build it again"):
        tested.collect([nfs], None)
    image.write_bytes(good)
    shutil.rmtree(artifacts / "reports" / image.name)
    with pytest.raises(UserError, match=r"has not passed the boot tests; type: ./inv boot-test"):
        tested.collect([nfs], None)


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
    artifacts: Path, nfs: config.Recipe, change: Any, told: str
) -> None:
    path = artifacts / f"{NAME}.manifest.json"
    found = json.loads(path.read_text())
    change(found)
    path.write_text(json.dumps(found))
    with pytest.raises(UserError, match=told):
        tested.collect([nfs], None)


def test_a_checkout_that_has_other_inputs_is_told(artifacts: Path, nfs: config.Recipe) -> None:
    larger = nfs.machine.model_copy(update={"memory_mib": 2048})
    with pytest.raises(UserError, match="was made from other inputs than those of this checkout"):
        tested.collect([nfs.model_copy(update={"machine": larger})], None)


def test_an_image_of_another_day_and_commit_counts(artifacts: Path, nfs: config.Recipe) -> None:
    built = make_image(artifacts, refresh="2026-01-02")
    assert built.manifest["files"] != make_image(artifacts).manifest["files"]
    make_image(artifacts, refresh="2026-01-02")
    assert tested.collect([nfs], None)[0].manifest["made_from"]["refresh"] == "2026-01-02"


def test_a_manifest_has_what_it_takes_to_know_the_keys(nfs: config.Recipe) -> None:
    """As the packaging stage writes it, of a server with files of its own."""
    image = server.preview(nfs).model_copy(update={"files": {"etc/x": "text"}})
    first, second = rootfs.key(nfs, "2026-01-02"), server.key(nfs, "2026-01-02")
    key = provision.key(nfs, disk.key(nfs, first, second), image)
    made = formats.Source(nfs, image, Path(), key, {}, "2026-01-02")
    manifest = json.loads(package._manifest(made, [], {}, {}))
    assert "files" not in manifest["server"]
    assert tested.keys(nfs, manifest) == {
        name: package.key(made, chosen) for name, chosen in formats.FORMATS.items()
    }


@pytest.mark.parametrize("text", ["{", "\0", "[]", "{}", '{"release": 1, "files": []}', "\xff"])
def test_a_damaged_manifest_is_one_line(artifacts: Path, nfs: config.Recipe, text: str) -> None:
    path = artifacts / f"{NAME}.manifest.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"manifest.json: is damaged; remove it, and build again"):
        tested.collect([nfs], None)


def test_the_inputs_digest_knows_packages_and_recipe_but_no_dates(
    tmp_path: Path, nfs: config.Recipe, table: config.Config
) -> None:
    one = make_image(tmp_path)
    again = json.loads(json.dumps(one.manifest))
    again["release"]["BUILD_DATE"] = "2027-01-01T00:00:00Z"
    again["server"]["image_digest"] = f"sha256:{'cd' * 32}"
    assert tested.inputs(tested.Built(nfs, again)) == tested.inputs(one)
    again["packages"]["bash"] = "5.2-1"
    assert tested.inputs(tested.Built(nfs, again)) != tested.inputs(one)
    larger = nfs.machine.model_copy(update={"memory_mib": 2048})
    other = nfs.model_copy(update={"machine": larger})
    assert tested.inputs(tested.Built(other, one.manifest)) != tested.inputs(one)


def test_sums_of_a_checkout_do_not_take_in_releases(artifacts: Path) -> None:
    package.write_sums(artifacts)
    assert NAME in (artifacts / "SHA256SUMS").read_text()
