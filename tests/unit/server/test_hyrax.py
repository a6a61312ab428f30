"""A Hyrax image is read, not assumed: its users, paths and XML files, and what is said when not."""

from __future__ import annotations

import io
import re
import subprocess
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from image_maker import TAG, Entry, folder, link, make_image, program, write_layer

from hyraxvm import config, oci, provision, server
from hyraxvm.errors import Failure
from hyraxvm.tree import merge

TOMCAT = "home/tomcat/apache-tomcat-11.0.7"
CONF = f"{TOMCAT}/webapps/opendap/WEB-INF/conf"
SERVER_XML = b"""<?xml version="1.0" encoding="UTF-8"?>
<!-- licence -->
<Server port="8005" shutdown="SHUTDOWN">
  <!-- kept -->
  <Service name="Catalina">
    <Connector port="8080" protocol="HTTP/1.1" connectionTimeout="1000000" redirectPort="8443"
               compression="force" compressableMimeType="text/html,image/tiff;application=geotiff"/>
    <Connector port="8009" protocol="AJP/1.3"/>
    <Connector port="8443" protocol="org.apache.coyote.http11.Http11NioProtocol" SSLEnabled="true"/>
    <Engine name="Catalina" defaultHost="localhost">
      <Host name="localhost" appBase="webapps" autoDeploy="true">
        <Valve className="org.apache.catalina.valves.AccessLogValve" prefix="log"/>
      </Host>
    </Engine>
  </Service>
</Server>
"""
OLFS_XML = b"""<OLFSConfig>
  <BESManager>
    <BES><host>localhost</host><port>10022</port><ClientPool maximum="200" maxCmds="2000"/></BES>
    <!-- why -->
    <NodeCache maxEntries="20000" refreshInterval="600"/>
    <SiteMapCache refreshInterval="600"/>
  </BESManager>
  <UseDAP2ResourceUrlResponse/>
</OLFSConfig>
"""
WEB_XML = b"""<web-app xmlns="http://java.sun.com/xml/ns/javaee"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"
  xsi:schemaLocation="http://java.sun.com/xml/ns/javaee x.xsd" version="2.5">
  <filter><filter-name>UrlRewriteFilter</filter-name>
    <init-param><param-name>logLevel</param-name><param-value>sysout:DEBUG</param-value></init-param>
    <init-param><param-name>other</param-name><param-value>sysout:DEBUG</param-value></init-param>
  </filter>
</web-app>
"""
BES_CONF = b"""BES.ServerAdministrator=email:support@example.org
BES.ServerAdministrator+=organization:Somebody
BES.User=bes
BES.Group=bes
BES.LogName=/var/log/bes/bes.log
BES.ServerPort=10022
"""
PASSWD = (
    b"root:x:0:0::/root:/bin/bash\nbin:x:1:1::/:\n"
    b"bes:x:998:996::/:/sbin/nologin\ntomcat:x:1000:1000::/home/tomcat:/bin/false\n"
)


def jar(name: str, *entries: str, folder: str = "webapps/opendap/WEB-INF/lib") -> Entry:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        for entry in ("META-INF/MANIFEST.MF", "org/example/Thing.class", *entries):
            file.writestr(entry, b"x")
    return Entry(f"{TOMCAT}/{folder}/{name}", content.getvalue())


LAYER = [
    jar("plain-1.jar", "org/example/x.tld"),
    jar("jasper.jar", "META-INF/web-fragment.xml", folder="lib"),
    jar("shared.jar", "META-INF/s.tld", folder="lib"),
    jar("jstl-1.2.jar", "META-INF/c.tld"),
    jar("logback-1.jar", "META-INF/services/jakarta.servlet.ServletContainerInitializer"),
    jar("both-1.jar", "META-INF/tags/c.tld", "META-INF/web-fragment.xml"),
    Entry("etc/passwd", PASSWD),
    Entry("etc/group", b"root:x:0:\nbes:x:996:\ntomcat:x:1000:\n"),
    program("usr/bin/besdaemon"),
    program("usr/bin/beslistener"),
    program("usr/bin/bash"),
    program("usr/bin/env"),
    link("bin", "usr/bin"),
    link("usr/bin/sh", "bash"),
    Entry("etc/bes/bes.conf", BES_CONF),
    Entry("etc/bes/modules/fonc.conf", b"FONc.Tempdir=/tmp/hyrax_fonc\n"),
    folder("usr/share/hyrax/"),
    link("usr/share/tomcat", f"/{TOMCAT}"),
    folder(f"{TOMCAT}/", uid=1000, gid=1000),
    program(f"{TOMCAT}/bin/catalina.sh"),
    Entry(f"{TOMCAT}/conf/server.xml", SERVER_XML, 0o600, 1000, 1000),
    Entry(f"{TOMCAT}/conf/context.xml", b"<Context><WatchedResource>x</WatchedResource></Context>"),
    Entry(f"{TOMCAT}/conf/secret.properties", b"x", 0o600),
    folder(f"{TOMCAT}/temp/", uid=0),
    Entry(f"{TOMCAT}/temp/old", uid=0),
    Entry(f"{TOMCAT}/webapps/opendap/WEB-INF/web.xml", WEB_XML),
    Entry(f"{TOMCAT}/webapps/ROOT/index.jsp", b"Tomcat's own"),
    Entry(f"{CONF}/olfs.xml", OLFS_XML),
    program("usr/lib/jvm/java-21-openjdk/bin/java"),
    Entry("usr/lib/jvm/java-21-openjdk/lib/server/classes.jsa"),
    link("etc/alternatives/jre", "/usr/lib/jvm/java-21-openjdk"),
    Entry("usr/share/doc/x", b"d" * 100),
]
CONFIG = (
    "--config.entrypoint=/entrypoint.sh",
    "--config.cmd=-",
    "--config.env=CATALINA_HOME=/usr/share/tomcat",
    "--config.env=PATH=/usr/share/tomcat/bin:/usr/bin",
    "--config.env=NOW=$(date +%s)",
    "--config.label=org.opendap.hyrax.version=1.18.0-123",
    "--config.exposedports=8080/tcp",
)


def recipe(reference: str = "", digest: str = "") -> config.Recipe:
    return config.recipe(config.load(), "nfs", "hyrax", reference, digest)


def built(
    tmp_path: Path, layer: Sequence[Entry] = LAYER, options: Sequence[str] = CONFIG
) -> server.ServerImage:
    layout = make_image(tmp_path / "image", [layer], *options)
    reference = f"oci:{layout}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference))
    return server.build(chosen, tmp_path / "log", lambda line: None).image


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> server.ServerImage:
    work = tmp_path_factory.mktemp("hyrax")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(work / "xdg"))
        return built(work)


def without(*names: str) -> list[Entry]:
    return [entry for entry in LAYER if entry.name not in names]


def replaced(name: str, content: bytes) -> list[Entry]:
    return [Entry(e.name, content) if e.name == name else e for e in LAYER]


def test_users_are_the_images_own(image: server.ServerImage) -> None:
    bes = server.Account(name="bes", uid=998, group="bes", gid=996)
    tomcat = server.Account(name="tomcat", uid=1000, group="tomcat", gid=1000)
    assert image.accounts == [bes, tomcat]
    assert (image.user, image.uid, image.gid) == ("bes", 998, 996)


def test_paths_are_the_images_own(image: server.ServerImage) -> None:
    assert image.version == "1.18.0.123"
    assert image.facts == {
        "env": "/usr/bin/env",
        "besdaemon": "/usr/bin/besdaemon", "bes_conf": "/etc/bes/bes.conf", "bes_prefix": "/",
        "bes_log_dir": "/var/log/bes", "bes_port": "10022", "site_conf": "/etc/bes/site.conf",
        "admin_prefix": "email:", "fonc_dir": "/tmp/hyrax_fonc",
        "tomcat_home": "/usr/share/tomcat", "tomcat_real": f"/{TOMCAT}",
        "tomcat_user": "tomcat", "tomcat_group": "tomcat",
        "tomcat_bound": f"/{TOMCAT}/conf/server.xml /{CONF}/olfs.xml "
        f"/{TOMCAT}/webapps/opendap/WEB-INF/web.xml /{TOMCAT}/conf/context.xml",
        "olfs_logs": f"/{CONF}/logs",
        "java_home": "/etc/alternatives/jre",
        "java_archive": "/usr/lib/jvm/java-21-openjdk/lib/server/classes.jsa",
    }  # fmt: skip


def test_what_must_be_written_is_made_and_owned(tmp_path: Path) -> None:
    layout = make_image(tmp_path / "image", [LAYER], *CONFIG)
    reference = f"oci:{layout}:{TAG}"
    made = server.build(
        recipe(reference, oci.local_digest(reference)), tmp_path / "log", lambda line: None
    )
    argv = ["unsquashfs", "-lln", str(made.squashfs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = {row.split("squashfs-root/")[-1]: row.split() for row in done.stdout.splitlines()}
    for name in ("work", "temp", "temp/old", "conf/Catalina", "logs"):
        assert rows[f"{TOMCAT}/{name}"][1] == "1000/1000", name
    for name in ("logs", "cache"):
        assert rows[f"{CONF}/{name}"][1] == "1000/1000", name
    assert rows["var/log/bes"][1] == "998/996"
    # What only root could read, and Tomcat, which is root in the container, must.
    assert rows[f"{TOMCAT}/conf/secret.properties"][:2] == ["-rw-r-----", "0/1000"]
    # Bound over in a root that is read-only: it must be there.
    assert {"etc/bes/site.conf", "etc/hosts", "var/lib/hyrax-tomcat", "proc", "run"} <= set(rows)
    assert "usr/share/doc" not in rows
    # The landing page takes the place of Tomcat's own.
    assert rows[f"{TOMCAT}/webapps/ROOT"][:2] == ["drwxr-xr-x", "0/0"]
    assert f"{TOMCAT}/webapps/ROOT/index.jsp" not in rows


def test_server_xml_has_one_connector_and_no_shutdown_port(image: server.ServerImage) -> None:
    text = image.files["etc/hyrax/server.xml"]
    root = ET.fromstring(text)
    assert root.get("port") == "-1"
    (connector,) = root.iter("Connector")
    assert connector.get("port") == "8080"
    assert connector.get("compression") == "force"
    assert connector.get("connectionTimeout") == "20000"
    assert root.find(".//Host").get("autoDeploy") == "false"  # type: ignore[union-attr]
    assert root.find(".//Valve").get("maxDays") == "14"  # type: ignore[union-attr]
    assert "<!-- kept -->" in text


def test_olfs_xml_has_no_cache_of_listings(image: server.ServerImage) -> None:
    root = ET.fromstring(image.files["etc/hyrax/olfs.xml"])
    names = [element.tag for element in root.iter()]
    assert "NodeCache" not in names
    assert "SiteMapCache" in names
    pool = root.find(".//ClientPool")
    assert pool is not None
    assert pool.attrib == {"maximum": "16", "maxCmds": "2000"}


def test_web_xml_keeps_its_namespace_and_logs_less(image: server.ServerImage) -> None:
    text = image.files["etc/hyrax/web.xml"]
    assert 'xmlns="http://java.sun.com/xml/ns/javaee"' in text
    assert "xsi:schemaLocation=" in text
    assert "ns0:" not in text
    assert re.findall(r"sysout:\w+", text) == ["sysout:WARN", "sysout:DEBUG"]


def test_only_libraries_that_hold_something_are_searched(image: server.ServerImage) -> None:
    root = ET.fromstring(image.files["etc/hyrax/context.xml"])
    assert [child.tag for child in root] == ["WatchedResource", "JarScanner"]
    scan = root.find("JarScanner/JarScanFilter")
    assert scan is not None
    assert scan.attrib == {
        "defaultTldScan": "false",
        "tldScan": "both-1.jar,jstl-1.2.jar,shared.jar",
        "defaultPluggabilityScan": "false",
        "pluggabilityScan": "both-1.jar,logback-1.jar",
    }


@pytest.mark.parametrize(
    ("layer", "options", "said"),
    [
        (without("usr/bin/besdaemon"), CONFIG, "no program /usr/bin/besdaemon; /usr/bin holds"),
        (without("etc/bes/bes.conf"), CONFIG, "no file /etc/bes/bes.conf; /etc/bes holds: modules"),
        (without(f"{CONF}/olfs.xml"), CONFIG, r"no file .*/conf/olfs.xml; there is no"),
        (without(f"{TOMCAT}/bin/catalina.sh"), CONFIG, r"no program .*/bin/catalina.sh"),
        (without("usr/lib/jvm/java-21-openjdk/bin/java"), CONFIG, "no program .*/bin/java"),
        (replaced("etc/passwd", PASSWD.replace(b"bes:", b"bess:")), CONFIG,
         "does not list the user 'bes'; it has: root, bin, bess, tomcat"),
        (replaced("etc/bes/bes.conf", BES_CONF.replace(b"User=bes", b"User=root")), CONFIG,
         r"BES.User in bes.conf is 'root' \(uid 0\)"),
        (replaced("etc/bes/bes.conf", b"x=1\n"), CONFIG, "has no BES.User"),
        (replaced(f"{CONF}/olfs.xml", b"<OLFSConfig>"), CONFIG, "olfs.xml is not well-formed"),
        (replaced(f"{CONF}/olfs.xml", b"<Other/>"), CONFIG, "has no <ClientPool>"),
        (replaced(f"{TOMCAT}/conf/server.xml", b"<Server/>"), CONFIG, "no <Connector>"),
        ([*LAYER, Entry(f"{TOMCAT}/webapps/opendap/WEB-INF/lib/x.jar", b"x")], CONFIG,
         r"lib/x\.jar is no jar"),
        (LAYER, [*CONFIG, "--config.env=CATALINA_HOME=/opt/cat"],
         "no directory /opt/cat; there is no /opt"),
        (LAYER, [*CONFIG, "--config.env=CATALINA_BASE=/usr/share/hyrax"],
         "CATALINA_BASE is '/usr/share/hyrax', its CATALINA_HOME '/usr/share/tomcat'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_failure_explains_itself(
    tmp_path: Path, layer: list[Entry], options: Sequence[str], said: str
) -> None:
    with pytest.raises(Failure, match=said) as caught:
        built(tmp_path, layer, options)
    assert "\n" not in str(caught.value)


def test_another_layout_is_followed(tmp_path: Path) -> None:
    """The BES's user by number, Java by JAVA_HOME, the OLFS's settings in /etc/olfs."""
    layer = [
        *replaced("etc/bes/bes.conf", b"BES.User=#998\nBES.Group=#996\nBES.LogName=/log/b.log\n"),
        Entry("etc/olfs/olfs.xml", OLFS_XML),
        program("opt/java/bin/java"),
    ]
    found = built(tmp_path, layer, [*CONFIG, "--config.env=JAVA_HOME=/opt/java"])
    assert found.uid == 998
    assert found.facts["java_home"] == "/opt/java"
    # Never the image's: /var of a `BES.LogName=/var/bes.log` would be hidden by the guest's.
    assert found.facts["bes_log_dir"] == "/var/log/bes"
    assert "/etc/olfs/olfs.xml" in found.facts["tomcat_bound"]
    assert "/etc/olfs/cache" in found.writable


def test_units_and_files_are_rendered_from_it(image: server.ServerImage, tmp_path: Path) -> None:
    chosen = recipe()
    units = provision.render_units(chosen, image)
    bes, tomcat = units["hyrax-bes.service"], units["hyrax-tomcat.service"]
    assert " /usr/bin/besdaemon -n -i / -c /etc/bes/bes.conf -r /run/hyrax-bes\n" in bes
    assert "BindReadOnlyPaths=/srv/hyrax:/usr/share/hyrax:rbind" in bes
    assert f"BindReadOnlyPaths=/etc/hyrax/olfs.xml:/{CONF}/olfs.xml" in tomcat
    assert "BindReadOnlyPaths=/run/hyrax/www:/usr/share/tomcat/webapps/ROOT" in tomcat.splitlines()
    assert "User=tomcat" in tomcat
    assert f"ReadWritePaths=+/{TOMCAT}/work" in tomcat
    # What the image's own environment holds is passed on as it is, nothing of it expanded.
    assert 'Environment="NOW=$(date +%%s)"' in tomcat.splitlines()
    for unit in (bes, tomcat):
        for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateDevices=yes"):
            assert line in unit.splitlines()
        # A restart of one must not restart the other.
        assert "PartOf=" not in unit
    assert provision.services(units) == [
        "hyrax-bes.service", "hyrax-cleanup.timer", "hyrax-tomcat.service",
    ]  # fmt: skip
    assert "hyrax-server.service" not in units
    files = provision.server_files(chosen, image)
    assert "FollowSymLinks=No" in files["etc/hyrax/site.conf"][0]
    assert f" /opt/hyrax/{CONF}/logs/*.log {{" in files["etc/logrotate.d/hyrax"][0]
    assert files["usr/lib/hyrax-vm/hyrax-settings"][1]
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    scripts = provision.render_scripts(chosen, image)
    assert "70-warm-up.sh" in scripts
    checked = [name for name in files if name.startswith("usr/lib/hyrax-vm/")]
    paths = []
    for name, text in [*scripts.items(), *((n.split("/")[-1], files[n][0]) for n in checked)]:
        (tmp_path / name).write_text(text)
        paths.append(tmp_path / name)
    argv = ["shellcheck", "--exclude=SC1091", *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_machine_for_it_has_two_gigabytes() -> None:
    assert recipe().machine.memory_mib == 2048
    assert config.recipe(config.load(), "nfs", "dapdir").machine.memory_mib == 1024


def written(image: server.ServerImage, folder: Path, conf: str, total_kb: int = 2_000_000) -> str:
    """What hyrax-settings writes for the BES, on a guest of so much memory."""
    files = provision.server_files(recipe(), image)
    root = folder / "root"
    library = "usr/lib/hyrax-vm"
    texts = {
        f"{library}/{name}": (provision.PROVISION / "guest" / library / name).read_text()
        for name in ("lib.sh", "data-sets.sh")
    } | {
        "usr/lib/hyrax-vm/hyrax-settings": files["usr/lib/hyrax-vm/hyrax-settings"][0],
        "etc/hyrax/site.conf": files["etc/hyrax/site.conf"][0],
        "etc/hyrax/server.conf": conf,
        "proc/meminfo": f"MemTotal: {total_kb} kB\n",
        "var/lib/hyrax-tomcat/classes.jsa": "x",
    }
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    argv = ["sh", str(root / "usr/lib/hyrax-vm/hyrax-settings")]
    subprocess.run(argv, env={"HYRAX_ROOT": str(root), "PATH": "/usr/bin:/bin"}, check=True)
    return (root / "run/hyrax/site.conf").read_text()


def test_an_administrators_patterns_come_before_the_images_own(
    image: server.ServerImage, tmp_path: Path
) -> None:
    settings = written(image, tmp_path, "TYPES=nc:*.dat h5:run-?.x\n")
    types = [line for line in settings.splitlines() if ".TypeMatch" in line]
    assert types[:2] == [
        r"BES.Catalog.catalog.TypeMatch+=nc:.*\.dat$;",
        r"BES.Catalog.catalog.TypeMatch+=h5:run-.\.x$;",
    ]
    # With the image mounted: the list begins anew, and the image's own follow.
    bes = tmp_path / "root/opt/hyrax/etc/bes"
    (bes / "modules").mkdir(parents=True)
    (bes / "bes.conf").write_text("BES.Catalog.catalog.TypeMatch=\nBES.User=x\n")
    (bes / "modules/dap.conf").write_text("BES.Catalog.catalog.TypeMatch= \n")
    (bes / "modules/ff.conf").write_text("BES.Catalog.catalog.TypeMatch+=ff:.*\\.dat$;\n")
    settings = written(image, tmp_path, "TYPES=nc:*.dat\n")
    types = [line for line in settings.splitlines() if ".TypeMatch" in line]
    assert types[0] == r"BES.Catalog.catalog.TypeMatch=nc:.*\.dat$;"
    assert types.index(r"BES.Catalog.catalog.TypeMatch+=ff:.*\.dat$;") < types.index(
        r"BES.Catalog.catalog.TypeMatch+=nc:.*\.(NC|NC4|cdf|CDF|netcdf|NETCDF)(\.bz2|\.gz|\.Z)?$;"
    )
    assert settings.count("BES.User") == 0
    assert not [line for line in types if line.endswith("=")]


@pytest.mark.parametrize(
    ("conf", "total_kb", "wanted"),
    [
        ("", 2_000_000, {"heap": "488", "mail": None, "links": 1}),
        ("EMAIL=a@b.example\nSYMLINKS=yes\n", 8_000_000, {"heap": "1953", "mail": "a", "links": 2}),
        ("HEAP=700\n", 2_000_000, {"heap": "700", "mail": None, "links": 1}),
        ("HEAP=9000\n", 2_000_000, {"heap": "976", "mail": None, "links": 1}),
        ("", 400_000, {"heap": "192", "mail": None, "links": 1}),
    ],
)
def test_settings_are_written_from_the_machine_and_the_administrators_wishes(
    image: server.ServerImage, tmp_path: Path, conf: str, total_kb: int, wanted: dict[str, Any]
) -> None:
    site = written(image, tmp_path, conf, total_kb)
    root = tmp_path / "root"
    options = (root / "run/hyrax/tomcat.env").read_text()
    assert f"-Xmx{wanted['heap']}m " in options
    assert "-XX:SharedArchiveFile=/var/lib/hyrax-tomcat/classes.jsa" in options
    assert options.count("\n") == 1
    lines = site.splitlines()
    assert "BES.Catalog.catalog.RootDirectory=/usr/share/hyrax" in lines
    assert "BES.LogName=/var/log/bes/bes.log" in lines
    assert lines.count("NC.CacheEntries=0") == 1
    follow = [line for line in lines if line.startswith("BES.Catalog.catalog.FollowSymLinks=")]
    assert len(follow) == wanted["links"]
    assert follow[-1].endswith("Yes" if wanted["links"] == 2 else "No")
    mail = "BES.ServerAdministrator=email:a@b.example" in lines
    assert mail == (wanted["mail"] is not None)
    assert ("SupportEmail=a@b.example" in lines) == mail
    # An administrator that lacks one of them is not taken: OPeNDAP's is.
    parts = {
        line.partition("+=")[2].partition(":")[0] for line in lines if "Administrator+=" in line
    }
    needed = {"organization", "street", "city", "region", "postalCode", "country", "telephone"}
    assert parts == ({*needed, "website"} if mail else set())


def test_the_images_own_site_conf_comes_first_and_an_edited_one_last(
    image: server.ServerImage, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    shipped = root / "opt/hyrax/etc/bes/site.conf"
    shipped.parent.mkdir(parents=True)
    shipped.write_text("H5.EnableCF=false\nBES.ServerIP=0.0.0.0")
    lines = written(image, tmp_path, "TYPES=nc:*.dat\n").splitlines()
    assert lines[0].endswith("TypeMatch+=nc:.*\\.dat$;")
    assert "H5.EnableCF=false" in lines[1:3]
    assert [line for line in lines if "ServerIP" in line][-1] == "BES.ServerIP=127.0.0.1"
    edited = root / "var/lib/hyrax/overlay/upper/etc/bes/site.conf"
    edited.parent.mkdir(parents=True)
    edited.write_text("NC.CacheEntries=7")
    lines = written(image, tmp_path, "").splitlines()
    assert "H5.EnableCF=false" not in lines
    assert lines.index("NC.CacheEntries=7") > lines.index("NC.CacheEntries=0")
    # What this machine is made for stays last.
    assert lines.index("NC.CacheEntries=7") < lines.index("BES.LogName=/var/log/bes/bes.log")


def test_a_java_without_an_archive_of_its_own_gets_one(tmp_path: Path) -> None:
    """As jlink makes it: what is archived of the server lies on Java's own."""
    made = built(tmp_path, without("usr/lib/jvm/java-21-openjdk/lib/server/classes.jsa"))
    assert made.facts["java_archive"] == ""
    script = provision.render_scripts(recipe(), made)["70-warm-up.sh"]
    assert "-Xshare:dump" in script
    (tmp_path / "warm-up.sh").write_text(script)
    argv = ["shellcheck", "--exclude=SC1091", str(tmp_path / "warm-up.sh")]
    subprocess.run(argv, check=True)
    state, run = tmp_path / "root/var/lib/hyrax-tomcat", tmp_path / "root/run/hyrax"

    def archives() -> list[str]:
        written(made, tmp_path, "")
        return re.findall(r"-XX:(?:Shared|Archive)\S+", (run / "tomcat.env").read_text())

    used = "-XX:SharedArchiveFile=/var/lib/hyrax-tomcat"
    assert archives() == [f"{used}/classes.jsa"]
    (state / "base.jsa").write_text("x")
    (run / "warm-up").touch()
    dumped = "-XX:ArchiveClassesAtExit=/usr/share/tomcat/temp/classes.jsa"
    assert archives() == [f"{used}/base.jsa", dumped]


def test_a_request_that_wants_too_much_memory_ends_alone(image: server.ServerImage) -> None:
    bes = provision.render_units(recipe(), image)["hyrax-bes.service"].splitlines()
    assert {"MemoryMax=50%", "OOMPolicy=continue"} <= set(bes)


def test_the_trim_list_fits_the_layout_of_the_official_image(tmp_path: Path) -> None:
    """Rocky 9, the BES's libraries in /root/install/deps, a JDK: what must stay, stays."""
    deps = "root/install/deps"
    java = "usr/lib/jvm/java-21-openjdk-21.0.7.0.6-1.el9.x86_64"
    gone = [
        "include/bes/BESLog.h", f"{deps}/include/netcdf.h", f"{deps}/lib/libgdal.a",
        f"{deps}/lib/libhdf5.la", f"{deps}/bin/gdalinfo", f"{deps}/share/man/man1/ncdump.1",
        f"{deps}/share/doc/proj/x", f"{java}/lib/server/classes_nocoops.jsa", f"{java}/bin/javac",
        f"{java}/bin/jshell", f"{java}/lib/ct.sym", "usr/lib64/librpm.so.9", "usr/bin/dnf-3",
        "usr/lib/python3.9/site-packages/dnf/base.py", "var/lib/rpm/rpmdb.sqlite",
        "usr/libexec/git-core/git", "hyrax_regression_tests/testsuite", "libdap-devel.el9.rpm",
        f"{TOMCAT}/webapps/ROOT/WEB-INF/lib/x.jar", "usr/lib/debug/x", "usr/bin/make",
    ]  # fmt: skip
    kept = [
        f"{deps}/lib/libhdf5.so.310", f"{deps}/share/gdal/x", f"{deps}/share/proj/proj.db",
        "usr/lib/bes/libnc_module.so", f"{java}/lib/server/classes.jsa", f"{java}/lib/modules",
        f"{java}/bin/java", "usr/share/hyrax/data/nc/fnoc1.nc", "usr/share/bes/dap_help.txt",
        "usr/lib64/libdap.so.27", "usr/share/javazi-1.8/tzdb.dat", "etc/pki/java/cacerts",
        "usr/lib/locale/C.utf8/LC_CTYPE", f"{TOMCAT}/lib/ecj-4.37.jar",
    ]  # fmt: skip
    tree = merge([write_layer(tmp_path / "layer", [Entry(name, b"x") for name in gone + kept])])
    trimmed = server.trim(tree, recipe().server.trim, lambda line: None)
    left = {name for name, node in tree.nodes.items() if node.info.isreg()}
    assert left == set(kept)
    assert sum(each.bytes for each in trimmed) == len(gone)
