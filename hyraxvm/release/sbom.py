"""The bill of materials of an image: CycloneDX 1.6 JSON, from the package databases in it."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Final

from cyclonedx.model import HashAlgorithm, HashType, Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

from hyraxvm import __version__
from hyraxvm.stages.server import inventory

SUFFIX: Final = ".cdx.json"


def bill_of_materials(manifest: dict[str, Any]) -> str:
    """Return the bill of materials of the image of a manifest; the same for the same manifest.

    The image contains Debian's packages, the server, and the packages of its addition; the server
    contains its own packages.  What both of these have is listed once.
    """
    release, server = manifest["release"], manifest["server"]
    image = Component(
        name=manifest["name"],
        version=release["VERSION"],
        type=ComponentType.CONTAINER,  # the type that CycloneDX has for virtual machines
        bom_ref=manifest["name"],
    )
    served = Component(
        name=server["name"],
        version=server["version"],
        type=ComponentType.APPLICATION,
        bom_ref=f"server:{server['name']}",
        description=release["SERVER_TITLE"],
        purl=_oci(server),
        hashes=_hashes(server["image_digest"]),
    )
    # As os-release(5) of Debian and its descendants spells its ID.
    distribution = manifest["system"]["distribution"].lower()
    distro = f"{distribution}-{manifest['system']['version']}"
    debian = [
        _component(
            PackageURL(
                "deb", distribution, name, version, {"arch": release["ARCH"], "distro": distro}
            )
        )
        for name, version in manifest["packages"].items()
    ]
    own = [
        _component(inventory.purl(name, version)) for name, version in server["packages"].items()
    ]
    has = {component.bom_ref.value for component in own}
    made = [_component(inventory.purl(*pair)) for pair in manifest.get("added", {}).items()]
    added = [component for component in made if component.bom_ref.value not in has]
    bom = Bom(
        serial_number=_serial(manifest),
        metadata=BomMetaData(
            component=image,
            timestamp=datetime.fromisoformat(release["BUILD_DATE"]),
            tools=ToolRepository(
                components=[
                    Component(name="hyrax-vm", version=__version__, type=ComponentType.APPLICATION)
                ]
            ),
            properties=[Property(name="hyrax-vm:git-revision", value=release["GIT_REVISION"])],
        ),
        components=[served, *debian, *own, *added],
    )
    bom.register_dependency(image, [served, *debian, *added])
    bom.register_dependency(served, own)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string()
    return json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


def _component(purl: PackageURL) -> Component:
    return Component(
        name=purl.name,
        version=purl.version,
        type=ComponentType.LIBRARY,
        bom_ref=purl.to_string(),
        purl=purl,
    )


def _oci(server: dict[str, Any]) -> PackageURL | None:
    if not server["image_digest"]:
        return None
    return PackageURL("oci", None, server["name"], server["image_digest"])


def _hashes(digest: str) -> Iterable[HashType]:
    _, _, value = digest.partition(":")
    return [HashType(alg=HashAlgorithm.SHA_256, content=value)] if value else []


def _serial(manifest: dict[str, Any]) -> uuid.UUID:
    files = [entry["sha256"] for entry in manifest["files"]]
    return uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([manifest["name"], *files]))
