"""A Hyrax image in the guest: its units, its files, and its settings for the machine."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hyraxvm.config import images
from hyraxvm.stages.provision import guest_tar
from hyraxvm.stages.provision import stage as provision
from hyraxvm.stages.server import stage as server
from tests.unit.stages.server.hyrax_image import CONF, TOMCAT, built, recipe, without


def test_units_and_files_are_rendered_from_it(image: server.ServerImage, tmp_path: Path) -> None:
    chosen = recipe()
    units = guest_tar.render_units(chosen, image)
    bes, tomcat = units["hyrax-bes.service"], units["hyrax-tomcat.service"]
    assert " /usr/bin/besdaemon -n -i / -c /etc/bes/bes.conf -r /run/hyrax-bes\n" in bes
    assert "BindReadOnlyPaths=/srv/hyrax:/usr/share/hyrax:rbind" in bes
    assert f"BindReadOnlyPaths=/etc/hyrax/olfs.xml:/{CONF}/olfs.xml" in tomcat
    assert "User=tomcat" in tomcat
    assert f"ReadWritePaths=+/{TOMCAT}/work" in tomcat
    # The image's environment is passed on unchanged, without expanding anything.
    assert 'Environment="NOW=$(date +%%s)"' in tomcat.splitlines()
    for unit in (bes, tomcat):
        for line in ("NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateDevices=yes"):
            assert line in unit.splitlines()
        # Restarting one of the two services must not restart the other.
        assert "PartOf=" not in unit
    assert guest_tar.services(units) == [
        "hyrax-bes.service", "hyrax-cleanup.timer", "hyrax-tomcat.service",
    ]  # fmt: skip
    assert "hyrax-server.service" not in units
    files = guest_tar.server_files(chosen, image)
    assert "FollowSymLinks=No" in files["etc/hyrax/site.conf"][0]
    assert " /var/log/hyrax-olfs/*.log {" in files["etc/logrotate.d/hyrax"][0]
    # systemd-tmpfiles refuses to work below a folder of one user inside a folder of another one
    # ("unsafe path transition"), as the folders of the image may be: it is for the guest's alone.
    lines = files["usr/lib/tmpfiles.d/hyrax-server.conf"][0].splitlines()
    managed = [line.split()[1] for line in lines if not line.startswith("#")]
    assert [path for path in managed if not path.startswith(("/var/log/", "/run/"))] == []
    assert len(managed) == 4
    assert files["usr/lib/hyrax-vm/hyrax-settings"][1]
    for name, text in units.items():
        (tmp_path / name).write_text(text)
    scripts = provision.render_scripts(chosen, image)
    assert "70-warm-up.sh" in scripts
    checked = [
        name
        for name, (text, _) in files.items()
        if name.startswith("usr/lib/hyrax-vm/") and text.startswith("#!/bin/sh")
    ]
    assert len(checked) == 2
    paths = []
    for name, text in [*scripts.items(), *((n.split("/")[-1], files[n][0]) for n in checked)]:
        (tmp_path / name).write_text(text)
        paths.append(tmp_path / name)
    argv = ["shellcheck", "--exclude=SC1091", *map(str, paths)]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_machine_for_it_has_two_gigabytes() -> None:
    assert recipe().machine.memory_mib == 2048
    assert images.recipe(images.load(), "nfs", "dapdir").machine.memory_mib == 1024


def written(image: server.ServerImage, folder: Path, conf: str, total_kb: int = 2_000_000) -> str:
    """Return what hyrax-settings writes for the BES on a guest with this much memory."""
    files = guest_tar.server_files(recipe(), image)
    root = folder / "root"
    library = "usr/lib/hyrax-vm"
    texts = {
        f"{library}/{each.name}": each.read_text()
        for each in (guest_tar.PROVISION / "guest" / library).glob("*.sh")
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
    # With the image mounted: the list is reset first, then the image's entries follow.
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
    ("conf", "size"), [("LIMIT_SIZE=2G\n", 2_000_000_000), ("LIMIT_SIZE=50M\n", 50_000_000)]
)
def test_the_size_of_an_answer_is_limited(
    image: server.ServerImage, tmp_path: Path, conf: str, size: int
) -> None:
    lines = written(image, tmp_path, conf, 2_000_000).splitlines()
    assert f"BES.MaxResponseSize.bytes={size}" in lines


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
    assert "-XX:+ExitOnOutOfMemoryError" in options
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
    # An administrator without one of the fields is not used: OPeNDAP's stays.
    parts = {
        line.partition("+=")[2].partition(":")[0] for line in lines if "Administrator+=" in line
    }
    needed = {"organization", "street", "city", "region", "postalCode", "country", "telephone"}
    assert parts == ({*needed, "website"} if mail else set())


def test_sizes_fit_the_machine_and_the_administrators_count(
    image: server.ServerImage, tmp_path: Path
) -> None:
    lines = written(image, tmp_path, "", 2_000_000).splitlines()
    sizes = dict(line.split("=") for line in lines if re.fullmatch(r"[\w.]+=\d+", line))
    # 1953 MB: a variable is in memory twice, and the BES may use six tenths.
    assert sizes["BES.MaxVariableSize.bytes"] == "488000000"
    assert sizes["BES.MaxResponseSize.bytes"] == "3906000000"
    caches = {
        "BES.UncompressCache.size", "DAP.FunctionResponseCache.size", "DAP.StoredResultsCache.size",
        "DAP.GlobalMetadataStore.size", "Gateway.Cache.size", "NCML.DimensionCache.size",
        "HDF4.Cache.latlon.size", "H5.Cache.latlon.size", "H5.DiskCacheSize",
        "NGAP.DMRppFileCacheSize.MB",
    }  # fmt: skip
    disk = shutil.disk_usage(tmp_path).total / 2**20
    assert caches <= sizes.keys()
    assert 0 < sum(int(sizes[key]) for key in caches) <= disk / 3
    # What is in /etc/hyrax/site.conf comes later, and so counts.
    conf = tmp_path / "root/etc/hyrax/site.conf"
    text = conf.read_text() + "BES.MaxVariableSize.bytes=1\n"
    conf.write_text(text)
    argv = ["sh", str(tmp_path / "root/usr/lib/hyrax-vm/hyrax-settings")]
    env = {"HYRAX_ROOT": str(tmp_path / "root"), "PATH": "/usr/bin:/bin"}
    subprocess.run(argv, env=env, check=True)
    lines = (tmp_path / "root/run/hyrax/site.conf").read_text().splitlines()
    found = [line for line in lines if line.startswith("BES.MaxVariableSize.bytes=")]
    assert found == ["BES.MaxVariableSize.bytes=488000000", "BES.MaxVariableSize.bytes=1"]


def test_temporary_files_of_all_modules_are_removed(
    image: server.ServerImage, tmp_path: Path
) -> None:
    unit = guest_tar.render_units(recipe(), image)["hyrax-cleanup.service"]
    line = re.search(r"^ExecStart=/bin/sh -c '(.*)'$", unit, re.MULTILINE)
    assert line
    me = pwd.getpwuid(os.getuid()).pw_name
    command = line[1].replace(" /tmp", f" {tmp_path}").replace("-user bes", f"-user {me}")
    names = ("hyrax_fonc/nc_1_a", "hyrax_fong/tif_b", "foJson_c", "bes_rr_tmp/x", ".hyrax-cookies",
             "bes_cache.y", "hyrax_ux/kept", "young")  # fmt: skip
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        if name != "young":
            os.utime(tmp_path / name, (0, 0))
    subprocess.run(["sh", "-c", command], check=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {".hyrax-cookies", "bes_cache.y", "hyrax_ux/kept", "young"}


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
    # The settings for this machine stay last.
    assert lines.index("NC.CacheEntries=7") < lines.index("BES.LogName=/var/log/bes/bes.log")


def test_a_java_without_an_archive_of_its_own_gets_one(tmp_path: Path) -> None:
    """A Java made by jlink has no class archive; the server's archive needs one below it."""
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
    bes = guest_tar.render_units(recipe(), image)["hyrax-bes.service"].splitlines()
    assert {"MemoryMax=60%", "OOMPolicy=continue"} <= set(bes)


def test_acknowledgements_on_the_loopback_are_not_delayed(image: server.ServerImage) -> None:
    unit = guest_tar.render_units(recipe(), image)["hyrax-settings.service"]
    command = re.search(r"^ExecStartPre=-/usr/sbin/(ip route .*)$", unit, re.MULTILINE)
    assert command
    script = f"ip link set lo up && {command[1]} && ip route get 127.0.0.1"
    argv = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", script]
    path = f"{os.environ['PATH']}:/usr/sbin"
    done = subprocess.run(argv, capture_output=True, text=True, env={"PATH": path}, check=True)
    assert " quickack 1" in done.stdout
