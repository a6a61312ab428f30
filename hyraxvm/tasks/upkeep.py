"""Tasks about this machine."""

from __future__ import annotations

from invoke import Context, task

from hyraxvm.core.errors import Failure, UserError
from hyraxvm.tasks.common import reported


@task
@reported
def doctor(c: Context) -> None:
    """Show each tool, the version found and needed, and the accelerator that is chosen."""
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import doctor

    lines, healthy = doctor.report(Workspace.here())
    print("\n".join(lines))
    if not healthy:
        raise Failure("something is missing; ./inv installs it: type ./inv --list")


@task
@reported
def lint(c: Context) -> None:
    """Run the linters: ruff, mypy, import-linter, codespell, shellcheck."""
    from hyraxvm.tools.lint import lint

    lint()


@task(
    iterable=["what"],
    help={"what": "transfer: publish and download against rclone copy", "size": "megabytes"},
)
@reported
def bench(c: Context, what: list[str], size: int = 1000) -> None:
    """Measure throughput against a store on this machine."""
    from hyraxvm.tools import bench

    if what != ["transfer"]:
        raise UserError("name what to measure; type: ./inv bench transfer")
    for line in bench.transfer(size):
        print(line)


@task(help={"cache": "also empty the cache of stages and downloaded packages"})
@reported
def clean(c: Context, cache: bool = False) -> None:
    """Remove what was built, its reports and logs."""
    from hyraxvm.core.workspace import Workspace
    from hyraxvm.tools import clean

    for line in clean.clean(Workspace.here(), cache):
        print(line)
