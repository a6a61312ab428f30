"""`./inv render`: write every rendered file of an image, without a build."""

from __future__ import annotations

from pathlib import Path

from hyraxvm.config import names
from hyraxvm.config.images import Recipe
from hyraxvm.core import cache
from hyraxvm.core.workspace import Workspace
from hyraxvm.formats import made_for
from hyraxvm.stages.provision import guest_tar, version_file
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.server import stage as server


def write(workspace: Workspace, recipe: Recipe) -> list[Path]:
    """Write the rendered files to `artifacts/rendered/<image>/`; return their paths."""
    image = server.preview(recipe, workspace.cache)
    name = names.artifact_name(recipe, image.version)
    work = Path("/WORK")  # in place of the stage's directory
    template = provision.render_template(
        recipe,
        disk=work / "disk.qcow2",
        kernel=work / "vmlinuz",
        initrd=work / "initrd.img",
        output=work / "output",
        console=work / "console",
        private_key=work / "build-key",
        public_key=work / "build-key.pub",
        guest_tar=work / "guest.tar",
        scripts=[str(work / script) for script in provision.render_scripts(recipe, image)],
    )
    texts = {
        "image.pkr.hcl": template,
        **provision.render_scripts(recipe, image),
        **guest_tar.render_units(recipe, image),
        **{f"guest/{path}": text for path, (text, _) in guest_tar.guest_files(recipe).items()},
        "hyrax-vm-release": version_file.release_file(version_file.release(recipe, image)),
    }
    for chosen in made_for(recipe.arch):
        for file, text in chosen.texts(recipe, name, image).items():
            texts[f"{chosen.name}/{file}"] = text
    folder = workspace.rendered / recipe.name
    cache.remove_tree(folder)
    folder.mkdir(parents=True)
    for file, text in texts.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(text.encode())
    return [folder / file for file in texts]
