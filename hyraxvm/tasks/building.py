"""Tasks that build images and boot-test them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

from invoke import Context, task

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.tasks.common import (
    ARCH_HELP,
    BASE_HELP,
    FORMAT_HELP,
    choose_server,
    files,
    progress,
    read_table,
    refuse,
    reported,
    sharing,
    today,
)

OTHERS: Final = "qcow2"  # the format in which bases are tested that no image is made of


@task(
    iterable=["image", "format"],
    help={
        "image": "image to build (see ./inv list); default: the one that images.toml names",
        "all_": "every image of images.toml",
        "format": FORMAT_HELP,
        "server": "data server to put into it; default: the one that images.toml names",
        "server_image": "its image: oci-archive:FILE, oci:DIR, docker-archive:FILE or docker://...",
        "base": BASE_HELP,
        "arch": ARCH_HELP,
        "full": "boot test each file in full, not only with a smoke boot",
        "no_test": "do not boot what was built",
        "refresh": "fetch packages again even if nothing else has changed",
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
    base: str | None = None,
    arch: str | None = None,
    full: bool = False,
    no_test: bool = False,
    refresh: bool = False,
) -> None:
    """Build and pack images, several side by side, and boot each file once."""
    from hyraxvm import formats
    from hyraxvm.config import images
    from hyraxvm.config.model import FULL, SMOKE
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages import pipeline
    from hyraxvm.stages.boot_test import verdict
    from hyraxvm.stages.server import choice

    table = read_table()
    if image and all_:
        raise UserError("images and --all exclude each other; type: ./inv build --all")
    if full and no_test:
        raise UserError("--full and --no-test exclude each other; type: ./inv build --full")
    names = sorted(table.image) if all_ else image or [table.defaults.image]
    # All names are checked before a registry is asked.
    arches = set()
    for name in names:
        recipe = images.recipe(table, name, base=base, arch=arch)
        arches.add(recipe.arch.oci)
        formats.choose(format, recipe.arch)
        if recipe.base.untried:
            print(f"{recipe.base.title} is untried: nobody has built it yet", file=sys.stderr)
    workspace = Workspace.here()
    shown = progress(workspace)
    chosen = choose_server(workspace, server, server_image, arches)
    workspace = sharing(workspace, shown.say)
    recipes = [chosen.recipe(table, name, base, arch) for name in dict.fromkeys(names)]
    made = pipeline.build(
        workspace,
        [(recipe, formats.choose(format, recipe.arch)) for recipe in recipes],
        shown,
        test=None if no_test else FULL if full else SMOKE,
        refresh=today() if refresh else "",
    )
    print()
    for artifact in made:
        print(f"{artifact.path}  {artifact.path.stat().st_size / 1e6:.1f} MB")
        if artifact.verdict:
            report = verdict.reports(workspace, artifact.path) / "report.html"
            print(f"    {verdict.TESTED[str(artifact.verdict['level'])]}")
            print(f"    report: {report}")
    if made and not full:
        print("the whole contract: ./inv build --full, or ./inv boot-test FILE")
    stages = ", ".join(f"{name} {took} s" for name, took in shown.timings.items())
    if stages:
        print("stages:", stages)
    if chosen.notice:  # again: the first one has scrolled away
        print(choice.banner(chosen.notice), file=sys.stderr)


@task(
    help={
        "unit": "only the unit tests: no VM, a few minutes",
        "servers": "only the stand-in servers, each in its own VM",
        "boot": "only boot tests, on the machine of ./inv try, with this checkout's guest files",
        "keep": "with --boot: leave the machine running for the next time",
        "k": "with --unit, --servers or --boot: only tests that match this expression of pytest",
        "image": "images to boot-test; default: those of images.toml without `tested = false`, "
        "with --boot the one that it names",
        "format": "only this format (see ./inv list), repeatable; default: the zip of every image, "
        "each other format of one of them, and the usual image on each other base",
        "base": f"with --boot: {BASE_HELP}",
        "arch": f"with --boot: {ARCH_HELP}",
    },
    iterable=["image", "format"],
)
@reported
def test(
    c: Context,
    image: list[str],
    format: list[str],
    unit: bool = False,
    servers: bool = False,
    boot: bool = False,
    keep: bool = False,
    k: str | None = None,
    base: str | None = None,
    arch: str | None = None,
) -> None:
    """Run the unit tests, then build what is not built and boot-test it."""
    from hyraxvm import formats
    from hyraxvm.config import images
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.stages import pipeline
    from hyraxvm.stages.plan import Plan
    from hyraxvm.tools import trial
    from hyraxvm.tools.testing import server_tests, unit_tests

    if k is not None and not (unit or servers or boot):
        raise UserError(
            f"-k goes with --unit, --servers or --boot; type: ./inv test --unit -k {k!r}"
        )
    if unit + servers + boot > 1 or (keep and not boot):
        raise UserError(
            "--unit, --servers and --boot exclude each other, and --keep goes with --boot; "
            "type: ./inv test --boot -k EXPR --keep"
        )
    if (base or arch) and not boot:
        raise UserError("--base and --arch go with --boot; type: ./inv build --full --base BASE")
    workspace = Workspace.here()
    if servers:
        server_tests(workspace, k)
        return
    table = read_table()
    names = list(dict.fromkeys(image)) or sorted(n for n, row in table.image.items() if row.tested)
    names = [images.choose("image", name, table.image) for name in names]
    if boot:
        if len(image) > 1 or format:
            raise UserError("--boot takes one image and no format; type: ./inv test --boot nfs")
        name = image[0] if image else table.defaults.image
        recipe = choose_server(workspace).recipe(table, name, base, arch)
        trial.test(workspace, Plan(recipe, root=workspace.root), progress(workspace), k, keep)
        return
    # Not every format of every image: making a format compares its disk with the master.
    chosen_formats = (
        [formats.choose(format)] * len(names) if format else formats.for_images(len(names))
    )
    unit_tests(workspace, k)
    if unit:
        return
    shown = progress(workspace)
    chosen = choose_server(workspace)
    recipes = [chosen.recipe(table, name) for name in names]
    wanted = list(zip(recipes, chosen_formats, strict=True))
    if not image and not format:
        usual = table.defaults.image
        others = [chosen.recipe(table, usual, base) for base in images.other_bases(table)]
        wanted += [(recipe, formats.choose([OTHERS], recipe.arch)) for recipe in others]
    for artifact in pipeline.build(sharing(workspace, shown.say), wanted, shown):
        print(f"{artifact.path.name}: boot test passed")


@task(
    name="boot-test",
    iterable=["file"],
    help={
        "file": "artifact to boot; repeatable",
        "regression": "checkout of hyrax_regression_tests to run against it too",
        "baseline": "file with the names of that suite's tests that fail elsewhere too",
    },
)
@reported
def boot_test(
    c: Context, file: list[str], regression: str | None = None, baseline: str | None = None
) -> None:
    """Boot and exercise artifacts, built here or elsewhere."""
    from hyraxvm.config.model import FULL
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.formats.verify import verify_all
    from hyraxvm.stages.boot_test import stage, verdict
    from hyraxvm.stages.package import stage as package
    from hyraxvm.tools import regression as suite

    paths = files(file, "boot-test")
    refuse(verify_all(paths)[1])
    if regression:
        suite.check(Path(regression))
    elif baseline:
        raise UserError("--baseline is a list for --regression; add: --regression DIR")
    expected = suite.read_baseline(Path(baseline)) if baseline else frozenset()
    workspace = Workspace.here()
    shown = progress(workspace)
    failed = []

    def boots(path: Path) -> None:
        with shown.stage(f"boot test of {path.name}") as on_line:
            stage.test(workspace, path, on_line)
        folder = verdict.reports(workspace, path)
        if path.resolve().parent == workspace.artifacts.resolve():
            package.record_tests(workspace.artifacts, {path.name: FULL})
        print(f"{path}: passed; report: {folder / 'report.html'}")

    def regresses(path: Path) -> None:
        folder = verdict.reports(workspace, path)
        with shown.stage(f"regression suite, {path.name}") as on_line:
            found = suite.against(path, Path(regression or ""), folder, on_line)
        print(f"regression suite: {found}; log: {folder / 'regression.log'}")
        compared = suite.difference(found, expected)
        if baseline:
            print(f"compared with {baseline}: {compared}")
        if compared.worse:
            raise Failure(f"regression suite: failed: {', '.join(compared.worse)}")

    # All files are tested, also those behind one that fails.
    for path in paths:
        for check in (boots, regresses) if regression else (boots,):
            try:
                check(path)
            except Failure as failure:
                failed.append(str(failure))
                if isinstance(failure, UserError):  # it is the same for all others
                    raise UserError("\n./inv: ".join(failed)) from failure
    if failed:
        raise Failure("\n./inv: ".join(failed))


@task(
    help={
        "server": "data server whose image is pinned (see images.toml)",
        "tag": "tag to pin in place of the one in images.toml",
    }
)
@reported
def pin(c: Context, server: str, tag: str = "") -> None:
    """Write the digest of a server's image into images.lock, which builds use."""
    from hyraxvm.stages.server import choice

    found = choice.pin(read_table(), server, tag=tag)
    print(f"{server}: {found.reference}\ndigest: {found.digest}")
    for name, value in found.stated.items():
        print(f"{name}: {value}")
