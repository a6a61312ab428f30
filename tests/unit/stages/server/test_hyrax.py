"""A Hyrax image's users, paths and XML files are read from it; what is missing is reported."""

from __future__ import annotations

import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

import pytest

from hyraxvm.core.cache import StageCache
from hyraxvm.core.errors import Failure
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from hyraxvm.stages.server.image_tree import merge
from hyraxvm.stages.server.trim import trim
from tests.unit.stages.server.hyrax_image import (
    BES_CONF,
    CONF,
    CONFIG,
    LAYER,
    OLFS_XML,
    PASSWD,
    TOMCAT,
    built,
    recipe,
    replaced,
    without,
)
from tests.unit.stages.server.image_maker import TAG, Entry, make_image, program, write_layer


def test_users_are_the_images_own(image: server.ServerImage) -> None:
    bes = server.Account(name="bes", uid=998, group="bes", gid=996)
    tomcat = server.Account(name="tomcat", uid=1000, group="tomcat", gid=1000)
    assert image.accounts == [bes, tomcat]
    assert (image.user, image.uid, image.gid) == ("bes", 998, 996)


def test_its_version_is_not_that_of_the_image_below(tmp_path: Path) -> None:
    labels = [each for each in CONFIG if "hyrax.version" not in each]
    labels += ["--config.label=version=9.5", "--config.env=HYRAX_VERSION=1.18.1-7"]
    assert built(tmp_path, options=labels).version == "1.18.1.7"


def test_paths_are_the_images_own(image: server.ServerImage) -> None:
    assert image.version == "1.18.0.123"
    assert image.facts == {
        "env": "/usr/bin/env",
        "besdaemon": "/usr/bin/besdaemon", "bes_conf": "/etc/bes/bes.conf", "bes_prefix": "/",
        "bes_log_dir": "/var/log/bes", "bes_port": "10022", "site_conf": "/etc/bes/site.conf",
        "admin_prefix": "email:",
        "temporary": "/tmp /tmp/bes_rr_tmp /tmp/hyrax_fonc /tmp/hyrax_fong",
        "tomcat_home": "/usr/share/tomcat", "tomcat_real": f"/{TOMCAT}",
        "tomcat_user": "tomcat", "tomcat_group": "tomcat",
        "tomcat_bound": f"/{TOMCAT}/conf/server.xml /{CONF}/olfs.xml "
        f"/{TOMCAT}/webapps/opendap/WEB-INF/web.xml /{TOMCAT}/conf/context.xml",
        "olfs_logs": f"/{CONF}/logs",
        "java_home": "/etc/alternatives/jre",
        "java_archive": "/usr/lib/jvm/java-21-openjdk/lib/server/classes.jsa",
    }  # fmt: skip


def test_what_must_be_written_is_made_and_owned(results: StageCache, tmp_path: Path) -> None:
    layout = make_image(tmp_path / "image", [LAYER], *CONFIG)
    reference = f"oci:{layout}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference))
    made = server.build(results, chosen, server.key(chosen), tmp_path / "log", lambda line: None)
    argv = ["unsquashfs", "-lln", str(made.squashfs)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    rows = {row.split("squashfs-root/")[-1]: row.split() for row in done.stdout.splitlines()}
    for name in ("work", "temp", "temp/old", "conf/Catalina", "logs"):
        assert rows[f"{TOMCAT}/{name}"][1] == "1000/1000", name
    for name in ("logs", "cache"):
        assert rows[f"{CONF}/{name}"][1] == "1000/1000", name
    assert rows["var/log/bes"][1] == "998/996"
    # Only root could read these; Tomcat, which is root in the container, must read them.
    assert rows[f"{TOMCAT}/conf/secret.properties"][:2] == ["-rw-r-----", "0/1000"]
    # The guest mounts over it in a read-only root, so it must exist.
    assert {"etc/bes/site.conf", "etc/hosts", "var/lib/hyrax-tomcat", "proc", "run"} <= set(rows)
    assert "usr/share/doc" not in rows
    # nginx shows the landing page.
    assert f"{TOMCAT}/webapps/ROOT" not in rows


def test_server_xml_has_one_connector_and_no_shutdown_port(image: server.ServerImage) -> None:
    text = image.files["etc/hyrax/server.xml"]
    root = ET.fromstring(text)
    assert root.get("port") == "-1"
    (connector,) = root.iter("Connector")
    assert (connector.get("address"), connector.get("port")) == ("127.0.0.1", "8081")
    assert connector.get("relaxedQueryChars") == r'"<>[]\^`{|}'
    assert int(connector.get("maxHttpRequestHeaderSize", 0)) > 2 * 64 * 1024
    assert connector.get("compression") == "force"
    assert connector.get("connectionTimeout") == "20000"
    host, valve = root.find(".//Host"), root.find(".//Valve[@maxDays]")
    assert host is not None and host.get("autoDeploy") == "false"
    assert valve is not None
    assert (valve.get("maxDays"), valve.get("requestAttributesEnabled")) == ("14", "true")
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
         r"lib/x\.jar is not a jar file"),
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
    """The BES's user is a number, Java is in JAVA_HOME, the OLFS's settings are in /etc/olfs."""
    layer = [
        *replaced("etc/bes/bes.conf", b"BES.User=#998\nBES.Group=#996\nBES.LogName=/log/b.log\n"),
        Entry("etc/olfs/olfs.xml", OLFS_XML),
        program("opt/java/bin/java"),
    ]
    found = built(tmp_path, layer, [*CONFIG, "--config.env=JAVA_HOME=/opt/java"])
    assert found.uid == 998
    assert found.facts["java_home"] == "/opt/java"
    # Not the image's setting: the guest's mount would hide /var of a `BES.LogName=/var/bes.log`.
    assert found.facts["bes_log_dir"] == "/var/log/bes"
    assert "/etc/olfs/olfs.xml" in found.facts["tomcat_bound"]
    assert "/etc/olfs/cache" in found.writable


def test_the_trim_list_fits_the_layout_of_the_official_image(tmp_path: Path) -> None:
    """On Rocky 9 with the BES's libraries in /root/install/deps and a JDK, what is needed stays."""
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
        "usr/lib64/perl5/perl.pm", "usr/share/perl5/x.pm", "usr/lib64/libperl.so.5.32",
        "usr/lib64/python3.9/os.py", "usr/bin/python3.9", "usr/libexec/platform-python3.6",
        "usr/lib64/libpython3.9.so.1.0", "usr/bin/build_dmrpp", "usr/share/hyrax/data/nc/fnoc1.nc",
        "home/bes_user/bes-test-logs/bes-autotest-logs.tgz", f"{java}/bin/jar",
        f"{java}/lib/libawt_headless.so", f"{java}/lib/jfr/default.jfc",
        f"{TOMCAT}/webapps/opendap/WEB-INF/lib/junit-4.13.2.jar",
    ]  # fmt: skip
    kept = [
        f"{deps}/lib/libhdf5.so.310", f"{deps}/share/gdal/x", f"{deps}/share/proj/proj.db",
        "usr/lib/bes/libnc_module.so", f"{java}/lib/server/classes.jsa", f"{java}/lib/modules",
        f"{java}/bin/java", f"{java}/bin/keytool", f"{java}/lib/libjava.so",
        f"{java}/lib/server/libjvm.so", "usr/share/bes/dap_help.txt",
        "usr/lib/bes/libdmrpp_module.so",
        f"{TOMCAT}/webapps/opendap/docs/css/contents.css", "usr/lib64/libicudata.so.67.1",
        "usr/lib64/libdap.so.27", "usr/share/javazi-1.8/tzdb.dat", "etc/pki/java/cacerts",
        "usr/lib/locale/C.utf8/LC_CTYPE", f"{TOMCAT}/lib/ecj-4.37.jar",
    ]  # fmt: skip
    tree = merge([write_layer(tmp_path / "layer", [Entry(name, b"x") for name in gone + kept])])
    trimmed = trim(tree, recipe().server.trim, lambda line: None)
    left = {name for name, node in tree.nodes.items() if node.info.isreg()}
    assert left == set(kept)
    assert sum(each.bytes for each in trimmed) == len(gone)
