"""OCI images for the tests of whole servers: stand-ins, made from Debian packages with umoci.

`make_standin` makes an image with the layout of `opendap/hyrax`: a real Tomcat on a real Java, and
small programs in the places of the BES and the OLFS.  `make_files` makes a plain file server with
another port and another data root.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from hyraxvm.core import cache
from hyraxvm.core.workspace import Workspace
from hyraxvm.stages.rootfs import stage as rootfs
from tests.unit.stages.server.image_maker import TAG

HERE = Path(__file__).parent
TOMCAT = "/home/tomcat/apache-tomcat-10.1"

LIBRARIES = (
    "gson",
    "httpclient",
    "jdom2",
    "logback-classic",
    "logback-core",
    "saxonb",
    "slf4j-api",
)

STANDIN_HOOKS = [
    # Only root and the two users of the official image, with the same ids as there.
    "printf '%s\\n' 'root:x:0:0::/root:/bin/sh' 'bes_user:x:101:101::/:/sbin/nologin' "
    "'tomcat:x:1000:1000::/home/tomcat:/bin/false' >\"$1/etc/passwd\"",
    "printf '%s\\n' 'root:x:0:' 'bes_group:x:101:' 'tomcat:x:1000:' >\"$1/etc/group\"",
    f'mkdir -p "$1{TOMCAT}/webapps" "$1/usr/share/hyrax/data/nc" "$1/etc/bes" "$1/var/log/bes"; '
    # The BES installs files for its own tests at this place.
    'echo tested >"$1/usr/share/hyrax/data/nc/tested.nc"',
    f'cp -rL "$1/usr/share/tomcat10/bin" "$1{TOMCAT}/"; cp -r "$1/usr/share/tomcat10/etc" '
    f'"$1{TOMCAT}/conf"; mkdir "$1{TOMCAT}/lib"',
    # The jars are links, relative to a directory that they would leave: copy their targets.
    'cd "$1/usr/share/tomcat10/lib"; for jar in *.jar; do '
    f'cp -L "$jar" "$1{TOMCAT}/lib/" || exit 1; done; '
    f'cp -L "$1/usr/share/java/eclipse-jdt-core.jar" "$1{TOMCAT}/lib/"',
    f'ln -s {TOMCAT} "$1/usr/share/tomcat"',
    f'cp -r {HERE}/standin/webapp "$1{TOMCAT}/webapps/opendap"',
    # The OLFS has such libraries, which Tomcat searches; one of them holds tags.
    f'mkdir "$1{TOMCAT}/webapps/opendap/WEB-INF/lib"; cd "$1/usr/share/java"; '
    f"cp -L {' '.join(f'{name}.jar' for name in LIBRARIES)} "
    f'"$1{TOMCAT}/webapps/opendap/WEB-INF/lib/"',
    f"cd {HERE}/standin/tags; python3 -m zipfile -c "
    f'"$1{TOMCAT}/webapps/opendap/WEB-INF/lib/tags.jar" META-INF',
    f'cp {HERE}/standin/bes/bes.conf "$1/etc/bes/"; '
    f'cp {HERE}/standin/bes/besdaemon {HERE}/standin/bes/beslistener "$1/usr/bin/"; '
    f'chmod 755 "$1/usr/bin/besdaemon" "$1/usr/bin/beslistener"; '
    f'cp {HERE}/standin/bes/bes_keys.py "$1/usr/lib/python3/dist-packages/"',
    # As in the official image, Tomcat's files belong to its user, who alone may read some.
    f'chown -R 1000:1000 "$1/home/tomcat"; chmod 600 "$1{TOMCAT}/conf/tomcat-users.xml"',
    # The image is read-only, so Python could not keep what it compiles at run time.
    'chroot "$1" python3 -m compileall -q --invalidation-mode unchecked-hash /usr/lib/python3.11 '
    "/usr/lib/python3 || test $? = 1",
    'ln -s /usr/lib/jvm/java-17-openjdk-amd64 "$1/usr/lib/jvm/jre"; '
    'rm -rf "$1/usr/share/doc" "$1/usr/share/man" "$1/var/log/bes"',
]
FILES_HOOKS = [
    "printf '%s\\n' 'root:x:0:0::/:/bin/sh' 'web:x:1000:1000::/:/bin/false' >\"$1/etc/passwd\"",
    "printf 'web:x:1000:\\n' >\"$1/etc/group\"",
    'mkdir -p "$1/content/opendap" "$1/state"; rm -rf "$1/usr/share/doc"',
]


def make_standin() -> str:
    """Build the stand-in; return its reference."""
    packages = (
        "tomcat10,openjdk-17-jre-headless,libeclipse-jdt-core-java,python3,dash,coreutils,sed,"
        "libgoogle-gson-java,libhttpclient-java,libjdom2-java,liblogback-java,libsaxonb-java,"
        "libslf4j-java"
    )
    return _make(
        packages,
        STANDIN_HOOKS,
        "--config.entrypoint=/entrypoint.sh",
        "--config.env=CATALINA_HOME=/usr/share/tomcat",
        "--config.env=JAVA_HOME=/usr/lib/jvm/jre",
        "--config.env=BES_USER=bes_user",
        "--config.env=PATH=/usr/share/tomcat/bin:/usr/bin:/bin",
        "--config.label=org.opendap.hyrax.version=0.1",
        "--config.exposedports=8080/tcp",
        "--config.exposedports=10022/tcp",
    )


def make_files() -> str:
    """Build the plain file server; return its reference."""
    return _make(
        "python3-minimal,libpython3-stdlib",
        FILES_HOOKS,
        "--config.entrypoint=python3",
        "--config.cmd=-m",
        "--config.cmd=http.server",
        "--config.cmd=9000",
        "--config.env=PATH=/usr/bin:/bin",
        "--config.user=web",
        "--config.workingdir=/content",
        "--config.volume=/state",
        "--config.label=org.opencontainers.image.version=3.11",
        "--config.exposedports=9000/tcp",
    )


def _make(packages: str, hooks: list[str], *config: str) -> str:
    """Pack an image, once; return its reference.

    The same image gives later stages the same keys, so that they are skipped.
    """
    results = Workspace.here().cache

    def pack(work: Path) -> None:
        layer, image = work / "layer.tar", f"{work / 'layout'}:{TAG}"
        subprocess.run(
            [
                *("mmdebstrap", "--quiet", f"--mode={'root' if os.geteuid() == 0 else 'unshare'}"),
                *("--variant=extract", f"--include={packages}"),
                "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
                *rootfs.keep_packages(rootfs.package_cache(results), "extract"),
                *(f"--extract-hook={hook}" for hook in hooks),
                *("bookworm", str(layer)),
            ],
            check=True,
        )
        for command in (
            ["umoci", "init", "--layout", str(work / "layout")],
            ["umoci", "new", "--image", image],
            ["umoci", "raw", "add-layer", "--image", image, str(layer)],
            ["umoci", "config", "--image", image, *config],
        ):
            subprocess.run(command, check=True, capture_output=True)
        layer.unlink()

    key = cache.digest(packages, hooks, list(config), HERE / "standin", Path(__file__))
    return f"oci:{results.produce('test-images', key, pack) / 'layout'}:{TAG}"
