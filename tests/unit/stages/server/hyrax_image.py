"""An image with the layout of Hyrax's, small enough that each test can make its own."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

from hyraxvm.config import images
from hyraxvm.core.cache import StageCache
from hyraxvm.stages.server import oci
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server.image_maker import TAG, Entry, folder, link, make_image, program

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
    Entry("etc/bes/modules/fonc.conf", b"FONc.Tempdir = /tmp/hyrax_fonc\n"),
    Entry("etc/bes/modules/gdal.conf", b"FONg.Tempdir=/tmp/hyrax_fong\nGDAL.Other=/tmp/kept\n"),
    Entry("etc/bes/modules/fojson.conf", b"FoJson.Tempdir=/tmp\n"),
    Entry("etc/bes/modules/odd.conf", b"FoOdd.Tempdir=$(date)\n"),
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


def recipe(reference: str = "", digest: str = "") -> images.Recipe:
    return images.recipe(images.load(), "nfs", "hyrax", reference, digest)


def built(
    tmp_path: Path, layer: Sequence[Entry] = LAYER, options: Sequence[str] = CONFIG
) -> server.ServerImage:
    layout = make_image(tmp_path / "image", [layer], *options)
    reference = f"oci:{layout}:{TAG}"
    chosen = recipe(reference, oci.local_digest(reference))
    results = StageCache(tmp_path / "cache")
    key = server.key(chosen)
    return server.build(results, chosen, key, tmp_path / "log", lambda line: None).image


def without(*names: str) -> list[Entry]:
    return [entry for entry in LAYER if entry.name not in names]


def replaced(name: str, content: bytes) -> list[Entry]:
    return [Entry(e.name, content) if e.name == name else e for e in LAYER]
