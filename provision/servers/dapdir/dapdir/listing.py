"""Makes HTML listings and THREDDS catalogs of directories, and an HTML page per data file."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from pydap.lib import walk
from pydap.model import BaseType, DatasetType

from . import SERVER
from .settings import DEFAULTS, Settings
from .tree import shown

_VIEWS = ("html", "dds", "das", "ascii", "dods")
_STYLE = """body{font:16px/1.5 system-ui,sans-serif;margin:1rem auto;max-width:60rem;padding:0 1rem}
table{border-collapse:collapse;width:100%}td,th{padding:.3rem .6rem .3rem 0;text-align:left;
vertical-align:top;overflow-wrap:anywhere}tr+tr{border-top:1px solid #ccc}
.n{text-align:right;white-space:nowrap}footer{color:#666;margin-top:1rem}
@media(max-width:40rem){.d{display:none}}"""


@dataclass(frozen=True)
class Entry:
    """A row of a listing; the size in bytes and the date are None if they are not known.

    `is_data`: the file can be opened with DAP.
    """

    name: str
    is_directory: bool
    is_data: bool = False
    size: int | None = None
    modified: datetime | None = None

    @property
    def href(self) -> str:
        """The entry's relative URL; "./" keeps a colon in a name from looking like a scheme."""
        return "./" + quote(os.fsencode(self.name)) + ("/" if self.is_directory else "")


def entry_of(found: os.DirEntry[str], settings: Settings = DEFAULTS) -> Entry | None:
    """Describe a directory entry; return None if it is not served.

    Only files are examined further: a directory may be the mount point of a file server that does
    not answer.
    """
    is_data = settings.is_data(found.name)
    try:
        if found.is_symlink():
            # Following the link could hang too: the name alone decides.
            return Entry(found.name, not is_data and "." not in found.name, is_data)
        if found.is_dir(follow_symlinks=False):
            return Entry(found.name, is_directory=True)
        if not found.is_file(follow_symlinks=False):
            return None
    except OSError:
        return None
    try:
        status = found.stat(follow_symlinks=False)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return Entry(found.name, False, is_data, status.st_size, modified)
    except (OSError, ValueError, OverflowError):
        return Entry(found.name, False, is_data)


def page(title: str, body: str, settings: Settings = DEFAULTS) -> bytes:
    """Return a complete HTML page; `title` is text, `body` is HTML."""
    email = escape(settings.email)
    contact = f' &middot; administrator: <a href="mailto:{email}">{email}</a>' if email else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - {SERVER}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n<footer>{SERVER} &middot; DAP2{contact}</footer>"
        "</body></html>\n"
    ).encode()


def directory_page(path: str, entries: Iterable[Entry], settings: Settings = DEFAULTS) -> bytes:
    """Return the HTML listing of the directory with URL path `path` ("/" at both ends)."""
    rows = [
        '<table><tr><th>Name<th class="n">Size<th class="n d">Modified (UTC)<th>Open as</tr>',
        *([] if path == "/" else ['<tr><td><a href="../">../</a><td><td class="d"><td></tr>']),
        *(_row(entry) for entry in entries),
        '</table><p><a href="catalog.xml">THREDDS catalog</a></p>',
    ]
    return page(f"Contents of {shown(path)}", "\n".join(rows), settings)


def _row(entry: Entry) -> str:
    size = "" if entry.size is None else f"{entry.size:,}"
    date = "" if entry.modified is None else f"{entry.modified:%Y-%m-%d %H:%M:%S}"
    views = _VIEWS if entry.is_data else ()
    links = " ".join(f'<a href="{entry.href}.{view}">{view}</a>' for view in views)
    name = escape(shown(entry.name)) + ("/" if entry.is_directory else "")
    return (
        f'<tr><td><a href="{entry.href}{".html" if entry.is_data else ""}">{name}</a>'
        f'<td class="n">{size}<td class="n d">{date}<td>{links}</tr>'
    )


def catalog(base: str, path: str, entries: Iterable[Entry]) -> bytes:
    """Return a directory's THREDDS catalog (InvCatalog 1.0); `base` is the service's URL path."""
    inside = path.lstrip("/")
    name = quoteattr(shown(path))
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<catalog xmlns="http://www.unidata.ucar.edu/namespaces/thredds/InvCatalog/v1.0"'
        f' xmlns:xlink="http://www.w3.org/1999/xlink" name="{SERVER}">',
        f'<service name="dap" serviceType="OPeNDAP" base={quoteattr(base)}/>',
        f"<dataset name={name} ID={name}>",
    ]
    for entry in entries:
        title = quoteattr(shown(entry.name))
        identity = quoteattr(shown(path + entry.name) + ("/" if entry.is_directory else ""))
        if entry.is_directory:
            target = quoteattr(entry.href + "catalog.xml")
            lines.append(
                f"<catalogRef name={title} xlink:title={title} xlink:href={target} ID={identity}/>"
            )
        elif entry.is_data:
            url = quoteattr(quote(os.fsencode(inside + entry.name)))
            size = "" if entry.size is None else f'<dataSize units="bytes">{entry.size}</dataSize>'
            date = (
                ""
                if entry.modified is None
                else f'<date type="modified">{entry.modified:%Y-%m-%dT%H:%M:%SZ}</date>'
            )
            lines.append(
                f"<dataset name={title} ID={identity} urlPath={url}>{size}{date}"
                "<serviceName>dap</serviceName></dataset>"
            )
    return "\n".join([*lines, "</dataset>", "</catalog>", ""]).encode()


def file_page(path: str, url: str, dataset: DatasetType, settings: Settings = DEFAULTS) -> bytes:
    """Return the HTML page of a data file: its variables, and the URL to give to DAP clients."""
    leaf = quote(os.fsencode(path.rsplit("/", 1)[-1]))
    links = " ".join(f'<a href="./{leaf}.{view}">{view}</a>' for view in _VIEWS[1:])
    rows = []
    for variable in walk(dataset, BaseType):
        shape = ", ".join(
            f"{dimension} = {length}"
            for dimension, length in zip(variable.dims, variable.shape, strict=True)
        )
        values = f'<a href="./{leaf}.ascii?{escape(variable.id)}">values</a>'
        rows.append(f"<tr><td>{escape(variable.id)}<td>{escape(shape)}<td>{values}</tr>")
    return page(
        shown(path),
        f"<p>Give DAP clients this URL:<br><code>{escape(url)}</code></p>\n"
        f'<p>{links} <a href="./{leaf}">download</a></p>\n'
        f"<table><tr><th>Variable<th>Dimensions<th></tr>{''.join(rows)}</table>",
        settings,
    )
