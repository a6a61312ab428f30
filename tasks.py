"""The Invoke tasks: thin, they parse, call `hyraxvm` and report.  `./inv` lists them."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from invoke import Context, task

from hyraxvm.errors import Failure, UserError

if TYPE_CHECKING:
    from hyraxvm.progress import Progress
    from hyraxvm.source import Choice

# Modules are imported where they are used: `./inv --list` must not wait for all of them.


def reported(body: Callable[..., None]) -> Callable[..., None]:
    """Turn an expected failure into one message and the exit status that it stands for."""

    @functools.wraps(body)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        try:
            body(*args, **kwargs)
        except Failure as failure:
            print(f"./inv: {failure}", file=sys.stderr)
            raise SystemExit(failure.status) from None
        except KeyboardInterrupt:
            print("./inv: interrupted; nothing half-made is left", file=sys.stderr)
            raise SystemExit(130) from None
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            print(f"./inv: {where}{error.strerror or error}", file=sys.stderr)
            raise SystemExit(1) from None

    return wrapper


FORMAT_HELP = "only this format (see ./inv list), repeatable; default: all"


@task(
    iterable=["image", "format"],
    help={
        "image": "image to build (see ./inv list); default: the one that images.toml names",
        "all_": "every image of images.toml",
        "format": FORMAT_HELP,
        "server": "data server to put into it; default: the one that images.toml names",
        "server_image": "its image: oci-archive:FILE, oci:DIR, docker-archive:FILE or docker://...",
        "no_test": "do not boot what was built",
        "refresh": "fetch packages anew even if nothing else has changed",
    },
)
@reported
def build(
    c: Context,
    image: list[str],
    format: list[str],
    all_: bool = False,
    server: str | None = None,
    server_image: str | None = None,
    no_test: bool = False,
    refresh: bool = False,
) -> None:
    """Build, pack and boot-test images, several side by side."""
    from hyraxvm import boottest, config, formats, pipeline, source
    from hyraxvm.progress import Progress

    table = config.load()
    if image and all_:
        raise UserError("either images or --all; type: ./inv build --all")
    names = sorted(table.image) if all_ else image or [table.defaults.image]
    # All names are checked before a registry is asked.
    names = [config.choose("image", name, table.image) for name in dict.fromkeys(names)]
    wanted = formats.choose(format)
    chosen = _chosen(server, server_image)
    progress = _shared(Progress())
    made = pipeline.build(
        [config.recipe(table, n, chosen.server, chosen.image, chosen.digest) for n in names],
        wanted,
        progress,
        test=not no_test,
        refresh=_today() if refresh else "",
    )
    print()
    for artifact in made:
        print(f"{artifact.path}  {artifact.path.stat().st_size / 1e6:.1f} MB")
        if artifact.verdict:
            print(f"    boot test passed; report: {boottest.reports(artifact.path)}/report.html")
    stages = ", ".join(f"{name} {took} s" for name, took in progress.timings.items())
    if stages:
        print("stages:", stages)
    if chosen.notice:  # once more: the first one has scrolled away
        print(source.banner(chosen.notice), file=sys.stderr)


@task(
    help={
        "unit": "only the unit tests: no VM, a few minutes",
        "servers": "only the stand-in servers, each in a VM of its own",
        "image": "images to boot-test; default: all",
        "format": FORMAT_HELP,
    },
    iterable=["image", "format"],
)
@reported
def test(
    c: Context, image: list[str], format: list[str], unit: bool = False, servers: bool = False
) -> None:
    """Run the unit tests, then build what is not built and boot-test it."""
    from hyraxvm import config, formats, pipeline
    from hyraxvm.progress import Progress
    from hyraxvm.testing import server_tests, unit_tests

    if servers:
        server_tests()
        return
    table = config.load()
    names = [config.choose("image", name, table.image) for name in image or sorted(table.image)]
    wanted = formats.choose(format)
    unit_tests()
    if unit:
        return
    chosen = _chosen(None, None)
    recipes = [config.recipe(table, n, chosen.server, chosen.image, chosen.digest) for n in names]
    for artifact in pipeline.build(recipes, wanted, _shared(Progress())):
        print(f"{artifact.path.name}: boot test passed")


@task(
    name="boot-test",
    iterable=["file"],
    help={
        "file": "artifact to boot; repeatable",
        "regression": "checkout of hyrax_regression_tests to run against it too",
    },
)
@reported
def boot_test(c: Context, file: list[str], regression: str | None = None) -> None:
    """Boot and exercise artifacts, whoever built them."""
    from hyraxvm import boottest
    from hyraxvm import regression as suite
    from hyraxvm.progress import Progress
    from hyraxvm.verify import verify_all

    if not file:
        raise UserError("no file is named; type: ./inv boot-test FILE...")
    if refused := verify_all([Path(name) for name in file])[1]:
        raise UserError("\n./inv: ".join(refused))
    if regression:
        suite.check(Path(regression))
    progress = Progress()
    for path in map(Path, file):
        with progress.stage(f"boot test of {path.name}", loud=True) as on_line:
            boottest.test(path, on_line)
        print(f"{path}: passed; report: {boottest.reports(path) / 'report.html'}")
        if regression:
            folder = boottest.reports(path)
            with progress.stage(f"regression suite, {path.name}", loud=True) as on_line:
                found = suite.against(path, Path(regression), folder, on_line)
            print(f"regression suite: {found}; log: {folder / 'regression.log'}")
            if found.failures:
                raise Failure(f"regression suite: failed: {', '.join(found.failures)}")


@task(help={"server": "data server whose image is pinned (see images.toml)"})
@reported
def pin(c: Context, server: str) -> None:
    """Write the digest of a server's image into images.lock, which builds use."""
    from hyraxvm import config, source

    print(f"{server}: {source.pin(config.load(), server)}")


@task(iterable=["file"], help={"file": "artifact, manifest or SHA256SUMS; repeatable"})
@reported
def verify(c: Context, file: list[str]) -> None:
    """Check that files are whole, and say what they are."""
    from hyraxvm.verify import verify_all

    if not file:
        raise UserError("no file is named; type: ./inv verify FILE...")
    good, refused = verify_all([Path(name) for name in file])
    for line in good:
        print(line)
    if refused:
        raise UserError("\n./inv: ".join(refused))


@task(name="list", help={"json_": "as JSON"})
@reported
def list_(c: Context, json_: bool = False) -> None:
    """List images, servers and formats, and what is built."""
    from hyraxvm import config, listing

    rows = listing.rows(config.load())
    print(json.dumps(rows, indent=1) if json_ else listing.table(rows))


@task(help={"image": "image to render (see ./inv list)", "server": "data server in it"})
@reported
def render(c: Context, image: str, server: str | None = None) -> None:
    """Write and show every rendered template and script, without building."""
    from hyraxvm import config, preview, source

    table = config.load()
    recipe = config.recipe(table, image, server)
    pinned = source.cached(table, recipe.server_name)
    recipe = config.recipe(table, image, pinned.server, pinned.image, pinned.digest)
    for path in preview.write(recipe):
        print(f"\n==== {path}\n{path.read_text()}", end="")


@task(
    help={
        "image": "image to start (see ./inv list)",
        "server": "data server in it",
        "format": "format to start; default: the first that is built",
    }
)
@reported
def run(c: Context, image: str, server: str | None = None, format: str | None = None) -> None:
    """Boot a built image for a person: console here, port 8080 forwarded, Ctrl-A X to leave."""
    from hyraxvm import config, formats, listing
    from hyraxvm.trial import interactive_artifact

    table = config.load()
    recipes = [config.recipe(table, image, name) for name in ([server] if server else table.server)]
    wanted = formats.choose([format] if format else [])
    found = [path for one in wanted for each in recipes if (path := listing.built(each, one))]
    if not found:
        as_ = f" as {format}" if format else ""
        again = f" --format {format}" if format else ""
        raise UserError(f"image {image!r} is not built{as_}; type: ./inv build {image}{again}")
    status = interactive_artifact(max(found, key=lambda path: path.stat().st_mtime))
    if status:
        raise Failure(f"QEMU: exit status {status}")


@task(
    help={
        "file": "settings file, see docs/settings.md",
        "image": "image that it is for; default: the one that images.toml names",
        "server": "data server in it; default: the one that is wanted first",
        "to": "disk to write; default: FILE.iso beside it",
    }
)
@reported
def settings(
    c: Context,
    file: str,
    image: str | None = None,
    server: str | None = None,
    to: str | None = None,
) -> None:
    """Check a settings file for the first boot, and write the disk that hands it to a machine."""
    from hyraxvm import config, settings

    table = config.load()
    source = Path(file)
    recipe = config.recipe(table, image, server or table.defaults.auto[0])
    settings.check(source, recipe)
    disk = Path(to) if to else source.with_suffix(".iso")
    settings.write_disk(source, disk)
    print(f"{source}: right for image {recipe.name} with {recipe.server.title}")
    print(f"{disk}: attach it as a CD before the first start; it holds what {source} holds")


@task(
    help={
        "version": "version to release, as in pyproject.toml and the tag",
        "image": "only build and test this one, as a CI job of its own; default: all, and publish",
        "server": "data server, if it is not to be Hyrax",
        "built": "build nothing: take what lies in artifacts/, built and tested",
        "no_publish": "stop when artifacts/releases/VERSION is made and signed",
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
) -> None:
    """Build and test every image in every format, then sign and publish all of it."""
    from hyraxvm import (
        config,
        formats,
        index,
        pipeline,
        publish,
        publishing,
        release,
        signing,
        tested,
    )
    from hyraxvm.progress import Progress
    from hyraxvm.store import Store

    index.kind(version)
    progress = _shared(Progress())
    wanted = release.recipes(config.load(), [image] if image else [], server, print)

    def build(recipes: Sequence[config.Recipe]) -> list[pipeline.Artifact] | None:
        return None if built else pipeline.build(recipes, formats.choose([]), progress)

    if image:
        release.check(version)
        tested.collect(wanted, build(wanted))
        return
    settings = publishing.load()
    # The notes compare with what is published, also where somebody else publishes them.
    store = Store(settings.store) if settings.store.bucket or not no_publish else None
    folder = release.make(
        version, wanted, build=build, settings=settings, store=store, on_line=progress.say
    )
    if store and not no_publish:
        key = signing.public_key(settings.signing.key)
        publish.folder(store, folder, key, settings, progress.say)
    print(folder)


@task(
    iterable=["image"],
    help={
        "image": "only build and test these, as a CI job of its own; default: all, and publish",
        "server": "data server, if it is not to be Hyrax",
        "built": "build nothing: publish what lies in artifacts/, built and tested",
        "no_publish": "build, test and write the summary only",
    },
)
@reported
def nightly(
    c: Context,
    image: list[str],
    server: str | None = None,
    built: bool = False,
    no_publish: bool = False,
) -> None:
    """Build and test with refreshed packages, publish what has changed; writes nightly.md."""
    from hyraxvm import config, formats, nightly, pipeline, publishing, release, tested
    from hyraxvm.progress import Progress

    progress = Progress()

    def set_up() -> tuple[list[config.Recipe], nightly.Publisher | None]:
        _shared(progress)
        wanted = release.recipes(config.load(), image, server, print)
        release.clean_revision()
        if no_publish or image:
            return wanted, None
        return wanted, nightly.Publisher(publishing.load(), progress.say)

    def build(recipe: config.Recipe) -> list[pipeline.Artifact]:
        if built:
            return tested.there(recipe)
        return pipeline.build([recipe], formats.choose([]), progress, refresh=_today())

    nightly.run(set_up, build=build, say=progress.say)


@task(help={"json_": "on one line, for a CI system; default: a list", "server": "data server"})
@reported
def matrix(c: Context, json_: bool = False, server: str | None = None) -> None:
    """List the jobs that build the images side by side on several machines."""
    from hyraxvm import config, nightly, release

    table = config.load()
    chosen = release.server(table, server)
    if json_:
        print(nightly.matrix(sorted(table.image), chosen))
    else:
        for name in sorted(table.image):
            print(f"./inv nightly {name} --server {chosen}")


@task(
    help={
        "version": "version in artifacts/releases/, as ./inv release has made it",
        "dry_run": "say what would be done, change nothing",
    },
)
@reported
def publish(c: Context, version: str, dry_run: bool = False) -> None:
    """Publish a finished release, or go on where an interrupted publish has stopped."""
    from hyraxvm import index, publish, publishing, release, signing
    from hyraxvm.progress import Progress
    from hyraxvm.store import Store

    index.kind(version)
    settings = publishing.load()
    key = signing.public_key(settings.key())
    say = Progress().say
    folder = release.RELEASES / version
    publish.folder(Store(settings.store), folder, key, settings, say, dry_run)


@task(help={"version": "published version", "reason": "what users read who ask for it"})
@reported
def withdraw(c: Context, version: str, reason: str) -> None:
    """Take a published version back: nobody is led to it any more, its files stay."""
    from hyraxvm import publish, publishing
    from hyraxvm.store import Store

    store = Store(publishing.load().store)
    publish.withdraw(store, version, reason)
    print(f"{store.name}: {version} is withdrawn")


@task(
    iterable=["image"],
    help={
        "image": "image to get; default: the one that images.toml names",
        "release": "version, or nightly for the newest one; default: the newest release",
        "format": "format to get (see ./inv list)",
        "to": "folder to put it into; default: artifacts/downloads",
        "unpack": "unpack the zip beside it",
        "url": "folder with index.json, https://... or s3://...; default: as in publish.toml",
        "key": "fingerprint of the key that must have signed; default: as in publish.toml",
    },
)
@reported
def download(
    c: Context,
    image: list[str],
    release: str = "release",
    format: str = "vmx",
    to: str | None = None,
    unpack: bool = False,
    url: str | None = None,
    key: str | None = None,
) -> None:
    """Get published images: resumed where it stopped, nothing unsigned or changed is kept."""
    from hyraxvm import config, download, formats, parallel, paths, publishing
    from hyraxvm.store import WORKERS

    settings = publishing.load()
    site = download.Site(
        url or publishing.required(settings.download.url, "download.url"), settings.store
    )
    fingerprint = publishing.fingerprint(key) if key else settings.key()
    get = functools.partial(
        download.download,
        site,
        fingerprint,
        version=release,
        kind=formats.choose([format])[0].name,
        folder=Path(to) if to else paths.ARTIFACTS / "downloads",
        unpack=unpack,
        say=print,
    )
    names = dict.fromkeys(image or [config.load().defaults.image])
    jobs = [functools.partial(get, image=name) for name in names]
    for path in parallel.together(jobs, WORKERS):
        print(path)


@task(
    iterable=["what"],
    help={"what": "transfer: publish and download against rclone copy", "size": "megabytes"},
)
@reported
def bench(c: Context, what: list[str], size: int = 1000) -> None:
    """Measure throughput against a store on this machine."""
    from hyraxvm import bench

    if what != ["transfer"]:
        raise UserError("name what to measure; type: ./inv bench transfer")
    for line in bench.transfer(size):
        print(line)


@task
@reported
def doctor(c: Context) -> None:
    """Show each tool, the version found and needed, and the accelerator that is chosen."""
    from hyraxvm import doctor

    lines, healthy = doctor.report()
    print("\n".join(lines))
    if not healthy:
        raise Failure("something is missing; ./inv installs it: type ./inv --list")


@task(help={"cache": "also empty the cache of stages and downloaded packages"})
@reported
def clean(c: Context, cache: bool = False) -> None:
    """Remove what was built, its reports and logs."""
    from hyraxvm import housekeeping

    for line in housekeeping.clean(cache):
        print(line)


def _chosen(server: str | None, server_image: str | None) -> Choice:
    """The server to build, with a notice where it is not the one that is wanted first."""
    from hyraxvm import config, source

    chosen = source.choose(config.load(), server, server_image, print)
    if chosen.notice:
        print(source.banner(chosen.notice), file=sys.stderr)
    return chosen


def _shared(progress: Progress) -> Progress:
    """Let the stages come from other machines too, where this one has the key."""
    from hyraxvm import cache, shared

    cache.remote = shared.connect(progress.say)
    return progress


def _today() -> str:
    import time

    return time.strftime("%Y-%m-%d")
