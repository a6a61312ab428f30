"""What a release was made from: an in-toto statement (v1) with SLSA provenance (v1)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hyraxvm.core import cache
from hyraxvm.core.errors import Failure

STATEMENT: Final = "https://in-toto.io/Statement/v1"
PREDICATE: Final = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:hyrax-vm:build:1"  # docs/maintainer-guide.md, "Provenance"


def statement(
    subjects: Iterable[tuple[str, str]],
    manifests: Sequence[Mapping[str, Any]],
    *,
    version: str,
    repository: str,
    revision: str,
    root: Path,
    inputs: Sequence[Path],
    tools: Mapping[str, str],
) -> str:
    """Return the statement as JSON, the same for the same arguments.

    `subjects` are pairs of file name and SHA-256, `inputs` the files of the checkout at
    `root` that decide what is built, `tools` name -> version of the programs that built it.
    """
    dates = sorted(manifest["release"]["BUILD_DATE"] for manifest in manifests)
    content = {
        "_type": STATEMENT,
        "subject": [{"name": name, "digest": {"sha256": sha}} for name, sha in sorted(subjects)],
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {
                    "version": version,
                    "images": sorted(manifest["name"] for manifest in manifests),
                },
                "internalParameters": {"tools": dict(sorted(tools.items()))},
                "resolvedDependencies": [
                    {
                        "uri": f"git+{repository}" if repository else "git",
                        "digest": {"gitCommit": revision},
                    },
                    *(
                        {
                            "name": str(path.relative_to(root)),
                            "digest": {"sha256": cache.file_digest(path)},
                        }
                        for path in sorted(inputs)
                    ),
                    *_servers(manifests),
                    *_packages(manifests),
                ],
            },
            "runDetails": {
                "builder": {"id": "urn:hyrax-vm:inv"},
                "metadata": {"startedOn": dates[0], "finishedOn": dates[-1]},
            },
        },
    }
    return json.dumps(content, indent=1) + "\n"


def _servers(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = {}
    for server in (manifest["server"] for manifest in manifests):
        algorithm, _, value = server["image_digest"].partition(":")
        if not value:
            raise Failure(f"server {server['name']}: its manifest has no digest of its image")
        name = f"{server['name']} {server['version']}"
        uri = server.get("reference") or f"oci:{server['name']}"
        found[name, value] = {"name": name, "uri": uri, "digest": {algorithm: value}}
    return [found[key] for key in sorted(found)]


def _packages(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    found = {
        f"pkg:deb/{distribution}/{name}@{version}?arch={manifest['release']['ARCH']}"
        for manifest in manifests
        for distribution in [manifest["system"]["distribution"].lower()]  # as in the SBOM
        for name, version in manifest["packages"].items()
    }
    return [{"uri": uri} for uri in sorted(found)]
