"""The stand-in's image: the official image's layout around small programs in place of Hyrax's.

It has a real Tomcat on a real Java.  The steps follow OPeNDAP's Dockerfiles, and so leave the
owners and modes that those leave; `layout.toml` has the result.
"""

from __future__ import annotations

from pathlib import Path

from tests.servers.layout import Layout

STANDIN = Path(__file__).parent / "standin"
JAVA = "/usr/lib/jvm/java-17-openjdk-amd64"
LIBRARIES = (
    "gson", "httpclient", "jdom2", "logback-classic", "logback-core", "saxonb", "slf4j-api",
)  # fmt: skip
PACKAGES = (
    "tomcat10", "openjdk-17-jre-headless", "libeclipse-jdt-core-java", "python3", "dash",
    "coreutils", "sed", "libgoogle-gson-java", "libhttpclient-java", "libjdom2-java",
    "liblogback-java", "libsaxonb-java", "libslf4j-java",
)  # fmt: skip
JAVAX = "libtomcat9-java"  # in Debian 12 it has only the libraries; the scripts are Tomcat 10's
# Tomcat 9 does not know the namespace of Tomcat 10's web.xml.
WEB_APP = (
    '<web-app xmlns="http://xmlns.jcp.org/xml/ns/javaee" version="4.0" metadata-complete="true">'
)


def packages(layout: Layout) -> str:
    """Return what Debian has of the image."""
    return ",".join([*PACKAGES, *([JAVAX] if layout.servlets == "javax" else [])])


def hooks(layout: Layout) -> list[str]:
    """Return the steps that make the image of a tree of Debian packages, "$1"."""
    lines = [f"printf '%s\\n' {{}} >\"$1/etc/{name}\"" for name in ("passwd", "group")]
    users = ["root:x:0:0:root:/root:/bin/bash", *layout.table["passwd"]]
    groups = ["root:x:0:", *layout.table["group"]]
    accounts = [
        line.format(" ".join(f"'{entry}'" for entry in entries))
        for line, entries in zip(lines, (users, groups), strict=True)
    ]
    return [*accounts, *_java(), *_bes(), *_tomcat(layout), *_olfs(layout.tomcat), *_rest()]


def _java() -> list[str]:
    return [
        f'ln -s {JAVA} "$1/etc/alternatives/jre"; ln -s /etc/alternatives/jre "$1/usr/lib/jvm/jre"'
    ]


def _bes() -> list[str]:
    return [
        'mkdir -p "$1/home/bes_user/bes-test-logs" "$1/root/install/deps/lib" "$1/etc/sudoers.d" '
        '"$1/etc/bes/modules" "$1/run/bes" "$1/usr/share/hyrax/data/nc" "$1/var/log/bes"',
        'echo "bes_user ALL=(root) NOPASSWD:ALL" >"$1/etc/sudoers.d/bes_user"',
        # The BES installs files for its own tests at this place.
        'echo tested >"$1/usr/share/hyrax/data/nc/tested.nc"',
        f'install -m 0644 {STANDIN}/bes/bes.conf "$1/etc/bes/"; '
        'cp "$1/etc/bes/bes.conf" "$1/etc/bes/site.conf.proto"; '
        f'install -m 0755 {STANDIN}/bes/besdaemon {STANDIN}/bes/beslistener "$1/usr/bin/"; '
        f'install -m 0644 {STANDIN}/bes/bes_keys.py "$1/root/install/deps/lib/"',
        'touch "$1/var/log/bes/bes.log"; chmod 0701 "$1/root"; chmod 0700 "$1/home/bes_user"; '
        'chmod -R g+w "$1/run" "$1/usr/share/hyrax"; '
        'chown -R 101:1000 "$1/home/bes_user" "$1/root/install" "$1/var/log/bes"',
    ]


def _tomcat(layout: Layout) -> list[str]:
    tomcat = layout.tomcat
    steps = [
        f'mkdir -p "$1{tomcat}/lib"; cd "$1{tomcat}"; mkdir logs temp webapps work',
        f'cp -rL "$1/usr/share/tomcat10/bin" "$1{tomcat}/"; '
        f'cp -r "$1/usr/share/tomcat10/etc" "$1{tomcat}/conf"; '
        f'cp -L "$1/usr/share/java/eclipse-jdt-core.jar" "$1{tomcat}/lib/"',
    ]
    if layout.servlets == "javax":
        steps += [
            f'cp -L "$1"/usr/share/java/tomcat9-*[a-z].jar "$1{tomcat}/lib/"; '
            f'mv "$1{tomcat}/lib/tomcat9-juli.jar" "$1{tomcat}/bin/tomcat-juli.jar"',
            f"sed -i -z 's|<web-app[^>]*>|{WEB_APP}|' \"$1{tomcat}/conf/web.xml\"",
        ]
    else:
        # The jars are links, relative to a directory that they would leave: copy their targets.
        steps += [
            'cd "$1/usr/share/tomcat10/lib"; for jar in *.jar; do '
            f'cp -L "$jar" "$1{tomcat}/lib/" || exit 1; done'
        ]
    return [
        *steps,
        f'ln -s {tomcat} "$1/usr/share/tomcat"; ln -s {tomcat} "$1/tomcat"; '
        'mkdir -p "$1/var/log/tomcat"; chmod 0700 "$1/home/tomcat"; '
        f'find "$1{tomcat}" -type d -exec chmod 0750 {{}} +; '
        f'find "$1{tomcat}" -type f -exec chmod 0640 {{}} +; '
        f'chmod 0750 "$1{tomcat}"/bin/*.sh; chmod 0644 "$1{tomcat}/conf/server.xml"; '
        'chown -R 1000:1001 "$1/var/log/tomcat" "$1/home/tomcat"',
    ]


def _olfs(tomcat: str) -> list[str]:
    """Unpack the webapps as root after Tomcat's files have got their owner."""
    webapp = f"{tomcat}/webapps/opendap"
    return [
        f'cp -r {STANDIN}/webapp "$1{webapp}"; mkdir "$1{webapp}/WEB-INF/lib" '
        f'"$1{webapp}/WEB-INF/conf/logs" "$1{tomcat}/webapps/ROOT"; '
        f'echo "User-agent: *" >"$1{tomcat}/webapps/ROOT/robots.txt"',
        # The OLFS has such libraries, which Tomcat searches; one of them holds tags.
        f'cd "$1/usr/share/java"; cp -L {" ".join(f"{name}.jar" for name in LIBRARIES)} '
        f'"$1{webapp}/WEB-INF/lib/"; '
        f'cd {STANDIN}/tags; python3 -m zipfile -c "$1{webapp}/WEB-INF/lib/tags.jar" META-INF',
        f'chown -R 0:0 "$1{webapp}" "$1{tomcat}/webapps/ROOT"; '
        f'chmod -R u=rwX,go=rX "$1{webapp}" "$1{tomcat}/webapps/ROOT"; '
        f'cd "$1{webapp}/WEB-INF/conf"; chown 1000:1001 logs; chmod 0700 logs',
    ]


def _rest() -> list[str]:
    return [
        'printf "#!/bin/sh\\nexit 1\\n" >"$1/entrypoint.sh"; chmod 0755 "$1/entrypoint.sh"',
        # The image is read-only, so Python could not keep what it compiles at run time.
        'chroot "$1" python3 -m compileall -q --invalidation-mode unchecked-hash '
        "/usr/lib/python3.11 /usr/lib/python3 || test $? = 1",
        'rm -rf "$1/usr/share/doc" "$1/usr/share/man"',
    ]
