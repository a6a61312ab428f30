"""The nightly: what it publishes, what its summary says, and its jobs in CI."""

from __future__ import annotations

import json
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from hyraxvm import cli
from hyraxvm.config import images, publish
from hyraxvm.config.model import Artifact
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish import nightly
from hyraxvm.release import checks
from hyraxvm.release import folder as finished
from hyraxvm.stages import pipeline
from hyraxvm.store import stage_cache
from tests.unit.release.gpgkeys import keyring, make_key
from tests.unit.release.shop import FORMATS, NAME, PACKAGES, Shop, make_image, passed


@pytest.fixture
def night(workspace: Workspace, shop: Shop, monkeypatch: pytest.MonkeyPatch) -> nightly.Publisher:
    monkeypatch.setattr(checks, "clean_revision", lambda workspace: "0" * 40)
    return nightly.Publisher(workspace, shop.settings(), lambda line: None)


def artifacts_of(folder: Path) -> list[Artifact]:
    return [Artifact(folder / f"{NAME}{one.suffix}", {}) for one in FORMATS.values()]


def test_a_nightly_is_published_once(
    night: nightly.Publisher, shop: Shop, artifacts: Path, nfs: images.Recipe
) -> None:
    def run() -> str:
        nightly.run(
            night.workspace,
            lambda: ([nfs], night),
            build=lambda one: artifacts_of(artifacts),
            say=print,
        )
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


def test_a_nightly_that_another_computer_signs(
    workspace: Workspace,
    shop: Shop,
    artifacts: Path,
    nfs: images.Recipe,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(checks, "clean_revision", lambda workspace: "0" * 40)
    monkeypatch.setattr(publish, "load", shop.settings)
    today = time.strftime("%Y%m%d", time.gmtime())
    folder = artifacts / "releases" / today

    def run() -> None:
        # No key is here.
        with keyring():
            night = nightly.Publisher(workspace, shop.settings(), print, sign=False)
            built = artifacts_of(artifacts)
            nightly.run(workspace, lambda: ([nfs], night), build=lambda one: built, say=print)

    run()
    assert f"{today} is ready: ./inv publish {today} --sign" in (
        (artifacts / "nightly.md").read_text()
    )
    assert not (folder / "SHA256SUMS.asc").exists()
    assert shop.objects() == set()
    with pytest.raises(SystemExit):
        cli.run(["publish", today])
    (folder / "note").touch()
    with pytest.raises(SystemExit):
        cli.run(["publish", today, "--sign"])
    assert "note: is not in SHA256SUMS; remove it" in capsys.readouterr().err
    (folder / "note").unlink()
    cli.run(["publish", today, "--sign"])
    shop.check()
    assert shop.index()["latest"]["nightly"] == today
    # The next night, nothing has changed: only the list is signed again.
    before = shop.index()
    shutil.rmtree(artifacts / "releases")
    run()
    assert not folder.exists()
    time.sleep(1.1)  # the date of the list has seconds
    cli.run(["publish", "--renew"])
    after = shop.index()
    assert after.pop("date") > before.pop("date")
    assert after.pop("signature") != before.pop("signature")
    assert after == before


def test_another_key_than_that_of_the_settings_signs_nothing(
    shop: Shop, folder: Path, tmp_path: Path, key: str
) -> None:
    other = make_key("Not this one <not@example.org>")
    shutil.copytree(folder, tmp_path / "1.0.0")
    with pytest.raises(UserError, match=f"release.json: names key {key}, publish.toml {other}"):
        finished.sign(tmp_path / "1.0.0", other)


def test_a_night_with_a_failure_publishes_nothing_and_says_what_failed(
    night: nightly.Publisher, shop: Shop, artifacts: Path, table: images.Config
) -> None:
    def build(recipe: images.Recipe) -> list[Artifact]:
        if recipe.name == "local":
            raise Failure("pytest: exit status 1; log: reports/x\n    FAILED test_samples")
        return artifacts_of(artifacts)

    wanted = [images.recipe(table, name, "dapdir") for name in ("local", "nfs")]
    with pytest.raises(Failure, match="failed: local; nothing was published"):
        nightly.run(night.workspace, lambda: (wanted, night), build=build, say=print)
    text = (artifacts / "nightly.md").read_text()
    assert "| local | **failed** |" in text
    assert "| nfs | passed |" in text
    assert "FAILED test_samples" in text
    assert shop.objects() == set()


@pytest.fixture
def yesterday(night: nightly.Publisher) -> Path:
    """The file of the summary, with that of a nightly that passed."""
    path = night.workspace.artifacts / nightly.SUMMARY
    path.write_text("# Nightly 2026-01-01\n\nAll passed.\n")
    return path


@pytest.mark.parametrize("where", ["connect", "recipes", "revision", "load"])
def test_a_set_up_that_fails_is_in_the_summary(
    yesterday: Path, monkeypatch: pytest.MonkeyPatch, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*words: object) -> None:
        assert yesterday.read_text().endswith(f"\n\n{nightly.UNFINISHED}\n")
        raise Failure("nobody answers")

    place, name = {
        "connect": (stage_cache, "connect"),
        "recipes": (checks, "recipes"),
        "revision": (checks, "clean_revision"),
        "load": (publish, "load"),
    }[where]
    monkeypatch.setattr(stage_cache, "connect", lambda say: None)
    monkeypatch.setattr(place, name, fail)
    with pytest.raises(SystemExit):
        cli.run(["nightly", "--server", "dapdir"])
    today = time.strftime("%Y-%m-%d", time.gmtime())
    assert yesterday.read_text() == f"# Nightly {today}\n\n**Failed**: nobody answers\n"
    assert capsys.readouterr().err == "./inv: nobody answers\n"


def test_a_nightly_of_one_image_refuses_a_tree_with_changes(
    yesterday: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def changed(workspace: Workspace) -> str:
        raise UserError("file: not as in git; commit first, or git stash")

    monkeypatch.setattr(checks, "clean_revision", changed)
    monkeypatch.setattr(pipeline, "build", lambda *words, **more: pytest.fail("it was built"))
    with pytest.raises(SystemExit) as raised:
        cli.run(["nightly", "nfs", "--server", "dapdir"])
    assert raised.value.code == 2
    assert capsys.readouterr().err == "./inv: file: not as in git; commit first, or git stash\n"


@pytest.mark.parametrize(
    ("interruption", "told"),
    [
        (SystemExit(128 + signal.SIGTERM), "ended by SIGTERM while nfs was being built"),
        (SystemExit(128 + signal.SIGHUP), "ended by SIGHUP while nfs was being built"),
        (KeyboardInterrupt(), "ended by SIGINT while nfs was being built"),
        (ValueError("strange"), "strange while nfs was being built"),
    ],
)
def test_an_interrupted_night_keeps_what_it_has_and_names_the_image(
    yesterday: Path,
    workspace: Workspace,
    table: images.Config,
    interruption: BaseException,
    told: str,
) -> None:
    def build(recipe: images.Recipe) -> list[Artifact]:
        if recipe.name == "local":
            return artifacts_of(workspace.artifacts)
        # SIGKILL would leave this summary.
        text = yesterday.read_text()
        assert nightly.UNFINISHED in text
        assert "| local | passed |" in text
        assert "| nfs | being built |" in text
        raise interruption

    wanted = [images.recipe(table, name, "dapdir") for name in ("local", "nfs", "smb")]
    with pytest.raises(type(interruption)):
        nightly.run(workspace, lambda: (wanted, None), build=build, say=print)
    text = yesterday.read_text()
    assert f"\n**Failed**: {told}\n" in text
    assert f"| local | passed | 0.0 | {NAME}.zip (" in text
    assert "| nfs | being built | 0.0 | - |\n| smb | not begun | 0.0 | - |\n" in text


def test_two_nightlies_at_once(
    night: nightly.Publisher, artifacts: Path, nfs: images.Recipe
) -> None:
    begun, end = threading.Event(), threading.Event()

    def build(recipe: images.Recipe) -> list[Artifact]:
        begun.set()
        assert end.wait(10)
        return []

    first = threading.Thread(
        target=nightly.run,
        args=(night.workspace, lambda: ([nfs], None)),
        kwargs={"build": build, "say": print},
    )
    first.start()
    assert begun.wait(10)
    with pytest.raises(UserError, match="another nightly runs in this checkout"):
        nightly.run(night.workspace, lambda: ([nfs], None), build=build, say=print)
    end.set()
    first.join()
    assert "All passed" in (artifacts / "nightly.md").read_text()


def test_the_matrix_is_json_on_one_line(
    table: images.Config,
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(publish, "load", shop.settings)
    monkeypatch.setattr(checks, "clean_revision", lambda workspace: "0" * 40)
    cli.run(["matrix", "--json", "--server", "dapdir"])
    said = capsys.readouterr().out
    assert json.loads(said) == {
        "include": [{"image": name, "server": "dapdir"} for name in sorted(table.image)]
    }
    assert said.count("\n") == 1
