"""The table of what makes an image large, from its package list and its files."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from hyraxvm.stages import sizes

STATUS = "\n\n".join(
    f"Package: p{n}\nStatus: install ok installed\nInstalled-Size: {n * 1000}\nVersion: 1"
    for n in range(1, 13)
)


def test_the_ten_largest_of_each(tmp_path: Path) -> None:
    tar, squashfs = tmp_path / "rootfs.tar", tmp_path / "server.squashfs"
    squashfs.write_bytes(bytes(3_000_000))
    files = {"./var/lib/dpkg/status": STATUS.encode()}
    files |= {f"./usr/share/d{n}/deep/er/file": bytes(n * 500_000) for n in range(1, 13)}
    with tarfile.open(tar, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    lines = [line.split() for line in sizes.largest(tar, squashfs).splitlines()]
    assert lines[0] == ["largest", "packages"]
    assert lines[1] == ["p12", "12.3", "MB"]
    assert [line[0] for line in lines[1:11]] == [f"p{n}" for n in range(12, 2, -1)]
    assert lines[11] == ["largest", "directories"]
    assert lines[12] == ["/usr/share/d12", "6.0", "MB"]
    assert ["/usr/lib/hyrax", "3.0", "MB"] in lines
    assert len(lines) == 22
