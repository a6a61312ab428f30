"""OCI images: pulled with skopeo, read, verified and merged into one tree.

A layout is a directory as in the OCI Image Specification 1.1, "Image Layout".  `pull` makes one
with a single image, for Linux on the base's architecture.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ConfigDict

from hyraxvm.core import cache
from hyraxvm.core.cache import StageCache
from hyraxvm.core.cancel import check_cancelled
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.process import output, piped, run
from hyraxvm.stages.server.image_tree import Tree, merge

DEADLINE = 3600.0  # seconds for a pull: Hyrax's image is some 800 MB
PROBE = 10.0  # seconds for a registry to answer
TAG = "server"  # of the image in a layout
TRANSPORTS = ("docker", "oci-archive", "oci", "docker-archive")
CHUNK = 1 << 20
PLAIN = re.compile(r"(/[A-Za-z0-9._+@~=-]*)+")  # neither a unit nor a shell expands it
LAYERS = 20 * 10**9  # bytes of all unpacked layers at most: a small one could fill any disk
MOST_LAYERS = 500  # each is an open file; Docker makes at most 127
DOCUMENT = 4 * 2**20  # bytes of a manifest or a configuration: more than skopeo takes
UNPACKING = 900.0  # seconds for a layer
PACKING = 1800.0  # seconds for the squashfs
PACKERS = {b"\x28\xb5\x2f\xfd": "zstd", b"\x1f\x8b": "gzip"}  # by a file's first bytes


class OciImage(BaseModel):
    """The part of an image's configuration that says how to run it, and its layers."""

    model_config = ConfigDict(frozen=True)

    digest: str  # of the manifest in the layout
    entrypoint: list[str]
    environment: dict[str, str]
    working_directory: str
    user: str
    ports: list[int]
    volumes: list[str]
    labels: dict[str, str]
    layers: list[str]  # digests, the lowest first
    diff_ids: list[str]  # of the same layers, uncompressed


def check_reference(reference: str) -> str:
    """Return `TRANSPORT:...` with an absolute path.

    Raises `UserError`: the transport is not one of `TRANSPORTS`, or there is no such file.
    """
    transport, _, rest = reference.partition(":")
    if transport not in TRANSPORTS or not rest.removeprefix("//"):
        forms = "oci-archive:FILE, oci:DIRECTORY, docker-archive:FILE or docker://NAME:TAG"
        raise UserError(f"{reference!r} is not an image; write {forms}")
    if transport == "docker":
        if not re.fullmatch(r"//[a-z0-9][A-Za-z0-9._:/@-]*", rest):
            raise UserError(
                f"{reference!r} is not the name of an image; expected: docker://NAME:TAG"
            )
        return reference
    path, tag = local_path(rest)
    if transport == "oci" and not (path / "index.json").is_file():
        raise UserError(f"{path}: is not the directory of an OCI image (it has no index.json)")
    if transport != "oci" and not path.is_file():
        raise UserError(f"{path}: no such file; expected: --server-image {transport}:FILE")
    return f"{transport}:{path.resolve()}{tag}"


def local_path(rest: str) -> tuple[Path, str]:
    """Split `PATH[:TAG]` into path and tag; the tag keeps its colon, or is empty."""
    path, colon, tag = rest.rpartition(":")
    if colon and not Path(rest).exists():
        return Path(path), f":{tag}"
    return Path(rest), ""


def remote_digest(reference: str, deadline: float = PROBE) -> str:
    """Ask the registry for the digest of `docker://...`; return `sha256:...`.

    `deadline` is in seconds.  Raises `UserError`: there is no such tag; `Failure`: the registry
    does not answer, or not with a digest.
    """
    argv = ["skopeo", "inspect", "--no-tags", "--format", "{{.Digest}}", reference]
    try:
        digest = output(argv, deadline=deadline).strip()
    except Failure as failure:
        if "manifest unknown" in str(failure):
            raise UserError(f"{reference}: there is no such tag{_tags(reference)}") from failure
        raise Failure(f"{reference}: {_cause(str(failure))}") from failure
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Failure(f"{reference}: the registry answers {digest!r}; expected: a SHA-256 digest")
    return digest


def remote_config(
    reference: str, arch: str, deadline: float = PROBE
) -> tuple[dict[str, str], dict[str, str]]:
    """Ask the registry for the environment and the labels of `docker://...`.

    Of an index with images for several architectures, it is that for `arch`, OCI's name.
    `deadline` is in seconds.  Raises `Failure`: the registry does not answer, or has no image for
    that architecture.
    """
    chosen = ["--override-os=linux", f"--override-arch={arch}"]
    argv = ["skopeo", "inspect", "--config", *chosen, reference]
    try:
        config = json.loads(output(argv, deadline=deadline)).get("config") or {}
        variables = [item.partition("=")[::2] for item in config.get("Env") or []]
        return dict(variables), dict(config.get("Labels") or {})
    except Failure as failure:
        raise Failure(f"{reference}: {_cause(str(failure))}") from failure
    except (ValueError, TypeError, AttributeError) as error:
        raise Failure(f"{reference}: its configuration is damaged: {error}") from error


def architectures(reference: str, deadline: float = PROBE) -> list[str]:
    """Return OCI's names of the architectures that `TRANSPORT:...` has an image of Linux for.

    `deadline` is in seconds.  Raises `Failure`: the registry does not answer, or the image is
    damaged.
    """
    inspect = ["skopeo", "inspect"]
    try:
        index = json.loads(output([*inspect, "--raw", reference], deadline=deadline))
        if "manifests" in index:
            platforms = [entry.get("platform") or {} for entry in index["manifests"]]
            # BuildKit lists what it attests of an image as one more, for "unknown".
            linux = [platform for platform in platforms if platform.get("os") == "linux"]
            return sorted({platform["architecture"] for platform in linux})
        config = json.loads(output([*inspect, "--config", reference], deadline=deadline))
        return [str(config["architecture"])]
    except Failure as failure:
        raise Failure(f"{reference}: {_cause(str(failure))}") from failure
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise Failure(f"{reference}: its manifest or configuration is damaged: {error}") from error


def _tags(reference: str) -> str:
    """Return the end of a message: up to 8 tags that the registry has, if it lists them.

    They are those that begin with the tag of `reference`, else the highest ones.
    """
    name, _, tag = reference.removeprefix("docker://").rpartition(":")
    try:
        said = output(["skopeo", "list-tags", f"docker://{name}"], deadline=PROBE)
        tags: list[str] = json.loads(said)["Tags"]
    except (Failure, ValueError, KeyError):
        return ""
    alike = [each for each in tags if each.startswith(tag)] or tags
    ordered = sorted(alike, key=lambda each: [int(n) for n in re.findall(r"\d+", each)])
    return f"; it has {', '.join(ordered[-8:])}" if tags else ""


def _cause(text: str) -> str:
    """Return the cause in skopeo's message, without the fields of its log."""
    found = re.search(r'level=fatal msg="(.*)"\s*$', text, re.DOTALL)
    said = found[1].replace('\\"', '"') if found else text
    return ": ".join(said.split(": ")[-2:])


def local_digest(reference: str) -> str:
    """Return the digest of the file or layout that `oci:...` or `...-archive:...` names."""
    transport, _, rest = reference.partition(":")
    path, _ = local_path(rest)
    # index.json has the digests of everything else in the layout.
    return f"sha256:{cache.file_digest(path / 'index.json' if transport == 'oci' else path)}"


def with_digest(reference: str, digest: str) -> str:
    """Return `docker://NAME@DIGEST` for `docker://NAME:TAG`: unlike a tag, it never moves."""
    return f"{_without_tag(reference)}@{digest}"


def with_tag(reference: str, tag: str) -> str:
    """Return `docker://NAME:TAG` with another tag; raise `UserError` if it cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", tag):
        raise UserError(
            f"{tag!r} is not a tag; expected: up to 128 letters, digits and ._-, for example "
            "1.18.0-12-el9"
        )
    return f"{_without_tag(reference)}:{tag}"


def _without_tag(reference: str) -> str:
    head, slash, last = reference.partition("@")[0].rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


def pull_key(reference: str, digest: str, arch: str) -> str:
    """Return the cache key of a pulled image; `arch` is OCI's name of the architecture."""
    return cache.digest(reference, digest, arch)


def pull(
    results: StageCache,
    reference: str,
    digest: str,
    arch: str,
    log: Path,
    on_line: Callable[[str], None],
) -> Path:
    """Pull an image unless it is in the cache `results`; return its layout.

    skopeo verifies every digest.  Raises `Failure`: the image cannot be pulled, or differs from
    its digest.
    """
    source = with_digest(reference, digest) if reference.startswith("docker:") else reference

    def make(work: Path) -> None:
        on_line(f"pulling {source}")
        target = f"oci:{work / 'layout'}:{TAG}"
        argv = ["skopeo", "copy", "--override-os=linux", f"--override-arch={arch}", source, target]
        run(argv, log=log, deadline=DEADLINE, on_line=on_line)

    # `local`: other machines get it from the registry, not from the shared cache.
    return results.produce("oci", pull_key(reference, digest, arch), make, local=True) / "layout"


def read_image(layout: Path, arch: str) -> OciImage:
    """Read the manifest and the configuration of a layout's image.

    Raises `Failure`: a file is missing or differs from its digest, the image is for other machines,
    or its configuration is damaged or has values that a unit must not have.
    """
    try:
        return _image(layout, arch)
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        said = str(error).partition("\n")[0][:200]
        raise Failure(f"the image's configuration is damaged: {said}") from error


def _image(layout: Path, arch: str) -> OciImage:
    index = json.loads(_document(layout / "index.json"))
    digest = index["manifests"][0]["digest"]
    manifest = _blob(layout, digest)
    whole = _blob(layout, manifest["config"]["digest"])
    if (whole.get("os", "linux"), whole.get("architecture", arch)) != ("linux", arch):
        raise Failure(
            f"the image is for {whole.get('os')}/{whole.get('architecture')}, not linux/{arch}"
        )
    config = whole.get("config") or {}
    diff_ids = whole["rootfs"]["diff_ids"]
    layers = [layer["digest"] for layer in manifest["layers"]]
    if len(layers) != len(diff_ids):
        raise Failure(f"the image lists {len(layers)} layers and {len(diff_ids)} diff ids")
    if len(layers) > MOST_LAYERS:
        raise Failure(f"the image has {len(layers)} layers; must be at most {MOST_LAYERS}")
    command = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
    variables = config.get("Env") or []
    for text in (*command, *variables):
        if "\0" in text:
            raise Failure(f"the image's {text[:200]!r} holds a NUL, which no process can receive")
    json.dumps(config, ensure_ascii=False).encode()  # raises ValueError for a lone surrogate
    return OciImage(
        digest=digest,
        entrypoint=command,
        environment=dict(item.partition("=")[::2] for item in variables),
        working_directory=plain_path(config.get("WorkingDir") or "/", "working directory"),
        user=config.get("User") or "root",
        ports=sorted(int(port.split("/")[0]) for port in config.get("ExposedPorts") or {}),
        volumes=sorted(plain_path(path, "volume") for path in config.get("Volumes") or {}),
        labels=config.get("Labels") or {},
        layers=layers,
        diff_ids=diff_ids,
    )


def plain_path(path: str, what: str) -> str:
    """Return a path of the image if units and scripts can contain it without quoting.

    `what` names it in the message.  Raises `Failure`: the path is not absolute, has `..`, or has a
    character with a meaning there: no image may write lines of the guest's units.
    """
    if not PLAIN.fullmatch(path) or ".." in path.split("/"):
        raise Failure(
            f"the image's {what} {path[:200]!r} is refused; expected: an absolute path of "
            "letters, digits and ._+@~=- without '..'"
        )
    return path


def flatten(layout: Path, image: OciImage, scratch: Path, on_line: Callable[[str], None]) -> Tree:
    """Merge the image's layers; uncompress them into `scratch`, from which the tree reads.

    Raises `Failure`: a layer differs from its digest, or is hostile.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    tars = []
    room = LAYERS
    pairs = zip(image.layers, image.diff_ids, strict=True)
    for number, (digest, diff_id) in enumerate(pairs, 1):
        on_line(f"layer {number} of {len(image.layers)}")
        tar = scratch / f"layer {number}"
        try:
            found, size = _unpack(_path(layout, digest), tar, room)
        except Failure as failure:
            raise Failure(f"layer {number}: {failure}") from failure
        if found != diff_id:
            raise Failure(f"layer {number}: its content is {found}, the image says {diff_id}")
        room -= size
        tars.append(tar)
    return merge(tars)


def _unpack(blob: Path, tar: Path, room: int) -> tuple[str, int]:
    """Uncompress a layer (zstd, gzip or plain); return the digest and the bytes that were written.

    Raises `Failure`: it is damaged, or has more than `room` bytes.
    """
    # Without a buffer, so that the program reads from the beginning.
    with blob.open("rb", buffering=0) as stream, tar.open("wb") as sink:
        head = stream.read(4)
        stream.seek(0)
        program = next((name for magic, name in PACKERS.items() if head.startswith(magic)), None)
        if program is None:
            return _copy(stream, sink, room)
        with piped(
            [program, "-dc"], deadline=UNPACKING, stdin=stream, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            return _copy(process.stdout, sink, room)


def _copy(source: IO[bytes], sink: IO[bytes], room: int) -> tuple[str, int]:
    total = hashlib.sha256()
    size = 0
    while piece := source.read(CHUNK):
        check_cancelled()
        size += len(piece)
        if size > room:
            raise Failure(f"has more than {LAYERS / 1e9:g} GB with those below it; refused")
        total.update(piece)
        sink.write(piece)
    return f"sha256:{total.hexdigest()}", size


def _path(layout: Path, digest: str) -> Path:
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", digest):
        raise Failure(f"the image names {digest!r}, which is not a SHA-256 digest")
    return layout / "blobs" / "sha256" / digest.removeprefix("sha256:")


def _blob(layout: Path, digest: str) -> dict[str, Any]:
    path = _path(layout, digest)
    content = _document(path)
    if f"sha256:{hashlib.sha256(content).hexdigest()}" != digest:
        raise Failure(f"{path}: its content does not have the digest in its name")
    blob: dict[str, Any] = json.loads(content)
    return blob


def _document(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            content = stream.read(DOCUMENT + 1)
    except OSError as error:
        raise Failure(f"{path}: the image has no such file ({error.strerror})") from error
    if len(content) > DOCUMENT:
        raise Failure(f"{path}: is longer than {DOCUMENT} bytes; refused")
    return content


def squash(tree: Tree, squashfs: Path, log: Path) -> None:
    """Pack a tree as a zstd squashfs; the same tree gives the same bytes.

    Raises `Failure`: tar2sqfs fails, or is not done in time.
    """
    argv = [
        *("tar2sqfs", "--quiet", "--no-skip", "--compressor", "zstd", "--comp-extra", "level=15"),
        # For the root directory, which has no entry.
        *("--defaults", "uid=0,gid=0,mode=0755,mtime=0", "--force", str(squashfs)),
    ]
    with (
        log.open("ab") as sink,
        piped(argv, deadline=PACKING, stdin=subprocess.PIPE, stdout=sink) as process,
    ):
        assert process.stdin is not None
        tree.write_tar(process.stdin)
