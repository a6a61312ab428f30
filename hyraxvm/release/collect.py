"""The images of a release: those in `artifacts/`, built in every format and tested."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from hyraxvm import __version__
from hyraxvm.config import images
from hyraxvm.config.model import SMOKE, Artifact, ServerImage
from hyraxvm.config.names import MANIFEST
from hyraxvm.core import cache
from hyraxvm.core.errors import UserError
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import made_for
from hyraxvm.release import notes
from hyraxvm.stages.boot_test import verdict
from hyraxvm.stages.plan import Plan

LOST: Final = ("-dirty", "unknown")  # a revision that ends so cannot be checked out


@dataclass(frozen=True)
class Built:
    """An image that is packed in every format and tested: its recipe and its manifest."""

    recipe: images.Recipe
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        """The beginning of the names of its files."""
        return str(self.manifest["name"])


def collect(
    workspace: Workspace, wanted: Sequence[images.Recipe], made: Sequence[Artifact] | None
) -> list[Built]:
    """Return the images, if every format is built and every file tested.

    `made` is what has just been built, or None: take what is in `artifacts/`.

    Raises:
        UserError: A file is missing or was not tested, or was made from files that are not in git
            or not in this checkout.
    """
    found = []
    for recipe in wanted:
        manifest = _manifest_of(workspace, recipe, made)
        _check_origin(workspace, recipe, manifest)
        listed = {entry["format"]: entry for entry in manifest["files"]}
        for name in (kind.name for kind in made_for(recipe.arch)):
            if name not in listed:
                raise UserError(
                    f"image {recipe.name!r} is not built as {name}; "
                    f"type: ./inv build {recipe.name} --server {recipe.server_name}"
                )
            path = workspace.artifacts / listed[name]["name"]
            if not path.is_file() or cache.file_digest(path) != listed[name]["sha256"]:
                raise UserError(f"{path}: is not what its manifest says; build it again")
            if verdict.read(workspace, path) is None:
                smoke = verdict.read(workspace, path, SMOKE)
                passed = "has passed its smoke boot only" if smoke else "has passed no boot test"
                raise UserError(
                    f"{path}: {passed}; a release needs the whole one; type: ./inv boot-test {path}"
                )
        found.append(Built(recipe, manifest))
    return found


def _check_origin(workspace: Workspace, recipe: images.Recipe, manifest: Mapping[str, Any]) -> None:
    """Raise `UserError` unless an image was made from files that this checkout and git have.

    The revision does not matter: the same inputs at an earlier commit make the same image.
    """
    name, facts = manifest["name"], manifest["release"]
    if facts["GIT_REVISION"].endswith(LOST):
        raise UserError(
            f"{name}: was built from files that are not in git ({facts['GIT_REVISION']}); "
            "type: ./inv clean --cache, and build again"
        )
    again = f"type: ./inv build {recipe.name} --server {recipe.server_name}"
    if facts["VERSION"] != __version__:
        raise UserError(
            f"{name}: is of version {facts['VERSION']}, this checkout is {__version__}; {again}"
        )
    wanted = keys(workspace, recipe, manifest)
    for entry in manifest["files"]:
        if entry["key"] != wanted.get(entry["format"]):
            raise UserError(
                f"{entry['name']}: was made from other inputs than those of this checkout; {again}"
            )


def keys(
    workspace: Workspace, recipe: images.Recipe, manifest: Mapping[str, Any]
) -> dict[str, str]:
    """Return format -> the key of its file as made from this checkout.

    The day of the packages and the server's image are those in the manifest.  A manifest of an
    older version, which has neither, gives no keys.
    """
    try:
        image = ServerImage.model_validate(manifest["server"])
        refresh, files = (manifest["made_from"][name] for name in ("refresh", "server_files"))
    except (ValidationError, KeyError):
        return {}
    return Plan(recipe, refresh, workspace.root).formats(image, files)


def tested_artifacts(workspace: Workspace, recipe: images.Recipe) -> list[Artifact]:
    """Return the files of an image in `artifacts/`.

    Raises `UserError`: one is missing, or was not tested.
    """
    built = collect(workspace, [recipe], None)[0]
    paths = [workspace.artifacts / entry["name"] for entry in built.manifest["files"]]
    return [Artifact(path, verdict.read(workspace, path)) for path in paths]


def inputs(workspace: Workspace, built: Built) -> str:
    """Return a digest of what an image was made from: declared inputs and packages.

    Two builds with the same digest differ in dates at most.
    """
    recipe, manifest = built.recipe, built.manifest
    image = ServerImage.model_validate(manifest["server"])
    if recipe.server.source == "embedded":
        # Packed again for each build, with the dates of that time.
        image = image.model_copy(update={"image_digest": ""})
    keys = Plan(recipe, root=workspace.root).formats(image)
    return cache.digest(notes.packages(manifest), *keys.values())


def _manifest_of(
    workspace: Workspace, recipe: images.Recipe, made: Sequence[Artifact] | None
) -> dict[str, Any]:
    """Return the manifest of an image with this recipe; of several, the one that was just built."""
    ours = {artifact.path.name for artifact in made or ()}
    wanted = (recipe.name, recipe.server_name, recipe.base_name, recipe.arch_name)
    found = []
    for path in sorted(workspace.artifacts.glob(f"*{MANIFEST}")):
        try:
            manifest = json.loads(path.read_text())
            release = manifest["release"]
            names = {entry["name"] for entry in manifest["files"]}
            facts = tuple(release[name] for name in ("IMAGE", "SERVER", "BASE", "ARCH"))
        except (ValueError, LookupError, TypeError) as error:
            raise UserError(f"{path}: is damaged; remove it, and build again") from error
        if facts == wanted and (made is None or names & ours):
            found.append(manifest)
    if len(found) > 1:
        both = " and ".join(manifest["name"] for manifest in found)
        raise UserError(
            f"{workspace.artifacts}: {both}: two versions of one image; remove the old one"
        )
    if not found:
        raise UserError(
            f"image {recipe.name!r} with server {recipe.server_name!r} is not built; "
            f"type: ./inv build {recipe.name} --server {recipe.server_name}"
        )
    return dict(found[0])
