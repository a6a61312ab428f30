"""A guest that has the workshop: the files that only this image's guest gets."""

from __future__ import annotations

from hyraxvm.config import images
from hyraxvm.stages.provision import guest_tar
from tests.unit.guest.guest_copy import Guest

RECIPE = images.recipe(images.load(), "workshop", "dapdir")
UNITS = ("usr-lib-hyrax-workshop.mount", "srv-hyrax-workshop.mount", "hyrax-workshop.service")


def with_workshop(guest: Guest) -> Guest:
    """Add the addition's files to a guest; its squashfs is an empty folder."""
    (top,) = guest_tar.addition_folders(RECIPE)
    files = guest_tar.landing_files(RECIPE)
    for path in top.rglob("*"):
        if path.is_file():
            name = str(path.relative_to(top)).removesuffix(".j2")
            guest.write(name, files[name].content.decode())
    (guest.root / "usr/lib/hyrax/workshop/srv/workshop/www").mkdir(parents=True)
    return guest
