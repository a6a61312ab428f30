"""Finds in a Hyrax image what the image pipeline must know; everything is read from its files.

The expected layout is that of the container image `opendap/hyrax`.  If a path is missing, the error
says what was expected and what is there instead.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from io import BytesIO

from hyraxvm.config.images import SERVER_PORT, Recipe
from hyraxvm.config.model import Account
from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import oci
from hyraxvm.stages.server.image_tree import Tree
from hyraxvm.stages.server.stage import Prepared, find_account, missing, version

LOG_DIR = "/var/log/bes"  # site.conf sets BES.LogName to a file in it
BES_PORT = "10022"  # the port that the OLFS uses by default
CONNECTIONS = "16"  # from the OLFS to the BES at most; each is a process
SCANS = {  # how Tomcat searches libraries: kind of search -> names in a jar that it looks for
    "tldScan": r"META-INF/.*\.tld$",
    "pluggabilityScan": r"META-INF/(web-fragment\.xml$|resources/.|"
    r"services/(javax|jakarta)\.servlet\.ServletContainerInitializer$)",
}
CONNECTOR = {
    "address": "127.0.0.1",
    "port": str(SERVER_PORT),
    "connectionTimeout": "20000",  # milliseconds in which a request must arrive
    # Longer lists of variables than Tomcat's 8 KB, and the raw brackets that DAP clients send.
    "maxHttpRequestHeaderSize": "139264",
    "relaxedQueryChars": '"<>[]\\^`{|}',
    "relaxedPathChars": '"<>[]\\^`{|}',
}
FORWARDED = {  # the address that the reader typed, from the front door
    "className": "org.apache.catalina.valves.RemoteIpValve",
    "protocolHeader": "X-Forwarded-Proto",
    "hostHeader": "X-Forwarded-Host",
    "portHeader": "X-Forwarded-Port",
}


def prepare(tree: Tree, image: oci.OciImage, recipe: Recipe) -> Prepared:
    """Find the BES, Tomcat, Java and their users; make the folders in which they write.

    Raises `Failure` if something is not in the image.
    """
    environment = image.environment
    env = program(tree, "/usr/bin/env")
    besdaemon = program(tree, "/usr/bin/besdaemon")
    program(tree, besdaemon.removesuffix("besdaemon") + "beslistener")
    bes_conf = bes_configuration(tree)
    keys = bes_keys(tree, bes_conf)
    bes = bes_account(tree, keys, environment)
    bes_prefix = "/"
    if besdaemon != "/usr/bin/besdaemon":
        bes_prefix = besdaemon.removesuffix("/bin/besdaemon") or "/"

    tomcat_home = directory(tree, environment.get("CATALINA_HOME", "/usr/share/tomcat"))
    tomcat_real = oci.plain_path(tree.resolve(tomcat_home) or tomcat_home, "folder of Tomcat")
    base = environment.get("CATALINA_BASE", tomcat_home)
    if tree.resolve(base) != tree.resolve(tomcat_home):
        raise Failure(
            f"the image's CATALINA_BASE is {base[:200]!r}, its CATALINA_HOME {tomcat_home!r}; "
            "expected: one folder for both"
        )
    program(tree, f"{tomcat_home}/bin/catalina.sh")
    program(tree, "/bin/sh")  # catalina.sh is a script
    tomcat = tomcat_account(tree, tomcat_real)
    java = java_home(tree, environment)
    webapp = f"{tomcat_real}/webapps/opendap"
    olfs = olfs_configuration(tree, environment, webapp)

    jars = scanned(tree, f"{webapp}/WEB-INF/lib", f"{tomcat_real}/lib")
    files, bound = {}, []
    edits: list[tuple[str, Callable[[ET.Element], None]]] = [
        (f"{tomcat_real}/conf/server.xml", edit_server),
        (olfs, edit_olfs),
        (f"{webapp}/WEB-INF/web.xml", edit_web),
        (f"{tomcat_real}/conf/context.xml", lambda root: edit_context(root, jars)),
    ]
    for path, edit in edits:
        real = tree.resolve(path)
        if real is None:
            raise Failure(missing(tree, path, "file"))
        oci.plain_path(real, "file")
        files[f"etc/hyrax/{real.rpartition('/')[2]}"] = edited(tree, real, edit)
        bound.append(real)

    site_conf = f"{bes_conf.rpartition('/')[0]}/site.conf"
    if tree.read(site_conf) is None:
        tree.write(site_conf, b"")  # a bind mount needs an existing file
    tree.make_dir("/var/lib/hyrax-tomcat", 0, 0)
    tree.make_dir(LOG_DIR, bes.uid, bes.gid)
    conf = olfs.rpartition("/")[0]
    # The guest's folders of logs are bound over these.
    for path in (f"{tomcat_real}/logs", f"{conf}/logs"):
        tree.make_dir(path, tomcat.uid, tomcat.gid)
    writable = [
        tree.make_dir(path, tomcat.uid, tomcat.gid)
        for path in (
            f"{tomcat_real}/work",
            f"{tomcat_real}/temp",
            f"{tomcat_real}/conf/Catalina",
            f"{conf}/cache",
        )
    ]
    for path in writable:
        tree.chown(path, tomcat.uid, tomcat.gid)
    readable(tree, f"{tomcat_real}/conf", tomcat)
    readable(tree, webapp, tomcat)
    return Prepared(
        accounts=[bes, tomcat],
        writable=writable,
        files=files,
        # The usual labels describe the image on which this one is built.
        version=version(
            image,
            recipe.server_image,
            image.labels.get("org.opendap.hyrax.version"),
            environment.get("HYRAX_VERSION"),
        ),
        facts={
            "env": env,
            "besdaemon": besdaemon,
            "bes_conf": bes_conf,
            "bes_prefix": bes_prefix,
            "bes_log_dir": LOG_DIR,
            "bes_port": bes_port(keys),
            "site_conf": oci.plain_path(tree.resolve(site_conf) or site_conf, "file"),
            "admin_prefix": admin_prefix(keys),
            "temporary": " ".join(temporary(tree, bes_conf)),
            "tomcat_home": tomcat_home,
            "tomcat_real": tomcat_real,
            "tomcat_user": tomcat.name,
            "tomcat_group": tomcat.group,
            "tomcat_bound": " ".join(bound),
            "olfs_logs": f"{conf}/logs",
            "java_home": java,
            "java_archive": java_archive(tree, java),
        },
    )


def stated(environment: dict[str, str], labels: dict[str, str]) -> dict[str, str]:
    """Return what an image's configuration says of its parts, for whoever pins it.

    By OPeNDAP's Dockerfiles, el9 images have TARGET_OS, el8 images do not.
    """
    unknown = "not stated"
    return {
        "version": labels.get("org.opendap.hyrax.version")
        or environment.get("HYRAX_VERSION", unknown),
        "Tomcat": environment.get("TOMCAT_VERSION", unknown),
        "Java": environment.get("java_version", unknown),
        "operating system": environment.get("TARGET_OS", "el8 (its TARGET_OS is not set)"),
    }


def program(tree: Tree, path: str) -> str:
    """Return `path` if it is a program, else the path of the only program of that name."""
    if tree.is_program(path):
        return path
    found = [each for each in tree.called(path.rpartition("/")[2]) if tree.is_program(each)]
    if len(found) == 1:
        return oci.plain_path(found[0], "program")
    raise Failure(missing(tree, path, "program"))


def directory(tree: Tree, path: str) -> str:
    """Return `path`, which must be a directory."""
    if not tree.is_dir(path):
        raise Failure(missing(tree, path, "directory"))
    return oci.plain_path(path, "directory")


def bes_configuration(tree: Tree) -> str:
    """Return the path of bes.conf."""
    for path in ["/etc/bes/bes.conf", *tree.called("bes.conf")]:
        if path.endswith("/bes/bes.conf") and tree.read(path) is not None:
            return oci.plain_path(path, "file")
    raise Failure(missing(tree, "/etc/bes/bes.conf", "file"))


def bes_keys(tree: Tree, path: str) -> dict[str, str]:
    """Return each key's last `KEY=value`; a line `KEY+=value` counts only if it is the first."""
    text = (tree.read(path) or b"").decode("utf-8", "replace")
    found: dict[str, str] = {}
    for line in text.splitlines():
        match = re.match(r"\s*([A-Za-z][\w.]*)\s*(\+?)=\s*(.*?)\s*$", line)
        if match and not (match[2] and match[1] in found):
            found[match[1]] = match[3]
    return found


def bes_port(keys: dict[str, str]) -> str:
    """Return the port on which the BES listens."""
    port = keys.get("BES.ServerPort", BES_PORT)
    if not re.fullmatch("[0-9]{1,5}", port):
        raise Failure(f"the image's bes.conf has BES.ServerPort={port[:80]!r}, which is not a port")
    return port


def bes_account(tree: Tree, keys: dict[str, str], environment: dict[str, str]) -> Account:
    """Return the account of the BES, which bes.conf gives by name or as `#id`."""
    user = keys.get("BES.User") or environment.get("BES_USER", "")
    if not user:
        raise Failure("the image's bes.conf has no BES.User, its environment no BES_USER")
    account = find_account(tree, user.lstrip("#"), keys.get("BES.Group", "").lstrip("#"))
    return unprivileged(account, "BES.User in bes.conf")


def tomcat_account(tree: Tree, home: str) -> Account:
    """Return the account of Tomcat: the image's user `tomcat`, else the owner of its directory."""
    node = tree.node(home)
    owner = str(node.info.uid) if node else "0"
    users = (tree.read("/etc/passwd") or b"").decode("utf-8", "replace")
    names = [line.split(":")[0] for line in users.splitlines()]
    return unprivileged(
        find_account(tree, "tomcat" if "tomcat" in names else owner), f"the owner of {home}"
    )


def unprivileged(account: Account, where: str) -> Account:
    """Return `account`; refuse the ids below 100, which the guest's own packages use."""
    if account.uid < 100:
        raise Failure(
            f"{where} is {account.name!r} (uid {account.uid}); expected: a user with a uid above 99"
        )
    return account


def java_home(tree: Tree, environment: dict[str, str]) -> str:
    """Return Java's folder: JAVA_HOME, else the usual ones, else any in /usr/lib/jvm."""
    wanted = environment.get("JAVA_HOME", "/etc/alternatives/jre")
    choices = [wanted, "/usr/lib/jvm/jre"]
    choices += [path.removesuffix("/bin/java") for path in tree.glob("/usr/lib/jvm/*/bin/java")]
    for home in choices:
        if tree.is_program(f"{home}/bin/java"):
            return oci.plain_path(home, "folder of Java")
    raise Failure(missing(tree, f"{wanted}/bin/java", "program"))


def java_archive(tree: Tree, home: str) -> str:
    """Return the path of Java's own archive of its classes; "" if it has none, as after jlink."""
    path = tree.resolve(f"{home}/lib/server/classes.jsa")
    return oci.plain_path(path, "archive of Java's classes") if path else ""


def olfs_configuration(tree: Tree, environment: dict[str, str], webapp: str) -> str:
    """Return the path of olfs.xml, searched in the order of the OLFS."""
    places = [environment.get("OLFS_CONFIG_DIR", ""), "/etc/olfs", f"{webapp}/WEB-INF/conf"]
    for place in filter(None, places):
        if tree.read(f"{place}/olfs.xml") is not None:
            return oci.plain_path(f"{tree.resolve(place)}/olfs.xml", "file")
    raise Failure(missing(tree, f"{webapp}/WEB-INF/conf/olfs.xml", "file"))


def admin_prefix(keys: dict[str, str]) -> str:
    """Return what precedes the administrator's address in bes.conf: `email:` in newer BESes."""
    value = keys.get("BES.ServerAdministrator", "email:")
    return "email:" if ":" in value else ""


def temporary(tree: Tree, bes_conf: str) -> list[str]:
    """Return the folders in which the modules write temporary files, which a timer cleans."""
    found = {"/tmp/bes_rr_tmp"}  # noqa: S108 - inside the image
    for path in tree.glob(f"{bes_conf.rpartition('/')[0]}/modules/*.conf"):
        keys = bes_keys(tree, path)
        found |= {value for key, value in keys.items() if key.endswith(".Tempdir")}
    plain = re.compile(r"(/[A-Za-z0-9_.-]+)+")
    return sorted(each for each in found | {"/tmp"} if plain.fullmatch(each))  # noqa: S108


def readable(tree: Tree, path: str, account: Account) -> None:
    """Let a user read root's files below `path`, which a server that runs as root could read."""
    found = (tree.resolve(path) or path).lstrip("/")
    for name, node in tree.nodes.items():
        if name != found and not name.startswith(f"{found}/"):
            continue
        if node.info.uid == 0 and not node.info.mode & 0o004:
            node.info.gid = account.gid
            node.info.mode |= 0o050 if node.info.isdir() else 0o040


# ----------------------------------------------------------------------------- the XML files


def edited(tree: Tree, path: str, edit: Callable[[ET.Element], None]) -> str:
    """Return the image's XML file after `edit`, with its comments.

    Raises `Failure` if the file is not well-formed or lacks what `edit` needs.
    """
    content = tree.read(path) or b""
    # The file is not trusted, but expat refuses entity bombs and fetches nothing.
    try:
        for _, (prefix, uri) in ET.iterparse(BytesIO(content), ["start-ns"]):  # noqa: S314
            ET.register_namespace(prefix, uri)
        parser = ET.XMLParser(target=ET.TreeBuilder(insert_comments=True))  # noqa: S314
        root = ET.fromstring(content, parser)  # noqa: S314
    except (ET.ParseError, ValueError) as error:
        raise Failure(f"the image's {path} is not well-formed: {error}") from error
    try:
        edit(root)
    except (LookupError, ValueError) as error:
        raise Failure(f"the image's {path}: {error.args[0]}") from error
    note = "\n<!-- Made from the image's own file when this virtual machine was built. -->\n"
    return f'<?xml version="1.0" encoding="UTF-8"?>{note}{ET.tostring(root, encoding="unicode")}\n'


def edit_server(root: ET.Element) -> None:
    """Edit Tomcat's server.xml: one HTTP connector, behind the front door, and no shutdown port."""
    if root.tag != "Server":
        raise LookupError(f"its root is <{root.tag}>, not <Server>")
    root.set("port", "-1")
    kept = 0
    for service in root.iter("Service"):
        for connector in service.findall("Connector"):
            protocol = connector.get("protocol", "HTTP/1.1")
            plain = "HTTP" in protocol.upper() and connector.get("SSLEnabled", "false") != "true"
            if plain and not kept:
                kept += 1
                connector.attrib.update(CONNECTOR)
                connector.attrib.pop("redirectPort", None)
            else:
                service.remove(connector)
    if not kept:
        raise LookupError("it has no <Connector> for plain HTTP")
    for host in root.iter("Host"):
        host.set("autoDeploy", "false")
        host.append(ET.Element("Valve", FORWARDED))
    for valve in root.iter("Valve"):
        if (valve.get("className") or "").endswith("AccessLogValve"):
            valve.set("maxDays", "14")
            valve.set("requestAttributesEnabled", "true")  # the reader, not the front door


def edit_olfs(root: ET.Element) -> None:
    """Edit the OLFS's olfs.xml: no cache of listings and of 404s, and few BES processes.

    The cache holds a global lock while the BES reads: one hung file server would block everything.
    """
    pools = list(root.iter("ClientPool"))
    if not pools:
        raise LookupError(f"its <{root.tag}> has no <ClientPool>")
    for parent in list(root.iter()):
        for child in [each for each in parent if each.tag == "NodeCache"]:
            parent.remove(child)
    for pool in pools:
        if int(pool.get("maximum", "200")) > int(CONNECTIONS):
            pool.set("maximum", CONNECTIONS)


def edit_web(root: ET.Element) -> None:
    """Edit the OLFS's web.xml: the URL rewriting logs only faults, not 38 lines per request."""
    if not root.tag.endswith("web-app"):
        raise LookupError(f"its root is <{root.tag}>, not <web-app>")
    space = root.tag.removesuffix("web-app")
    for parameter in root.iter(f"{space}init-param"):
        name, value = parameter.find(f"{space}param-name"), parameter.find(f"{space}param-value")
        if name is not None and value is not None and (name.text or "").strip() == "logLevel":
            value.text = re.sub("DEBUG|INFO", "WARN", value.text or "")


def scanned(tree: Tree, own: str, shared: str) -> dict[str, list[str]]:
    """Return, for each search of Tomcat at its start, the libraries in which it finds something.

    Tag libraries may be the webapp's own or shared; plug-ins must be the webapp's own.
    """
    found: dict[str, list[str]] = {kind: [] for kind in SCANS}
    for path in [*tree.glob(f"{own}/*.jar"), *tree.glob(f"{shared}/*.jar")]:
        try:
            with zipfile.ZipFile(BytesIO(tree.read(path) or b"")) as jar:
                names = jar.namelist()
        except zipfile.BadZipFile as error:
            raise Failure(f"the image's {path} is not a jar file: {error}") from error
        for kind, pattern in SCANS.items():
            theirs = kind == "tldScan" or path.startswith(f"{own}/")
            if theirs and any(re.match(pattern, name) for name in names):
                found[kind].append(path.rpartition("/")[2])
    return found


def edit_context(root: ET.Element, jars: dict[str, list[str]]) -> None:
    """Edit Tomcat's context.xml: search only the libraries in which Tomcat finds something.

    Otherwise each start opens all of them, and Java's own, for tag libraries and annotations.
    """
    if root.tag != "Context":
        raise LookupError(f"its root is <{root.tag}>, not <Context>")
    for scanner in root.findall("JarScanner"):
        root.remove(scanner)
    scanner = ET.SubElement(root, "JarScanner")
    found = {kind: ",".join(names) for kind, names in jars.items() if names}
    none = {"defaultTldScan": "false", "defaultPluggabilityScan": "false"}
    ET.SubElement(scanner, "JarScanFilter", none | found)
