"""Tasks about this machine."""

from __future__ import annotations

from invoke import Context, task

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.tasks.common import read_table, reported


@task
@reported
def doctor(c: Context) -> None:
    """Show each tool, the version found and needed, and the accelerator that is chosen."""
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import doctor

    lines, healthy = doctor.report(Workspace.here())
    print("\n".join(lines))
    if not healthy:
        raise Failure("a tool is missing or too old; to install it, type: ./inv --list")


@task
@reported
def lint(c: Context) -> None:
    """Run the linters: ruff, mypy, import-linter, codespell, shellcheck."""
    from hyraxvm.tools.lint import lint

    lint()


@task(
    iterable=["what", "format"],
    help={
        "what": "build: ./inv build cold, warm and after edits; transfer: publish and download "
        "next to rclone copy; serve: the embedded server next to its peers; report: the figures of "
        "what is built and tested; slowest: the tests that took longest",
        "image": "with build: image to build; default: the one that images.toml names",
        "format": "with build: only this format, repeatable; default: all",
        "server": "with build: data server in it",
        "size": "with transfer: megabytes",
        "write": "with report: write the figures into docs/performance.md",
    },
)
@reported
def bench(
    c: Context,
    what: list[str],
    format: list[str],
    image: str | None = None,
    server: str | None = None,
    size: int = 1000,
    write: bool = False,
) -> None:
    """Measure builds, transfers and the embedded server, or show what was measured."""
    from hyraxvm import formats
    from hyraxvm.config import images
    from hyraxvm.config.arch import DEFAULT
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import bench, bench_build, bench_serve, figures

    if what == ["build"]:
        table = read_table()
        words = [images.choose("image", image or table.defaults.image, table.image)]
        made = formats.choose(format, DEFAULT)
        words += [word for one in made for word in ("--format", one.name)]
        if server:
            words += ["--server", images.choose("server", server, table.server)]
        print(bench_build.table(bench_build.measure(Workspace.here(), words, print)))
    elif what == ["transfer"]:
        for line in bench.transfer(size):
            print(line)
    elif what == ["serve"]:
        for line in bench_serve.serve():
            print(line)
    elif what == ["report"]:
        found = figures.collect(Workspace.here().artifacts)
        print(figures.table(found))
        if write:
            figures.write(found)
    elif what == ["slowest"]:
        print(figures.slowest(Workspace.here().artifacts))
    else:
        raise UserError(
            "bench measures nothing else; expected: build, transfer, serve, report or slowest; "
            "type: ./inv bench report"
        )


@task(help={"cache": "also empty the cache of stages and downloaded packages"})
@reported
def clean(c: Context, cache: bool = False) -> None:
    """Remove what was built, its reports and logs."""
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import clean

    for line in clean.clean(Workspace.here(), cache):
        print(line)
