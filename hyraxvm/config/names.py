"""Names of what is built: the one place that spells them."""

from __future__ import annotations

from hyraxvm.config.images import Recipe

RELEASE_FILE = "/etc/hyrax-vm-release"
MANIFEST = ".manifest.json"  # the suffix of what lies beside an image's files
SUMS = "SHA256SUMS"


def artifact_name(recipe: Recipe, server_version: str) -> str:
    """`hyrax-vm-<access>-<server><version>-<base>-<arch>`, without a suffix.

    >>> artifact_name(recipe, "1.0.0")
    'hyrax-vm-nfs-dapdir1.0.0-debian12-amd64'
    """
    return "-".join(
        [
            "hyrax-vm",
            recipe.image.access,
            f"{recipe.server_name}{server_version}",
            recipe.base.short,
            recipe.base.arch,
        ]
    )
