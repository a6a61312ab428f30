"""Stage `server`: a DAP server as an OCI image -> `server.squashfs` + `server.json`.

The image is pulled, or packed here (an embedded server).  Its layers are merged, trimmed by the
server's list, and packed as a squashfs.  `server.json` has what the guest must know of the image,
read from its configuration; a server's `prepare.py` reads the image's files, too.
"""

from __future__ import annotations

import importlib.util
import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from pydantic import BaseModel, ConfigDict

from hyraxvm.config.images import SERVER, Recipe
from hyraxvm.config.model import Account, ServerImage, Trimmed
from hyraxvm.core import cache, code
from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure, UserError
from hyraxvm.core.paths import ROOT
from hyraxvm.stages import sizes
from hyraxvm.stages.rootfs import stage as rootfs
from hyraxvm.stages.server import embedded, inventory, oci
from hyraxvm.stages.server.image_tree import Tree
from hyraxvm.stages.server.trim import trim

# Uids under which an image may run.  Lower ones are Debian's static ids, such as root; higher ones
# are reserved, such as nobody.
ACCOUNTS = range(100, 60000)
UNPRIVILEGED = "server"  # the account for an image whose user is not in ACCOUNTS
HOOK = "prepare.py"  # in a server's folder: reads what the image's configuration does not say
FACT = re.compile(r"[A-Za-z0-9._+@~=:/ -]*")  # units and scripts contain facts without quoting
VERSION_LABELS = ("org.opencontainers.image.version", "version")  # the first one counts


class PackedServer(BaseModel):
    """The stage's output: the squashfs, and what the guest must know of the image."""

    model_config = ConfigDict(frozen=True)

    squashfs: Path
    image: ServerImage


class Prepared(BaseModel):
    """What a server's `prepare.py` returns; it takes the place of the image's configuration."""

    accounts: list[Account]  # the first one reads the data
    writable: list[str]  # directories of the image
    facts: dict[str, str]  # for the templates in the server's folder
    files: dict[str, str]  # path in the guest -> text
    version: str | None = None


def key(recipe: Recipe, refresh: str = "", root: Path = ROOT) -> str:
    """Return the digest of the stage's inputs.

    In the server's folder only the files count that this stage reads: units and guest files are
    inputs of a later stage, and README and capabilities.toml change no image.  `refresh` counts for
    an embedded server alone.
    """
    own = server_folder(recipe, root) if recipe.server.folder else None
    packed = own is not None and recipe.server.source == "embedded"
    hook = [own / HOOK] if own and (own / HOOK).is_file() else []
    return cache.digest(
        recipe.server.model_dump(exclude={"title", "health_path", "memory_mib"}),
        recipe.server_name,
        recipe.server_image,
        recipe.server_digest,
        recipe.arch_name,
        recipe.base.model_dump(include={*rootfs.SOURCE, "python"}) if packed else {},
        refresh if packed else "",
        *(embedded.sources(recipe, own) if own and packed else []),
        code.digest(root, __name__, *hook),
    )


def server_folder(recipe: Recipe, root: Path = ROOT) -> Path:
    """Return the server's folder under `provision/`; raise `Failure` if it is missing."""
    path = root / "provision" / "servers" / (recipe.server.folder or "none")
    if not path.is_dir():
        raise Failure(f"{path}: is missing; server {recipe.server_name!r} needs it")
    return path


def build(
    results: StageCache,
    recipe: Recipe,
    stage_key: str,
    log: Path,
    on_line: Callable[[str], None],
    say: Callable[[str], None] | None = None,
) -> PackedServer:
    """Return the server's squashfs and description.

    `on_line` takes lines of progress; `say` takes lines that users should see, by default
    `on_line` takes these, too.

    Raises `Failure`: a tool failed, the image is hostile or lacks what the server needs, or the
    squashfs exceeds its budget.
    """

    def make(work: Path) -> None:
        if recipe.server.source == "embedded":
            with rootfs.package_cache(results) as debs:
                layout = embedded.pack(recipe, server_folder(recipe), debs, work, log, on_line)
        else:
            arch = recipe.arch.oci
            layout = oci.pull(
                results, recipe.server_image, recipe.server_digest, arch, log, on_line
            )
        found = oci.read_image(layout, recipe.arch.oci)
        tree = oci.flatten(layout, found, work / "layers", on_line)
        # The trim list removes the databases.
        packages = inventory.packages(tree, work / "databases")
        trimmed = trim(tree, recipe.server.trim, say or on_line)
        image = describe(recipe, found, tree, packages, trimmed)
        for name, count in tree.dropped_attributes().items():
            (say or on_line)(f"{name} of {count} files is left out: squashfs cannot store it")
        on_line(f"packing {tree.size() / 1e6:.0f} MB")
        oci.squash(tree, work / "server.squashfs", log)
        (work / "server.json").write_text(image.model_dump_json(indent=1) + "\n")
        for rest in list(work.iterdir()):
            if rest.name not in ("server.squashfs", "server.json"):
                cache.remove_tree(rest) if rest.is_dir() else rest.unlink()

    done = results.produce("server", stage_key, make)
    made = PackedServer(squashfs=done / "server.squashfs", image=_kept_image(done))
    _check_budget(recipe, made)
    return made


def preview(recipe: Recipe, results: StageCache | None = None) -> ServerImage:
    """Return what is known of the server's image without building it.

    Raises `UserError`: the image has to be built first, and is not in the cache `results`.
    """
    if recipe.server.source == "embedded":
        config = embedded.configuration(recipe, server_folder(recipe))
        account = Account(name=config.user, uid=embedded.UID, group=config.user, gid=embedded.UID)
        return _image(recipe, config, Prepared(accounts=[account], writable=[], facts={}, files={}))
    if results and recipe.server_digest and results.contains("server", key(recipe)):
        return _kept_image(results.produce("server", key(recipe), _never))
    raise UserError(
        f"server {recipe.server_name!r} is described by its image, which is not built here yet; "
        f"type: ./inv build {recipe.name} --server {recipe.server_name}"
    )


def describe(
    recipe: Recipe,
    image: oci.OciImage,
    tree: Tree,
    packages: dict[str, str],
    trimmed: list[Trimmed],
) -> ServerImage:
    """Return what the guest must know of an image; make in `tree` the directories that it needs.

    Raises `Failure`: the image lacks something, or has values that a unit must not have.
    """
    module = hook(recipe.server.folder)
    prepared: Prepared
    if module is None:
        account = _account(tree, image.user)
        paths = [*recipe.server.writable, *image.volumes]
        writable = [tree.make_dir(path, account.uid, account.gid) for path in paths]
        prepared = Prepared(accounts=[account], writable=writable, facts={}, files={})
        program = _program(tree, image)
        image = image.model_copy(update={"entrypoint": [program, *image.entrypoint[1:]]})
    else:
        prepared = module.prepare(tree, image, recipe)
    # These paths are real ones: the image's links decide where they lead.
    for path in prepared.writable:
        oci.plain_path(path, "directory to write in")
    for name, value in prepared.facts.items():
        if not FACT.fullmatch(value):
            raise Failure(f"the image's {name} {value[:200]!r} has characters that are refused")
    tree.make_dir(recipe.server.data_root, 0, 0)
    # The guest mounts over these; its root is read-only then, so they must exist.
    for path in ("/proc", "/sys", "/dev", "/run"):
        tree.make_dir(path, 0, 0)
    tree.make_dir("/tmp", 0, 0, 0o1777)  # noqa: S108 - inside the image
    tree.make_dir("/var/tmp", 0, 0, 0o1777)  # noqa: S108 - inside the image
    if tree.read("/etc/hosts") is None:
        tree.write("/etc/hosts", b"")
    return _image(recipe, image, prepared, packages, trimmed)


def missing(tree: Tree, path: str, kind: str) -> str:
    """Return the message that the image lacks `path`: what was expected, what is there instead.

    `kind` is a noun, such as "file".
    """
    parent, name = path.rpartition("/")[::2]
    elsewhere = tree.called(name)
    if elsewhere:
        there = f"it has {', '.join(elsewhere[:5])}"
    elif names := tree.listing(parent or "/"):
        shown = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
        there = f"{parent or '/'} holds: {shown}"
    else:
        there = f"there is no {parent}"
    return f"the image has no {kind} {path}; {there}"


def find_account(tree: Tree, user: str, group: str = "") -> Account:
    """Return a user of the image, by name or id, with its primary group or the one named.

    A uid without an entry gets a name.  Raises `Failure`: /etc/passwd or /etc/group of the image
    does not have it, or has a name or an id that the guest cannot have.
    """
    entries = _table(tree, "/etc/passwd")
    line = next((e for e in entries if len(e) > 3 and user in (e[0], e[2])), None)
    if line is None and user.isascii() and user.isdigit():
        line = [f"{UNPRIVILEGED}-{user}", "x", user, user]
    if line is None:
        names = ", ".join(entry[0] for entry in entries) or "nobody"
        raise Failure(f"the image's /etc/passwd does not list the user {user!r}; it has: {names}")
    groups = _table(tree, "/etc/group")
    wanted = group or line[3]
    found = next((e for e in groups if len(e) > 2 and wanted in (e[0], e[2])), None)
    if found is None and not wanted.isdigit():
        names = ", ".join(entry[0] for entry in groups) or "none"
        raise Failure(f"the image's /etc/group does not list {wanted!r}; it has: {names}")
    name, gid = (found[0], found[2]) if found else (line[0], wanted)
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", line[0]):
        raise Failure(f"the image's user {line[0]!r} has a name that the guest cannot have")
    if not re.fullmatch(r"[a-z_][a-z0-9_-]{0,30}", name):
        name = line[0]
    return Account(name=line[0], uid=_id(line[2], line[0]), group=name, gid=_id(gid, name))


def _id(text: str, name: str) -> int:
    """Return the id of an account or a group; raise `Failure` if it is not one for Linux."""
    if not re.fullmatch("[0-9]{1,10}", text) or int(text) >= 2**32 - 1:
        raise Failure(
            f"the image's account {name!r} has the id {text[:80]!r}; "
            f"expected: a number below {2**32 - 1}"
        )
    return int(text)


def _account(tree: Tree, user: str) -> Account:
    """Return the account that runs a generic server: the image's user, or an unprivileged one.

    The server shares the guest's PID namespace.  A uid below 100 is also one of the guest's: even
    root without capabilities could end the guest's services.
    """
    name, _, group = user.partition(":")
    if name not in ("root", "0"):
        account = find_account(tree, name, group)
        if account.uid in ACCOUNTS:
            return account
    return Account(name=UNPRIVILEGED, uid=embedded.UID, group=UNPRIVILEGED, gid=embedded.UID)


def _image(
    recipe: Recipe,
    image: oci.OciImage,
    prepared: Prepared,
    packages: dict[str, str] | None = None,
    trimmed: list[Trimmed] | None = None,
) -> ServerImage:
    first = prepared.accounts[0]
    return ServerImage(
        name=recipe.server_name,
        version=prepared.version
        or version(image, recipe.server_image, *map(image.labels.get, VERSION_LABELS)),
        reference=recipe.server_image,
        image_digest=recipe.server_digest or image.digest,
        entrypoint=image.entrypoint,
        environment=image.environment,
        working_directory=image.working_directory,
        user=first.name,
        uid=first.uid,
        gid=first.gid,
        accounts=prepared.accounts,
        writable=prepared.writable,
        labels=image.labels,
        packages=packages or {},
        trimmed=trimmed or [],
        facts=prepared.facts,
        files=prepared.files,
    )


def version(image: oci.OciImage, reference: str, *stated: str | None) -> str:
    """Return the server's version: the first one in `stated`, else the tag, else the short digest.

    A tag without a digit, such as `latest`, does not count.  The version is a part of file names:
    at most 32 letters, digits, `.` and `+`, the first one a digit.
    """
    tag = reference.rpartition("/")[2].partition("@")[0].partition(":")[2]
    tag = tag if reference.startswith("docker:") and re.search(r"\d", tag) else ""
    chosen = next(filter(None, [*stated, tag]), "") or image.digest.partition(":")[2][:12]
    clean = re.sub(r"[^A-Za-z0-9.+]+", ".", chosen).strip(".")[:30] or "0"
    return clean if clean[0].isdigit() else f"0+{clean}"


def hook(folder: str | None) -> ModuleType | None:
    """Return the module `prepare.py` of a server's folder; None if there is none."""
    path = ROOT / "provision" / "servers" / (folder or "none") / HOOK
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"prepare_{folder}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _program(tree: Tree, image: oci.OciImage) -> str:
    """Return the full path of what the image runs; raise `Failure` if it is missing, or not plain.

    systemd gives a meaning to signs before a path: `+` is full privileges.
    """
    if not image.entrypoint:
        raise Failure("the image has neither an entrypoint nor a command")
    name = image.entrypoint[0]
    if name.startswith("/"):
        paths = [name]
    elif "/" in name:
        paths = [posixpath.normpath(posixpath.join(image.working_directory, name))]
    else:
        folders = image.environment.get("PATH", "/usr/bin:/bin").split(":")
        paths = [f"{folder}/{name}" for folder in folders if folder.startswith("/")]
    for path in paths:
        if tree.is_program(path):
            return oci.plain_path(path, "program")
    raise Failure(missing(tree, paths[0] if paths else name, "program"))


def _table(tree: Tree, path: str) -> list[list[str]]:
    text = (tree.read(path) or b"").decode("utf-8", "replace")
    return [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]


def _check_budget(recipe: Recipe, made: PackedServer) -> None:
    size = made.squashfs.stat().st_size
    allowed = recipe.budget.get(SERVER)
    if allowed is not None and size > allowed * 10**6:
        name = recipe.server_name
        raise Failure(
            f"{name} {made.image.version}: {size / 1e6:.1f} MB packed; must be at most {allowed} "
            f"MB (budget.{name}.server in images.toml; server.{name}.trim lists what is left out)\n"
            f"{sizes.largest_of_server(made.squashfs)}"
        )


def _kept_image(done: Path) -> ServerImage:
    return ServerImage.model_validate_json((done / "server.json").read_text())


def _never(work: Path) -> None:
    raise AssertionError(f"{work}: is made by build() only")
