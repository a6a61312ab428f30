"""Stores as they are: a front before rclone that refuses what a table says, as real ones do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import http.server
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit

from tests.unit.release.shop import Shop
from tests.unit.store.loopback import running

Refusal = tuple[int, str]  # HTTP status and error code
DIGESTS = "x-amz-(checksum-|sdk-checksum-).*"
CONDITIONS = "if-(none-)?match"


@dataclass(frozen=True)
class Rules:
    """How a store differs from rclone, which knows neither conditions nor checksums."""

    refused: dict[str, Refusal] = field(default_factory=dict)  # header's pattern -> the answer
    operations: dict[str, Refusal] = field(default_factory=dict)  # "POST delete" -> the answer
    checks: bool = False  # compares x-amz-checksum-sha256 with the body
    conditions: bool = False  # keeps If-Match and If-None-Match
    opaque: bool = False  # ETags are no MD5
    silent: bool = False  # HEAD does not say how long an object is


UNKNOWN = (501, "NotImplemented")
INVALID = (400, "InvalidArgument")
# From the documents and bug reports of each.
STORES = {
    "AWS S3": Rules(checks=True, conditions=True),
    # Unsupported header 'x-amz-checksum-sha256' received for this API call.
    "Backblaze B2": Rules(refused={DIGESTS: INVALID}, conditions=True),
    "Backblaze B2 of before conditions": Rules(refused={DIGESTS: INVALID, CONDITIONS: UNKNOWN}),
    "MinIO of before 2025": Rules(
        checks=True, conditions=True, operations={"POST delete": (400, "MissingContentMD5")}
    ),
    "PowerScale": Rules(operations={"POST delete": (400, "MissingContentMD5")}),
    # Conditions are on generations; ?delete is "Cannot create buckets using a POST".
    "Google's interoperability": Rules(
        refused={CONDITIONS: INVALID},
        operations={"POST delete": INVALID, "GET uploads": UNKNOWN},
    ),
    "Cloudflare R2": Rules(conditions=True, checks=True, refused={"x-amz-sdk-.*": UNKNOWN}),
    "Alibaba OSS": Rules(refused={CONDITIONS: UNKNOWN}),
    "Ceph that encrypts": Rules(opaque=True),
    "a gateway that says no lengths": Rules(silent=True, refused={CONDITIONS: (400, "BadRequest")}),
}


@contextlib.contextmanager
def fronted(shop: Shop, rules: Rules) -> Iterator[str]:
    """Yield the URL of a store with these rules, which has the objects of `shop`."""

    class Front(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            refusal = self._refusal(body)
            if refusal:
                status, code = refusal
                text = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
                self._send(status, {"Content-Type": "application/xml"}, text)
                return
            upstream = http.client.HTTPConnection("127.0.0.1", shop.server.port, timeout=60)
            upstream.request(self.command, self.path, body, dict(self.headers.items()))
            got = upstream.getresponse()
            data = got.read()
            kept = {
                name: value
                for name, value in got.getheaders()
                if name.lower() not in ("transfer-encoding", "connection", "content-length")
            }
            length = got.headers.get("Content-Length", str(len(data)))
            etag = got.headers.get("ETag", "")
            if etag and rules.opaque and "partNumber" not in self.path:
                kept = {name: value for name, value in kept.items() if name.lower() != "etag"}
                kept["ETag"] = f'"{hashlib.sha1(etag.encode()).hexdigest()[:32]}"'
            if not (rules.silent and self.command == "HEAD"):
                kept["Content-Length"] = length
            self._send(got.status, kept, data)
            upstream.close()

        def _send(self, status: int, headers: dict[str, str], data: bytes) -> None:
            self.send_response(status)
            if self.command != "HEAD" and status != 204:
                headers = {**headers, "Content-Length": str(len(data))}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _refusal(self, body: bytes) -> Refusal | None:
            url = urlsplit(self.path)
            query = parse_qs(url.query, keep_blank_values=True)
            for operation, refusal in rules.operations.items():
                method, word = operation.split()
                if self.command == method and word in query:
                    return refusal
            for pattern, refusal in rules.refused.items():
                for name in self.headers:
                    if re.fullmatch(pattern, name.lower()):
                        return refusal
            said = self.headers.get("x-amz-checksum-sha256")
            sha256 = hashlib.sha256(body).digest()
            if rules.checks and said and base64.b64decode(said) != sha256:
                return (400, "BadDigest")
            md5 = self.headers.get("Content-MD5")
            if md5 and base64.b64decode(md5) != hashlib.md5(body).digest():
                return (400, "BadDigest")
            if rules.conditions and self.command == "PUT":
                path = shop.server.folder / unquote(url.path).lstrip("/")
                there = hashlib.md5(path.read_bytes()).hexdigest() if path.is_file() else ""
                wanted = self.headers.get("If-Match", "").strip('"')
                if (self.headers.get("If-None-Match") and there) or (wanted and wanted != there):
                    return (412, "PreconditionFailed")
            return None

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    with running(Front) as url:
        yield url
