"""Stage `package`: master -> the shipped files, `<name>.manifest.json` and `SHA256SUMS`.

A format is made again if its own inputs have changed.  Every file is unpacked, and its disk is
compared with the master.  Nothing is shipped unless every requested format succeeds.
"""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hyraxvm.config.images import Recipe
from hyraxvm.config.model import LEVELS
from hyraxvm.config.names import MANIFEST, SUMS
from hyraxvm.core import cache, code
from hyraxvm.core.errors import Failure
from hyraxvm.core.parallel import run_parallel
from hyraxvm.core.paths import ROOT
from hyraxvm.formats import FORMATS, Format, Source, disk_images


def key(recipe: Recipe, master_key: str, chosen: Format, root: Path = ROOT) -> str:
    """Return the digest of what decides one format's file; `master_key` is the master's key.

    The code that counts is the format's module with its imports, and this module without its
    imports: it imports all formats, and a change of one must not make the others again.
    """
    return cache.digest(
        master_key,
        chosen.name,
        recipe.image.model_dump(exclude={"tested"}),
        recipe.server.model_dump(),
        recipe.machine.model_dump(
            include={"cpus": True, "memory_mib": True, "disk_gib": True, "devices": {chosen.name}}
        ),
        recipe.base.title,
        recipe.base.osinfo,
        recipe.arch_name,
        recipe.processor.guest_os.model_dump(),
        *(root / template.relative_to(ROOT) for template in chosen.templates),
        code.digest(root, chosen.module),
        root / Path(__file__).relative_to(ROOT),
    )


def artifact_path(artifacts: Path, source: Source, chosen: Format) -> Path:
    """Return the path of a format's file in `artifacts`."""
    return artifacts / f"{source.name}{chosen.suffix}"


def build(
    artifacts: Path,
    source: Source,
    wanted: Sequence[Format],
    *,
    keys: Mapping[str, str],
    packages: dict[str, str],
    timings: dict[str, float],
    largest: Callable[[], str],
    log: Path,
    on_line: Callable[[str], None],
    added: dict[str, str] | None = None,
) -> list[Path]:
    """Make the `wanted` formats, the manifest and the sums in `artifacts`; return the files.

    `keys` has each format's key, from the plan; `packages` are the Debian packages of the image,
    `timings` the seconds of the stages so far; `largest` describes what makes the image large;
    `added` are the packages of its addition, as `inventory` names them.

    Raises:
        Failure: A tool failed, a disk differs from the master, or a file exceeds its size budget.
    """
    manifest = artifacts / f"{source.name}{MANIFEST}"
    entries = {
        entry["format"]: entry
        for entry in _entries(manifest)
        if entry.get("format") in FORMATS and _current(artifacts, source, keys, entry)
    }
    missing = [chosen for chosen in wanted if chosen.name not in entries]
    stale = [
        path
        for chosen in FORMATS.values()
        if chosen.name not in entries
        and chosen not in wanted
        and (path := artifact_path(artifacts, source, chosen)).exists()
    ]
    if missing or stale or len(entries) != len(_entries(manifest)):
        work = artifacts / f".{source.name}.work"
        cache.remove_tree(work)
        work.mkdir(parents=True)
        try:
            tasks = [
                partial(_make, source, chosen, keys[chosen.name], work, log, on_line)
                for chosen in missing
            ]
            entries |= {
                entry["format"]: entry for entry in run_parallel(tasks, os.cpu_count() or 1)
            }
            _check_budgets(source, list(entries.values()), largest)
            written = work / manifest.name
            listed = [entries[name] for name in FORMATS if name in entries]
            written.write_text(_manifest(source, listed, packages, timings, added))
            # The manifest is replaced last, and old files go first.  After an interruption the old
            # manifest does not fit the new files, so that they are made again.
            for path in stale:
                on_line(f"removing {path.name}: it was made from another master")
                path.unlink()
            for chosen in missing:
                path = artifact_path(artifacts, source, chosen)
                (work / path.name).replace(path)
            written.replace(manifest)
        finally:
            cache.remove_tree(work)
        write_sums(artifacts)
    return [artifact_path(artifacts, source, chosen) for chosen in wanted]


def read_release(path: Path) -> dict[str, str]:
    """Read the `KEY=value` lines of the guest's version file."""
    pairs = (line.split("=", 1) for line in path.read_text().splitlines())
    return {key: "".join(shlex.split(value)) for key, value in pairs}


def record_tests(folder: Path, passed: Mapping[str, str]) -> None:
    """Write into the manifests in `folder` which boot test their files have passed.

    `passed` is file name -> one of `LEVELS`.  A file keeps the better one that it has passed.
    """
    for path in sorted(folder.glob(f"*{MANIFEST}")):
        manifest = json.loads(path.read_text())
        before = json.dumps(manifest)
        for entry in manifest["files"]:
            known = [entry.get("tested"), passed.get(entry["name"])]
            if best := max(filter(None, known), key=LEVELS.index, default=None):
                entry["tested"] = best
        if json.dumps(manifest) != before:
            written = path.with_name(f".{path.name}")
            written.write_text(json.dumps(manifest, indent=1) + "\n")
            written.replace(path)
            write_sums(folder)


def write_sums(folder: Path) -> None:
    """Write `SHA256SUMS` over the manifests in `folder` and the files that they list."""
    lines = {}
    for manifest in folder.glob(f"*{MANIFEST}"):
        lines[manifest.name] = cache.file_digest(manifest)
        lines |= {e["name"]: e["sha256"] for e in _entries(manifest)}
    written = folder / f".{SUMS}"
    # The format of sha256sum(1).
    written.write_text("".join(f"{lines[name]}  {name}\n" for name in sorted(lines)))
    written.replace(folder / SUMS)


def _make(
    source: Source,
    chosen: Format,
    stage_key: str,
    work: Path,
    log: Path,
    on_line: Callable[[str], None],
) -> dict[str, Any]:
    """Make one file in `work`; return its entry in the manifest."""
    started = time.monotonic()
    log = log.with_name(f"{log.stem}-{chosen.name}.log")
    log.unlink(missing_ok=True)
    target, inside = work / f"{source.name}{chosen.suffix}", work / chosen.name
    inside.mkdir()
    on_line(f"making {target.name}")
    contents = [_entry(path) for path in chosen.write(source, target, inside, log)]
    cache.remove_tree(inside)
    inside.mkdir()
    on_line(f"comparing what is in {target.name} with the master")
    specs = chosen.read(target, inside).specs
    (drive,) = {spec.drives[0].path: spec.drives[0] for spec in specs.values()}.values()
    disk_images.compare(source.master, drive.path, drive.format, log)
    cache.remove_tree(inside)
    return {
        **_entry(target),
        "format": chosen.name,
        "key": stage_key,
        "seconds": round(time.monotonic() - started, 1),
        "contents": contents,
    }


def _current(
    artifacts: Path, source: Source, keys: Mapping[str, str], entry: dict[str, Any]
) -> bool:
    """Return whether a file exists, is whole, and was made from these very inputs."""
    chosen = FORMATS[entry["format"]]
    path = artifact_path(artifacts, source, chosen)
    return bool(
        entry["name"] == path.name
        and entry["key"] == keys[chosen.name]
        and path.is_file()
        and path.stat().st_size == entry["size"]
        and cache.file_digest(path) == entry["sha256"]
    )


def _check_budgets(
    source: Source, entries: list[dict[str, Any]], largest: Callable[[], str]
) -> None:
    budgets = source.recipe.budget
    over = [
        f"{entry['name']}: {entry['size'] / 1e6:.1f} MB; must be at most "
        f"{budgets[entry['format']]} MB "
        f"(budget.{source.recipe.server_name}.{entry['format']} in images.toml)"
        for entry in entries
        if entry["format"] in budgets and entry["size"] > budgets[entry["format"]] * 10**6
    ]
    if over:
        raise Failure("\n".join([*over, "nothing was shipped", largest()]))


def _manifest(
    source: Source,
    entries: list[dict[str, Any]],
    packages: dict[str, str],
    timings: dict[str, float],
    added: dict[str, str] | None = None,
) -> str:
    content = {
        "schema": 1,
        "name": source.name,
        "release": source.release,
        "server": source.image.model_dump(exclude={"files"}),
        "machine": source.recipe.machine.model_dump(),
        "system": {
            "distribution": source.recipe.base.distribution,
            "version": source.recipe.base.version,
        },
        # Inputs of the files' keys that are neither above nor in the checkout.
        "made_from": {
            "refresh": source.refresh,
            "server_files": cache.digest(source.image.files),
        },
        "packages": packages,
        **({"added": added} if added else {}),
        "files": entries,
        "timings": timings,
    }
    return json.dumps(content, indent=1) + "\n"


def _entries(manifest: Path) -> list[dict[str, Any]]:
    """Return the files that a manifest lists; empty if it is missing or cannot be read."""
    try:
        files: list[dict[str, Any]] = json.loads(manifest.read_text())["files"]
        return [entry for entry in files if {"name", "size", "sha256", "key"} <= entry.keys()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _entry(path: Path) -> dict[str, Any]:
    return {
        "name": path.name,
        "size": path.stat().st_size,
        "sha256": cache.file_digest(path),
    }
