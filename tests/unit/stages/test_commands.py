"""mmdebstrap's hooks, which it splits into words, for a checkout and a cache with any path."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded

ODD = Path("/home/my name/it's $HOME;x")


def words(text: str) -> list[str]:
    """Split a hook as mmdebstrap does for its own commands, and a shell for the others."""
    code = "use Text::ParseWords; print map {qq($_\\0)} shellwords($ARGV[0])"
    done = subprocess.run(["perl", "-e", code, text], capture_output=True, text=True, check=True)
    return done.stdout.split("\0")[:-1]


def hooks(command: list[str], *programs: str) -> list[list[str]]:
    found = [re.sub(r"^--\w+-hook=", "", option) for option in command if "-hook=" in option]
    return [words(hook) for hook in found if hook.split()[0] in programs]


def test_two_builds_side_by_side_keep_the_same_package(tmp_path: Path) -> None:
    results = StageCache(tmp_path / "cache")
    with rootfs.package_cache(results) as first:
        (first / "a.deb").write_text("a")
    with rootfs.package_cache(results) as one, rootfs.package_cache(results) as other:
        for own in (one, other):
            # As tar does it: what is there is removed, and the new file must not be there.
            (own / "a.deb").unlink()
            for name in ("a.deb", "b.deb"):
                (own / name).open("x").write(name)
    with rootfs.package_cache(results) as last:
        kept = {file.name: file.read_text() for file in last.iterdir()}
    assert kept == {"a.deb": "a.deb", "b.deb": "b.deb"}
    assert [each.name for each in results.folder.iterdir()] == ["packages"]


def test_paths_with_blanks_stay_one_word() -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    kept = [
        ["sync-in", str(ODD / "debs"), "/var/cache/apt/archives"],
        ["sync-out", "/var/cache/apt/archives", str(ODD / "debs")],
    ]
    command = rootfs.command(recipe, ODD / "config", ODD / "rootfs.tar", ODD / "debs")
    assert hooks(command, "copy-in", "sync-in", "sync-out") == [
        *kept,
        ["copy-in", f"{ODD}/config/etc", f"{ODD}/config/usr", "/"],
    ]
    places = (ODD / name for name in ("site", "dapdir", "debs", "layer.tar"))
    command = embedded.layer_command(recipe, *places)
    modules = f"/usr/local/lib/python{recipe.base.python}/dist-packages"
    assert hooks(command, "sync-in", "sync-out", "cp") == [
        *kept,
        ["sync-in", str(ODD / "site"), modules],
        ["cp", "-r", str(ODD / "dapdir"), f"$1{modules}/"],
    ]


def test_only_the_build_does_not_wait_for_the_disk(tmp_path: Path) -> None:
    recipe = images.recipe(images.load(), "nfs", "dapdir")
    command = rootfs.command(recipe, tmp_path, tmp_path / "rootfs.tar", tmp_path)
    options = tmp_path / rootfs.DPKG_OPTIONS
    options.parent.mkdir(parents=True)
    given = [option.removeprefix("--dpkgopt=") for option in command if "--dpkgopt=" in option]
    assert given == [f"{tmp_path}/dpkg-options", "force-unsafe-io"]
    # As mmdebstrap writes a file's lines and an option.
    options.write_text("path-exclude=/usr/share/man/*\nforce-unsafe-io\n")
    (hook,) = (o.split("=", 1)[1] for o in command if o.startswith("--customize-hook=sed"))
    subprocess.run(["sh", "-c", hook, "exec", str(tmp_path)], check=True)
    assert options.read_text() == "path-exclude=/usr/share/man/*\n"
