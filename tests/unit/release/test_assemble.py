"""The folder of a release: what is in it, and what its files say."""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from hyraxvm import cli
from hyraxvm.config import images, publish
from hyraxvm.core.errors import UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.core.workspace import Workspace
from hyraxvm.release import assemble as release
from hyraxvm.release import checks, notes, sbom, signing
from hyraxvm.release import folder as finished
from hyraxvm.tools import clean
from tests.unit.release.shop import NAME, NFS, Shop, assemble, make_image

# As purl-spec names a distribution of Debian's packages.
DISTRO = f"{NFS.base.distribution.lower()}-{NFS.base.version}"


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
        "bash": f"pkg:deb/debian/bash@5.2?arch=amd64&distro={DISTRO}",
        "libstdc++6": f"pkg:deb/debian/libstdc%2B%2B6@12.2.0-14?arch=amd64&distro={DISTRO}",
        "openssh-server": (f"pkg:deb/debian/openssh-server@1:9.2p1-2?arch=amd64&distro={DISTRO}"),
        "numpy": "pkg:pypi/numpy@2.3.5",
        "dapdir": f"pkg:oci/dapdir@sha256:{'ab' * 32}",
    }
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in found["dependencies"]}
    assert depends["server:dapdir"] == ["pkg:pypi/numpy@2.3.5"]
    assert len(depends[NAME]) == 4
    manifest = json.loads((folder / f"{NAME}.manifest.json").read_text())
    assert sbom.bill_of_materials(manifest) == text


def test_the_bill_of_materials_has_what_an_addition_brings(folder: Path) -> None:
    manifest = json.loads((folder / f"{NAME}.manifest.json").read_text())
    added = {
        **{"pypi/numpy": "2.3.5", "pypi/jupyterlab": "4.6.6", "deb/debian/netcdf-bin": "4.9"},
        "cran/ncdf4": "1.23",
    }
    text = sbom.bill_of_materials({**manifest, "added": added})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    found = json.loads(text)
    refs = [component["bom-ref"] for component in found["components"]]
    assert refs.count("pkg:pypi/numpy@2.3.5") == 1  # the server has it, too
    depends = {entry["ref"]: entry.get("dependsOn", []) for entry in found["dependencies"]}
    new = {"pkg:pypi/jupyterlab@4.6.6", "pkg:deb/debian/netcdf-bin@4.9", "pkg:cran/ncdf4@1.23"}
    assert new <= set(depends[NAME])


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
    shop: Shop, tmp_path: Path, folder: Path, key: str
) -> None:
    shop.send(folder)
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
    shop: Shop, folder: Path, artifacts: Path, monkeypatch: pytest.MonkeyPatch, bucket: bool
) -> None:
    shop.send(folder)
    settings = shop.settings()
    if not bucket:
        none = settings.store.model_copy(update={"bucket": ""})
        settings = settings.model_copy(update={"store": none})
    monkeypatch.setattr(publish, "load", lambda: settings)
    monkeypatch.setattr(checks, "tagged_revision", lambda workspace, version: "0" * 40)
    monkeypatch.setattr(notes, "section", lambda path, version: "- Something new.")
    table = images.load()
    only = table.model_copy(update={"image": {"nfs": table.image["nfs"]}})
    monkeypatch.setattr(images, "load", lambda: only)
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
    shop: Shop, workspace: Workspace, nfs: images.Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "tagged_revision", lambda workspace, version: "0" * 40)
    monkeypatch.setattr(notes, "section", lambda path, version: "- Something new.")
    tried: list[str] = []

    def build(recipes: object) -> None:
        for attempt in (
            lambda: clean.clean(workspace, with_cache=False),
            lambda: make(lambda _: None),
        ):
            with pytest.raises(UserError) as raised:
                attempt()
            tried.append(str(raised.value))

    def make(build: release.Build) -> Path:
        return release.make(
            workspace,
            "1.2.0",
            [nfs],
            build=build,
            settings=shop.settings(),
            store=None,
            on_line=tried.append,
        )

    made = make(build)
    assert tried[:2] == [
        "a release runs in this checkout; wait for it, or end it",
        "another release is made in this checkout; wait for it, or end it",
    ]
    assert finished.read(made, signing.public_key(shop.key), shop.key).version == "1.2.0"
    assert f"removed {made.parent}" in clean.clean(workspace, with_cache=False)


@pytest.mark.parametrize(
    ("changelog", "told"),
    [
        ("# Changelog\n\n## 0.9.0 (2026-01-01)\n", "has no section `## 1.0.0"),
        (
            "## 1.0.0 (unreleased)\n- x\n",
            "the section on 1.0.0 says 'unreleased'; write `## 1.0.0 .YYYY-MM-DD.`",
        ),
        ("## 1.0.0\n- x\n", "the section on 1.0.0 says None"),
    ],
)
def test_a_changelog_that_does_not_know_the_release(
    tmp_path: Path, changelog: str, told: str
) -> None:
    path = tmp_path / "CHANGELOG.md"
    path.write_text(changelog)
    with pytest.raises(UserError, match=f"CHANGELOG.md: {told}"):
        notes.section(path, "1.0.0")


def test_the_section_of_the_changelog(tmp_path: Path) -> None:
    path = tmp_path / "CHANGELOG.md"
    text = "# C\n\n## 1.0.1 (2026-02-02)\n\n- b\n\n## 1.0.0 (2026-01-01)\n\n- a\n- A\n"
    path.write_text(text)
    assert notes.section(path, "1.0.1") == "- b"
    assert notes.section(path, "1.0.0") == "- a\n- A"
