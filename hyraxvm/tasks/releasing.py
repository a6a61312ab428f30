"""Tasks that release, publish and withdraw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from invoke import Context, task

from hyraxvm.tasks.common import progress, read_table, reported, sharing, today

if TYPE_CHECKING:
    from hyraxvm.config.model import Artifact

SERVER_HELP: Final = "data server; default: Hyrax"


@task(
    help={
        "version": "version to release, as in pyproject.toml and the tag",
        "image": "only build and test this image, as one job of CI; default: all, and publish",
        "server": SERVER_HELP,
        "built": "build nothing: take what is in artifacts/, built and tested",
        "no_publish": "stop when artifacts/releases/VERSION is made and signed",
        "unsigned": "stop when it is made; where the key is, type: ./inv publish VERSION --sign",
    },
)
@reported
def release(
    c: Context,
    version: str,
    image: str | None = None,
    server: str | None = None,
    built: bool = False,
    no_publish: bool = False,
    unsigned: bool = False,
) -> None:
    """Build and test every image in every format, then sign and publish all of it."""
    from hyraxvm import formats
    from hyraxvm.config import images, publish
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.publish import publisher
    from hyraxvm.release import assemble, checks, collect, index, signing
    from hyraxvm.stages import pipeline
    from hyraxvm.store.s3 import Store

    index.kind(version)
    workspace = Workspace.here()
    shown = progress(workspace)
    workspace = sharing(workspace, shown.say)
    wanted = checks.recipes(workspace, read_table(), [image] if image else [], server, print)

    def build(recipes: Sequence[images.Recipe]) -> list[Artifact] | None:
        every = [(recipe, formats.choose([], recipe.arch)) for recipe in recipes]
        return None if built else pipeline.build(workspace, every, shown)

    if image:
        checks.tagged_revision(workspace, version)
        collect.collect(workspace, wanted, build(wanted))
        return
    settings = publish.load()
    # The notes compare with what is published, also if another job publishes them.
    store = Store(settings.store) if settings.store.bucket or not no_publish else None
    folder = assemble.make(
        workspace,
        version,
        wanted,
        build=build,
        settings=settings,
        store=store,
        on_line=shown.say,
        sign=not unsigned,
    )
    if store and not no_publish and not unsigned:
        key = signing.public_key(settings.signing.key)
        publisher.publish_folder(workspace, store, folder, key, settings, shown.say)
    print(folder)


@task(
    iterable=["image"],
    help={
        "image": "only build and test these images, as one job of CI; default: all, and publish",
        "server": SERVER_HELP,
        "built": "build nothing: publish what is in artifacts/, built and tested",
        "no_publish": "build, test and write the summary only",
        "unsigned": "only make the release; where the key is, type: ./inv publish VERSION --sign",
    },
)
@reported
def nightly(
    c: Context,
    image: list[str],
    server: str | None = None,
    built: bool = False,
    no_publish: bool = False,
    unsigned: bool = False,
) -> None:
    """Build and test with refreshed packages, publish what has changed, write nightly.md."""
    from hyraxvm import formats
    from hyraxvm.config import images, publish
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.publish import nightly
    from hyraxvm.release import checks, collect
    from hyraxvm.stages import pipeline

    workspace = Workspace.here()
    shown = progress(workspace)

    def set_up() -> tuple[list[images.Recipe], nightly.Publisher | None]:
        nonlocal workspace
        workspace = sharing(workspace, shown.say)
        wanted = checks.recipes(workspace, read_table(), image, server, print)
        checks.clean_revision(workspace)
        if no_publish or image:
            return wanted, None
        return wanted, nightly.Publisher(workspace, publish.load(), shown.say, not unsigned)

    def build(recipe: images.Recipe) -> list[Artifact]:
        if built:
            return collect.tested_artifacts(workspace, recipe)
        wanted = [(recipe, formats.choose([], recipe.arch))]
        return pipeline.build(workspace, wanted, shown, refresh=today())

    nightly.run(workspace, set_up, build=build, say=shown.say)


@task(
    help={
        "json_": "on one line, for a CI system; default: a list",
        "server": SERVER_HELP,
        "release": "version that the jobs release; default: they make a nightly",
    }
)
@reported
def matrix(
    c: Context, json_: bool = False, server: str | None = None, release: str | None = None
) -> None:
    """List the jobs that build the images side by side; refuse what one of them would refuse."""
    from hyraxvm.config import publish
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.publish import nightly
    from hyraxvm.release import checks

    table = read_table()
    chosen = checks.ready(Workspace.here(), table, server, publish.load(), release)
    if json_:
        print(nightly.matrix(sorted(table.image), chosen))
    else:
        for name in sorted(table.image):
            what = f"release {release} --image {name}" if release else f"nightly {name}"
            print(f"./inv {what} --server {chosen}")


@task(
    iterable=["version"],
    help={
        "version": "version in artifacts/releases/, as ./inv release has made it",
        "dry_run": "say what would be done, change nothing",
        "sign": "sign it first: it was made with --unsigned",
        "renew": "sign the list of releases again, with today's date, and publish nothing",
        "check": "show what the store is able to do, with one small object, and publish nothing",
    },
)
@reported
def publish(
    c: Context,
    version: list[str],
    dry_run: bool = False,
    sign: bool = False,
    renew: bool = False,
    check: bool = False,
) -> None:
    """Publish a finished release, or continue an interrupted publish; or check the store."""
    from hyraxvm.config.publish import load
    from hyraxvm.core.errors import UserError
    from hyraxvm.core.progress import Progress
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.publish import publisher
    from hyraxvm.release import folder as release_folder
    from hyraxvm.release import index, signing
    from hyraxvm.store import probe
    from hyraxvm.store.s3 import Store

    settings = load()
    if check:
        store = Store(settings.store)
        print(probe.table(store, probe.probe(store)))
        return
    if renew:
        store = Store(settings.store)
        publisher.renew(store, settings.key())
        print(f"{store.name}{index.INDEX}: is signed again")
        return
    if len(version) != 1:
        raise UserError("expected: one version; type: ./inv publish VERSION, --renew or --check")
    index.kind(version[0])
    key = signing.public_key(settings.key())
    say = Progress().say
    workspace = Workspace.here()
    folder = workspace.releases / version[0]
    if sign:
        release_folder.sign(folder, settings.key())
    publisher.publish_folder(workspace, Store(settings.store), folder, key, settings, say, dry_run)


@task(
    help={"version": "published version", "reason": "one line for users who ask for this version"}
)
@reported
def withdraw(c: Context, version: str, reason: str) -> None:
    """Withdraw a published version: the page does not offer it any more, its files stay."""
    from hyraxvm.config import publish
    from hyraxvm.publish import publisher
    from hyraxvm.store.s3 import Store

    settings = publish.load()
    store = Store(settings.store)
    publisher.withdraw(store, version, reason, settings.key())
    print(f"{store.name}: {version} is withdrawn")
