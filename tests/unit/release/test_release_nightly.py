"""The nightly: what it publishes, what it tells, and the jobs that it is made of."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shop import NAME, PACKAGES, Shop, make_image, passed

from hyraxvm import cli, config, nightly, release
from hyraxvm.errors import Failure, UserError
from hyraxvm.formats import FORMATS
from hyraxvm.pipeline import Artifact


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


def test_the_matrix_is_json_on_one_line(
    table: config.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.run(["matrix", "--json", "--server", "dapdir"])
    said = capsys.readouterr().out
    assert json.loads(said) == {
        "include": [{"image": name, "server": "dapdir"} for name in sorted(table.image)]
    }
    assert said.count("\n") == 1
