"""The nightly: every image with refreshed packages, and a summary of one page."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hyraxvm.config import images
from hyraxvm.config.model import Artifact
from hyraxvm.config.publish import Settings
from hyraxvm.core import cache
from hyraxvm.core.errors import Failure
from hyraxvm.core.workspace import Workspace
from hyraxvm.publish.publisher import publish_folder, published_index, renew
from hyraxvm.release import assemble, checks, collect, index, notes, signing
from hyraxvm.store.s3 import Store

SUMMARY: Final = "nightly.md"  # in artifacts/
LOCK: Final = ".nightly.lock"  # in artifacts/, while a nightly runs
UNFINISHED: Final = "**Not finished**: it is running, or was killed."
BUILDING: Final = "being built"
BUSY: Final = "another nightly runs in this checkout; wait for it, or end it"

Build = Callable[[images.Recipe], Sequence[Artifact]]


@dataclass
class Outcome:
    """The result of one image: how long it took, and why it failed if it did."""

    image: str
    result: str = "not begun"
    seconds: float = 0.0
    artifacts: list[Artifact] = field(default_factory=list)
    failure: str = ""


def run(
    workspace: Workspace,
    set_up: Callable[[], tuple[Sequence[images.Recipe], Publisher | None]],
    *,
    build: Build,
    say: Callable[[str], None],
) -> None:
    """Build and test what `set_up` returns; publish what has changed; always write the summary.

    Without a publisher, nothing is published, and nothing is compared with what is published.

    Raises:
        UserError: Another nightly runs, or a setting is wrong.
        Failure: A build, a test or the publishing failed; the message names which.
    """
    with cache.lock(workspace.artifacts / LOCK, BUSY):
        title = f"Nightly {time.strftime('%Y-%m-%d', time.gmtime())}"
        outcomes: list[Outcome] = []
        changed: dict[str, list[str]] = {}

        def save() -> None:
            write_summary(workspace, summary(title, outcomes, UNFINISHED, changed))

        save()  # before anything can fail: the file there is yesterday's
        try:
            wanted, publisher = set_up()
            if publisher:
                publisher.check()  # before the hours of building
            outcomes = [Outcome(recipe.name) for recipe in wanted]
            build_all(wanted, outcomes, build, save)
            failed = [one.image for one in outcomes if one.failure]
            if failed:
                raise Failure(f"failed: {', '.join(failed)}; nothing was published")
            if publisher:
                made = [artifact for one in outcomes for artifact in one.artifacts]
                result, changed = publisher.publish(collect.collect(workspace, wanted, made))
            else:
                result = "All passed; nothing was to be published."
        except BaseException as error:
            result = f"**Failed**: {_reason(error, outcomes)}"
            write_summary(workspace, summary(title, outcomes, result, changed))
            raise
        write_summary(workspace, summary(title, outcomes, result, changed))
        say(result)


class Publisher:
    """Publishes a nightly if it differs from the newest one."""

    def __init__(
        self,
        workspace: Workspace,
        settings: Settings,
        say: Callable[[str], None],
        sign: bool = True,
    ) -> None:
        """Take what `publish.toml` says; without `sign`, make the folder only."""
        self.sign = sign
        self.workspace = workspace
        self.settings = settings
        self.say = say

    def check(self) -> None:
        """Raise `UserError` unless the key, the store and the checkout are fit for a release."""
        self.key = self.settings.key()
        self.public_key = signing.public_key(self.key) if self.sign else b""
        self.revision = checks.clean_revision(self.workspace)
        self.store = Store(self.settings.store)
        published_index(self.store)

    def publish(self, built: Sequence[collect.Built]) -> tuple[str, dict[str, list[str]]]:
        """Publish; return what happened in one sentence, and the changed packages of each image."""
        published, _ = published_index(self.store)
        number = version(published, time.gmtime())
        newest, old = assemble.previous(self.store, "nightly", number)
        changed = differences(old, built)
        if same := unchanged(self.workspace, published, built):
            if self.sign:
                renew(self.store, self.key)
            return f"All passed; nothing has changed since {same}, nothing was published.", changed
        folder = assemble.assemble(
            self.workspace,
            number,
            built,
            revision=self.revision,
            key=self.key,
            text="",
            previous=newest,
            old=old,
            on_line=self.say,
            sign=self.sign,
        )
        if not self.sign:
            return f"All passed; {number} is ready: ./inv publish {number} --sign", changed
        publish_folder(self.workspace, self.store, folder, self.public_key, self.settings, self.say)
        cache.remove_tree(folder)  # it is in the store, and the disk should not fill up
        return f"All passed; {number} is published.", changed


def build_all(
    wanted: Sequence[images.Recipe],
    outcomes: Sequence[Outcome],
    build: Build,
    on_change: Callable[[], None],
) -> None:
    """Build and test image by image; try the others too where one fails.

    `outcomes`, one for each image, are updated as the work goes on; `on_change` is called after
    each update.
    """
    for recipe, outcome in zip(wanted, outcomes, strict=True):
        started = time.monotonic()
        outcome.result = BUILDING
        on_change()
        try:
            outcome.artifacts = list(build(recipe))
            outcome.result = "passed"
        except (Failure, OSError) as failure:
            outcome.failure = str(failure)
            outcome.result = "**failed**"
        finally:
            outcome.seconds = time.monotonic() - started
        on_change()


def _reason(error: BaseException, outcomes: Sequence[Outcome]) -> str:
    """Return why a nightly failed: the signal or the message, and which image was being built."""
    number = signal.SIGINT.value if isinstance(error, KeyboardInterrupt) else 0
    if isinstance(error, SystemExit) and isinstance(error.code, int):
        number = error.code - 128  # `cli.main` exits with 128 + the signal's number
    names = {one.value: one.name for one in signal.Signals}
    said = f"ended by {names[number]}" if number in names else str(error) or type(error).__name__
    building = [one.image for one in outcomes if one.result == BUILDING]
    return f"{said} while {building[0]} was being built" if building else said


def version(published: index.Index | None, now: time.struct_time) -> str:
    """Return today's first version that is free: `20260131`, then `20260131.2`."""
    day = time.strftime("%Y%m%d", now)
    taken = {one.version for one in published.releases} if published else set()
    number = 1
    while (name := day if number == 1 else f"{day}.{number}") in taken:
        number += 1
    return name


def unchanged(
    workspace: Workspace, published: index.Index | None, built: Sequence[collect.Built]
) -> str:
    """Return the newest nightly if its images have the same inputs and packages, else ""."""
    newest = published.find(published.latest.nightly) if published else None
    if newest is None:
        return ""
    before = {image.image: image.inputs for image in newest.images}
    now = {one.recipe.name: collect.inputs(workspace, one) for one in built}
    return newest.version if before == now else ""


def summary(
    title: str,
    outcomes: Sequence[Outcome],
    result: str,
    changed: Mapping[str, Sequence[str]],
) -> str:
    """Return one page of Markdown: the result of each image, and what failed.

    `changed` maps images to the lines of `notes.changes`.
    """
    lines = [f"# {title}", "", result, ""]
    if outcomes:
        lines += ["| image | result | minutes | files |", "|---|---|---|---|"]
    for one in outcomes:
        files = ", ".join(
            f"{artifact.path.name} ({artifact.path.stat().st_size / 1e6:.0f} MB)"
            for artifact in one.artifacts
        )
        lines.append(f"| {one.image} | {one.result} | {one.seconds / 60:.1f} | {files or '-'} |")
    for one in outcomes:
        if one.failure:
            lines += ["", f"## {one.image} failed", "", "```", one.failure, "```"]
            lines += [
                "",
                f"Logs: `artifacts/logs/{one.image}-*`; reports: `artifacts/reports/`",
            ]
    for image, found in changed.items():
        lines += ["", f"## Packages changed in {image}", ""]
        lines += [f"- {line}" for line in found] or ["None."]
    return "\n".join(lines).rstrip() + "\n"


def differences(
    old: Mapping[str, Mapping[str, Any]], built: Sequence[collect.Built]
) -> dict[str, list[str]]:
    """Return image -> what has changed in it since the manifests in `old`."""
    return {
        one.recipe.name: notes.changes(
            notes.packages(old[one.recipe.name]), notes.packages(one.manifest)
        )
        for one in built
        if one.recipe.name in old
    }


def matrix(names: Sequence[str], server: str) -> str:
    """Return the jobs of a CI system, one for each image, as JSON on one line."""
    return json.dumps({"include": [{"image": name, "server": server} for name in names]})


def write_summary(workspace: Workspace, text: str) -> None:
    """Write the summary, whole or not at all."""
    workspace.artifacts.mkdir(parents=True, exist_ok=True)
    work = workspace.artifacts / f".{SUMMARY}"
    work.write_text(text)
    work.replace(workspace.artifacts / SUMMARY)
