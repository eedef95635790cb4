"""An S3 of buckets on 127.0.0.1 that can only be listed and read, whatever its keys are and however large.

No key is odd to it, a file of holes is an object as good as any, and nobody has to wait until thousands are put. Who
asks is all the same to it; for which region, if it is told to look.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import parse_qs, quote, unquote
from xml.sax.saxutils import escape

from tests.servers import LAST_MODIFIED, Content, RangeHandler, RangeServer, Request, etag_of

PAGE = 1_000
_CODES = {403: "AccessDenied", 404: "NoSuchKey", 412: "PreconditionFailed", 416: "InvalidRange"}
_LISTED_MODIFIED = parsedate_to_datetime(LAST_MODIFIED).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class BucketHandler(RangeHandler):
    """Answers as "GetObject", "HeadObject" and "ListObjectsV2" of the Amazon S3 API Reference say."""

    def answer(self) -> None:
        path, _, query = self.path.partition("?")
        if self.server.owner.is_elsewhere(self.asked):
            self._redirect()
        elif "list-type=2" in query:
            asked = {name: values[0] for name, values in parse_qs(query).items()}
            self.send(200, self._page(path.strip("/"), asked).encode(), {"Content-Type": "application/xml"})
        elif path.count("/") == 1:
            self.send(200, b"", {"x-amz-bucket-region": self.server.owner.region or ""})
        else:
            super().answer()

    def _redirect(self) -> None:
        """Say that the request is for another region, in one of the ways that S3 has ("Error responses")."""
        status, code, told = self.server.owner.refusal
        headers = {"Content-Type": "application/xml"}
        region = ""
        if told and (status == 301 or self.command == "HEAD"):
            headers["x-amz-bucket-region"] = told
        elif told:
            region = f"<Region>{told}</Region>"
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>no</Message>{region}</Error>'
        super().send(status, body.encode(), headers)

    def send(self, status: int, body: Content, headers: Any, length: int | None = None) -> None:
        if status >= 400:
            body = f'<?xml version="1.0"?><Error><Code>{_CODES[status]}</Code><Message>no</Message></Error>'.encode()
            headers = {**headers, "Content-Type": "application/xml"}
        super().send(status, body, headers, length)

    def _page(self, bucket: str, asked: dict[str, str]) -> str:
        """Return a page of keys, in the order of their bytes."""
        objects = self.server.owner.objects
        prefix, after = asked.get("prefix", ""), unquote(asked.get("continuation-token", ""))
        keys = sorted(name.removeprefix(f"{bucket}/") for name in list(objects) if name.startswith(f"{bucket}/"))
        keys = [key for key in keys if key.startswith(prefix) and key > after]
        page = keys[:PAGE]
        entries = "".join(_entry(key, objects[f"{bucket}/{key}"]) for key in page)
        more = f"<NextContinuationToken>{quote(page[-1])}</NextContinuationToken>" if len(keys) > PAGE else ""
        return (
            '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>{bucket}</Name><EncodingType>url</EncodingType><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
            f"{more}{entries}</ListBucketResult>"
        )


def _entry(key: str, data: Content) -> str:
    return (
        f"<Contents><Key>{quote(key)}</Key><LastModified>{_LISTED_MODIFIED}</LastModified>"
        f"<ETag>{escape(etag_of(data))}</ETag><Size>{len(data)}</Size></Contents>"
    )


class BucketServer(RangeServer):
    """Serves ``objects``, whose names are those of a bucket, a slash and the key. See `RangeServer`.

    Attributes
    ----------
    region : str or None
        What is signed for another one is refused; None takes whatever is signed, or is not.
    refusal : tuple[int, str, str]
        Status and error code that say so, and the region that they name; none if that is empty.
    """

    handler = BucketHandler

    def __init__(self, objects: MutableMapping[str, Any] | None = None) -> None:
        super().__init__(objects)
        self.region: str | None = None
        self.refusal = (301, "PermanentRedirect", "")

    def is_elsewhere(self, asked: Request) -> bool:
        """Tell whether a request is for another region than that of the buckets."""
        return self.region is not None and region_of(asked) != self.region


def region_of(asked: Request) -> str | None:
    """Return the region that a request is signed for."""
    scope = asked.headers.get("authorization", "").partition("Credential=")[2].split("/")
    return scope[2] if len(scope) > 2 else None
