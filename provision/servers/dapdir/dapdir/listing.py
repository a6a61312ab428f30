"""Makes HTML listings and THREDDS catalogs of directories, and an HTML page per data file."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from http import HTTPStatus
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from . import SERVER
from .bodies import Rows, Segments, Text
from .errors import RequestError
from .model import Dataset
from .names import dap_string
from .settings import DEFAULTS, Settings
from .tree import Found, shown

DAP = ("dds", "das", "dods", "ascii", "asc")
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


def entry_of(found: Found, directory: int, settings: Settings = DEFAULTS) -> Entry:
    """Describe an entry of an open directory.

    Only files are examined further: a directory may be the mount point of a file server that does
    not answer.
    """
    name, kind = found
    is_data = settings.is_data(name)
    if kind == "l":
        # Following the link could hang too: the name alone decides.
        return Entry(name, not is_data and "." not in name, is_data)
    if kind == "d":
        return Entry(name, is_directory=True)
    try:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        modified = datetime.fromtimestamp(status.st_mtime, UTC)
        return Entry(name, False, is_data, status.st_size, modified)
    except (OSError, ValueError, OverflowError):
        return Entry(name, False, is_data)


def _head(title: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)} - {SERVER}</title><style>{_STYLE}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n"
    )


def _foot(settings: Settings) -> str:
    email = escape(settings.email)
    contact = f' &middot; administrator: <a href="mailto:{email}">{email}</a>' if email else ""
    return f"\n<footer>{SERVER} &middot; DAP2{contact}</footer></body></html>\n"


def page(title: str, body: str, settings: Settings = DEFAULTS) -> bytes:
    """Return a complete HTML page; `title` is text, `body` is HTML."""
    return f"{_head(title)}{body}{_foot(settings)}".encode()


def error_page(path: str, error: RequestError, settings: Settings) -> tuple[str, str, bytes]:
    """Return content type, description and body: a DAP2 Error for a DAP2 URL, else HTML."""
    if path.rpartition(".")[2] in DAP:
        message = dap_string(error.message)
        text = f"Error {{\n    code = {error.status};\n    message = {message};\n}};\n"
        return "text/plain; charset=utf-8", "dods_error", text.encode()
    title = f"{error.status} {HTTPStatus(error.status).phrase}"
    return "text/html; charset=utf-8", "", page(title, f"<p>{escape(error.message)}</p>", settings)


def directory_page(
    path: str, count: int, entry: Callable[[int], Entry], settings: Settings = DEFAULTS
) -> Segments:
    """Return the HTML listing of the directory with URL path `path` ("/" at both ends)."""
    head = f'{_head(f"Contents of {shown(path)}")}<table><tr><th>Name<th class="n">Size'
    head += '<th class="n d">Modified (UTC)<th>Open as</tr>\n'
    if path != "/":
        head += '<tr><td><a href="../">../</a><td><td class="d"><td></tr>\n'
    foot = f'</table><p><a href="catalog.xml">THREDDS catalog</a></p>{_foot(settings)}'
    rows = Rows(count, lambda number: _row(entry(number)))
    return Segments([Text(head.encode()), rows, Text(foot.encode())])


def _row(entry: Entry) -> str:
    size = "" if entry.size is None else f"{entry.size:,}"
    date = "" if entry.modified is None else f"{entry.modified:%Y-%m-%d %H:%M:%S}"
    views, href = _VIEWS if entry.is_data else (), entry.href
    links = " ".join(f'<a href="{href}.{view}">{view}</a>' for view in views)
    name = escape(shown(entry.name)) + ("/" if entry.is_directory else "")
    return (
        f'<tr><td><a href="{href}{".html" if entry.is_data else ""}">{name}</a>'
        f'<td class="n">{size}<td class="n d">{date}<td>{links}</tr>\n'
    )


def catalog(base: str, path: str, count: int, entry: Callable[[int], Entry]) -> Segments:
    """Return a directory's THREDDS catalog (InvCatalog 1.0); `base` is the service's URL path."""
    name = quoteattr(shown(path))
    head = (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<catalog xmlns="http://www.unidata.ucar.edu/namespaces/thredds/InvCatalog/v1.0"'
        f' xmlns:xlink="http://www.w3.org/1999/xlink" name="{SERVER}">\n'
        f'<service name="dap" serviceType="OPeNDAP" base={quoteattr(base)}/>\n'
        f"<dataset name={name} ID={name}>\n"
    )
    rows = Rows(count, lambda number: _catalogued(path, entry(number)))
    return Segments([Text(head.encode()), rows, Text(b"</dataset>\n</catalog>\n")])


def _catalogued(path: str, entry: Entry) -> str:
    title = quoteattr(shown(entry.name))
    identity = quoteattr(shown(path + entry.name) + ("/" if entry.is_directory else ""))
    if entry.is_directory:
        target = quoteattr(entry.href + "catalog.xml")
        return f"<catalogRef name={title} xlink:title={title} xlink:href={target} ID={identity}/>\n"
    if not entry.is_data:
        return ""
    url = quoteattr(quote(os.fsencode(path.lstrip("/") + entry.name)))
    size = "" if entry.size is None else f'<dataSize units="bytes">{entry.size}</dataSize>'
    date = (
        ""
        if entry.modified is None
        else f'<date type="modified">{entry.modified:%Y-%m-%dT%H:%M:%SZ}</date>'
    )
    # As Hyrax writes it: siphon finds only datasets with an element `access`.
    return (
        f"<dataset name={title} ID={identity} urlPath={url}>{size}{date}"
        f'<serviceName>dap</serviceName><access serviceName="dap" urlPath={url}/></dataset>\n'
    )


def file_page(path: str, url: str, dataset: Dataset, settings: Settings = DEFAULTS) -> bytes:
    """Return the HTML page of a data file: its variables, and the URL to give to DAP clients."""
    leaf = quote(os.fsencode(path.rsplit("/", 1)[-1]))
    links = " ".join(f'<a href="./{leaf}.{view}">{view}</a>' for view in _VIEWS[1:])
    rows = []
    for array in dataset.arrays():
        lengths = zip(array.dims, array.shape, strict=True)
        shape = ", ".join(f"{dimension} = {length}" for dimension, length in lengths)
        values = f'<a href="./{leaf}.ascii?{escape(quote(array.id))}">values</a>'
        rows.append(f"<tr><td>{escape(array.id)}<td>{escape(shape)}<td>{values}</tr>")
    return page(
        shown(path),
        f"<p>Give DAP clients this URL:<br><code>{escape(url)}</code></p>\n"
        f'<p>{links} <a href="./{leaf}">download</a></p>\n'
        f"<table><tr><th>Variable<th>Dimensions<th></tr>{''.join(rows)}</table>",
        settings,
    )
