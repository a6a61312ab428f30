"""What a release is made of, what is refused, and what the nightly tells."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from shop import PACKAGES, Shop, assemble, make_image, passed, workshop

from hyraxvm import config, index, nightly, notes, package, publish, publishing, release, sbom
from hyraxvm.errors import Failure, UserError
from hyraxvm.formats import FORMATS
from hyraxvm.paths import ROOT
from hyraxvm.pipeline import Artifact

NAME = "hyrax-vm-nfs-dapdir1.0.0-debian12-amd64"


@pytest.fixture
def artifacts(tmp_path: Path) -> Iterator[Path]:
    """An `artifacts/` with a tested image in it."""
    with workshop(tmp_path):
        make_image(tmp_path)
        for entry in FORMATS.values():
            passed(tmp_path / f"{NAME}{entry.suffix}", tmp_path / "reports")
        yield tmp_path


@pytest.fixture(scope="module")
def table() -> config.Config:
    return config.load()


@pytest.fixture(scope="module")
def nfs(table: config.Config) -> config.Recipe:
    return config.recipe(table, "nfs", "dapdir")


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
    git(tmp_path, "add", "file")
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


def test_only_what_is_whole_and_tested_is_collected(
    artifacts: Path, nfs: config.Recipe, table: config.Config
) -> None:
    (found,) = release.collect([nfs], None)
    assert found.name == NAME
    assert release.there(nfs)[0].verdict is not None
    smb = config.recipe(table, "smb", "dapdir")
    with pytest.raises(UserError, match="image 'smb' with server 'dapdir' is not built; type: "):
        release.collect([nfs, smb], None)
    image = artifacts / f"{NAME}.ova"
    good = image.read_bytes()
    image.write_bytes(good[:-1])
    with pytest.raises(UserError, match=r"ova: is not what its manifest says; build it again"):
        release.collect([nfs], None)
    image.write_bytes(good)
    shutil.rmtree(artifacts / "reports" / image.name)
    with pytest.raises(UserError, match=r"has not passed the boot tests; type: ./inv boot-test"):
        release.collect([nfs], None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found["files"].pop(), "image 'nfs' is not built as hyperv; type: ./inv"),
        (
            lambda found: found["release"].update(GIT_REVISION="0123-dirty"),
            r"was built from files that are not in git .0123-dirty.",
        ),
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
        release.collect([nfs], None)


def test_the_inputs_digest_knows_packages_and_recipe_but_no_dates(
    tmp_path: Path, nfs: config.Recipe, table: config.Config
) -> None:
    one = make_image(tmp_path)
    again = json.loads(json.dumps(one.manifest))
    again["release"]["BUILD_DATE"] = "2027-01-01T00:00:00Z"
    again["server"]["image_digest"] = f"sha256:{'cd' * 32}"
    assert release.inputs(release.Built(nfs, again)) == release.inputs(one)
    again["packages"]["bash"] = "5.2-1"
    assert release.inputs(release.Built(nfs, again)) != release.inputs(one)
    larger = nfs.machine.model_copy(update={"memory_mib": 2048})
    other = nfs.model_copy(update={"machine": larger})
    assert release.inputs(release.Built(other, one.manifest)) != release.inputs(one)


# ------------------------------------------------------------------------------------ nightly
@pytest.fixture
def night(
    artifacts: Path, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> Iterator[nightly.Publisher]:
    monkeypatch.setattr(nightly, "LOCK", artifacts / ".nightly.lock")
    monkeypatch.setattr(nightly, "SUMMARY", artifacts / "nightly.md")
    monkeypatch.setattr(release, "clean_revision", lambda: "0" * 40)
    yield nightly.Publisher(shop.settings(), lambda line: None)


def artifacts_of(folder: Path) -> list[Artifact]:
    return [Artifact(folder / f"{NAME}{one.suffix}", {}) for one in FORMATS.values()]


def test_a_nightly_is_published_once(
    night: nightly.Publisher, shop: Shop, artifacts: Path, nfs: config.Recipe
) -> None:
    def run() -> str:
        nightly.run([nfs], build=lambda one: artifacts_of(artifacts), publisher=night, say=print)
        return (artifacts / "nightly.md").read_text()

    today = time.strftime("%Y%m%d", time.gmtime())
    assert f"All passed; {today} is published." in run()
    shop.check()
    assert shop.index()["latest"]["nightly"] == today
    assert not (artifacts / "releases" / today).exists()
    before = shop.objects()
    assert f"nothing has changed since {today}, nothing was published" in run()
    assert shop.objects() == before
    make_image(artifacts, packages={**PACKAGES, "bash": "5.3"}, seed=b"new")
    for entry in FORMATS.values():
        passed(artifacts / f"{NAME}{entry.suffix}", artifacts / "reports")
    text = run()
    assert f"{today}.2 is published" in text
    assert "## Packages changed in nfs\n\n- bash 5.2 -> 5.3\n" in text
    assert f"| nfs | passed | 0.0 | {NAME}.zip (" in text
    assert shop.index()["latest"]["nightly"] == f"{today}.2"


def test_a_night_with_a_failure_publishes_nothing_and_says_what_failed(
    night: nightly.Publisher, shop: Shop, artifacts: Path, table: config.Config
) -> None:
    def build(recipe: config.Recipe) -> list[Artifact]:
        if recipe.name == "local":
            raise Failure("pytest: exit status 1; log: reports/x\n    FAILED test_samples")
        return artifacts_of(artifacts)

    wanted = [config.recipe(table, name, "dapdir") for name in ("local", "nfs")]
    with pytest.raises(Failure, match="failed: local; nothing was published"):
        nightly.run(wanted, build=build, publisher=night, say=print)
    text = (artifacts / "nightly.md").read_text()
    assert "| local | **failed** |" in text
    assert "| nfs | passed |" in text
    assert "FAILED test_samples" in text
    assert shop.objects() == set()


def test_two_nightlies_at_once(
    night: nightly.Publisher, artifacts: Path, nfs: config.Recipe
) -> None:
    begun, end = threading.Event(), threading.Event()

    def build(recipe: config.Recipe) -> list[Artifact]:
        begun.set()
        assert end.wait(10)
        return []

    first = threading.Thread(
        target=nightly.run, args=([nfs],), kwargs={"build": build, "publisher": None, "say": print}
    )
    first.start()
    assert begun.wait(10)
    with pytest.raises(UserError, match="another nightly runs in this checkout"):
        nightly.run([nfs], build=build, publisher=None, say=print)
    end.set()
    first.join()
    assert "All passed" in (artifacts / "nightly.md").read_text()


# ----------------------------------------------------------------------------- index and page
def test_versions_are_ordered_by_age() -> None:
    versions = ["1.0.0-rc1", "1.0.0-rc10", "1.0.0", "1.2.0", "1.10.0"]
    assert sorted(sorted(versions), key=index.order) == versions
    days = ["20251231", "20260101", "20260101.2", "20260101.10"]
    assert sorted(sorted(days), key=index.order) == days


def test_candidates_are_never_the_latest(folder: Path) -> None:
    one = index.read_release((folder / "release.json").read_bytes(), "")
    candidate = one.model_copy(update={"version": "2.0.0-rc1", "path": "releases/2.0.0-rc1"})
    found = index.arranged("0" * 40, [one, candidate])
    assert [entry.version for entry in found.releases] == ["2.0.0-rc1", "1.0.0"]
    assert found.latest.release == "1.0.0"


def test_the_schema_in_the_docs_is_the_one_of_the_models() -> None:
    assert (ROOT / "docs" / "index.schema.json").read_text() == index.json_schema()


# -------------------------------------------------------------------------------- settings, CLI
@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("[nightly]", "[nightlies]", "nightlies: unknown key; allowed here: download, nightly, "),
        ("keep = 14", "keep = 0", "nightly.keep: 0: input should be greater than or equal to 1"),
        ("keep = 14", "keep = '14'", "nightly.keep: '14': input should be a valid integer"),
        ("keep = 14", "kept = 14", "nightly.kept: unknown key; allowed here: keep"),
        ('bucket = ""', 'bucket = "A B"', "store.bucket: 'A B': string should match pattern"),
        ('prefix = ""', 'prefix = "/vm"', "store.prefix: '/vm': string should match"),
        ('key = ""', 'key = "1234"', "signing.key: '1234': string should match"),
        ('url = ""', 'url = "ftp://x"', "download.url: 'ftp://x': string should match"),
        ("[signing]", "[signing", "is not valid TOML"),
        ('[signing]\nkey = ""', "", "signing: is missing"),
    ],
)
def test_a_fault_in_the_settings_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, told: str
) -> None:
    text = publishing.PUBLISH_TOML.read_text()
    assert old in text
    path = tmp_path / "publish.toml"
    path.write_text(text.replace(old, new))
    monkeypatch.setenv(publishing.VARIABLE, str(path))
    with pytest.raises(UserError) as raised:
        publishing.load()
    assert str(raised.value).startswith(f"{path}: {told}")
    assert "\n" not in str(raised.value).rstrip()


def test_fingerprints_as_people_copy_them() -> None:
    assert (
        publishing.fingerprint("0123 4567 89ab CDEF " + "00" * 12) == "0123456789ABCDEF" + "00" * 12
    )
    with pytest.raises(UserError, match="is no fingerprint; allowed are 40 hexadecimal digits"):
        publishing.fingerprint("0123456789ABCDEF")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["publish", "1.0.0"], "signing.key: is empty; write its value there"),
        (["publish", "../x"], "'../x': is no version"),
        (["withdraw", "1.0.0", "why"], "store.bucket: is empty; write its value there"),
        (["download"], "download.url: is empty; write its value there"),
        (["download", "--url", "http://[", "--key", "AB" * 20], "is no URL"),
        (["download", "--url", "http://127.0.0.1/", "--key", "12"], "'12': is no fingerprint"),
        (["download", "--format", "iso", "--url", "http://127.0.0.1/"], "no format 'iso'"),
        (["release", "0.0.7", "--server", "dapdir", "--no-publish"], "is not the one in pyproject"),
        (["nightly", "--server", "apache"], "there is no server 'apache'"),
        (["nightly", "nope", "--server", "dapdir"], "there is no image 'nope'"),
    ],
)
def test_a_users_error_is_one_line_and_status_2(words: list[str], told: str) -> None:
    if words[0] == "download" and "--format" in words:
        words = [*words, "--key", "AB" * 20]
    done = subprocess.run(
        [sys.executable, "-m", "hyraxvm.cli", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert told in done.stderr
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_the_matrix_is_json_on_one_line(table: config.Config) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hyraxvm.cli", "matrix", "--json", "--server", "dapdir"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == {
        "include": [{"image": name, "server": "dapdir"} for name in sorted(table.image)]
    }
    assert done.stdout.count("\n") == 1


def test_sums_of_a_checkout_do_not_take_in_releases(artifacts: Path) -> None:
    package.write_sums(artifacts)
    assert NAME in (artifacts / "SHA256SUMS").read_text()
