"""Pages of ListObjectsV2: their XML to Arrow columns, past botocore, which makes an object of every tag.

botocore reads what is left of an answer: whether there is more, tokens, errors. An answer that is no page at all is
broken: botocore would take an empty one for an empty bucket.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import unquote_plus
from xml.etree import ElementTree as ET

import pyarrow as pa
import pyarrow.compute as pc

from crawler.stores.base import LISTING_SCHEMA
from crawler.stores.urls import one_line
from crawler.stores.values import size_column, size_of, tag_column, tag_of, time_column, time_of

EVENT = "before-parse.*.ListObjectsV2"
"""What botocore emits between an answer and its reading of it; `take_contents` is for it.

Of any service: so it comes before botocore's own handler, which parses each body of S3's to see whether it is an error.
"""

_TAKEN, _BROKEN = "TakenContents", "BrokenPage"
_PAGE = "ListBucketResult"
_MORE = ("IsTruncated", "NextContinuationToken")  # what botocore reads of a page


class Page(NamedTuple):
    """One answer to ListObjectsV2.

    Attributes
    ----------
    batch : RecordBatch
        Of `LISTING_SCHEMA`; may be empty.
    token : str or None
        What the next page is asked for with; None where the store says that this is the last.
    broken_off : bool
        The store says that there is more, and names no token for it.
    """

    batch: pa.RecordBatch
    token: str | None
    broken_off: bool = False


def page_of(bucket: str, answer: Mapping[str, Any]) -> Page:
    """Return the page that botocore's answer is of.

    Parameters
    ----------
    bucket : str
    answer : mapping
        With what `take_contents` put there, or with Contents where botocore is too old to emit `EVENT`.

    Raises
    ------
    ValueError
        It is no page; one line that says why.
    """
    if (broken := answer.get(_BROKEN)) is not None:
        raise ValueError(broken)
    columns = answer.get(_TAKEN)
    if columns is None:
        columns = _columns(answer.get("Contents") or ())
    if not all(columns["key"]):
        raise ValueError("an object without a key")
    urls = pa.array([f"s3://{bucket}/{key}" for key in columns["key"]], type=pa.string())
    arrays = [
        urls,
        columns["size"],
        columns["etag"],
        pa.nulls(len(urls), pa.string()),
        columns["last_modified"],
    ]
    more = bool(answer.get("IsTruncated"))
    token = (answer.get("NextContinuationToken") or None) if more else None
    return Page(pa.record_batch(arrays, schema=LISTING_SCHEMA), token, broken_off=more and token is None)


def take_contents(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
    """Take the objects out of an answer, and leave the rest of it to botocore.

    Errors are left to botocore, those with status 200 too.
    """
    if response_dict.get("status_code") != 200:
        return
    said: str | None
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - expat refuses to expand entities without bound
    except (ET.ParseError, ValueError, LookupError) as error:  # no XML, or in an encoding that nothing knows
        root, said = ET.Element(_PAGE), f"a page that is not XML ({one_line(str(error))})"
    else:
        said = _wrong(root)
    if root.tag.rpartition("}")[2] == "Error":
        return
    if said is None:
        customized_response_dict[_TAKEN] = _taken(root)
    else:
        customized_response_dict[_BROKEN] = said
    namespace = _namespace(root)
    root[:] = [child for name in _MORE if (child := root.find(namespace + name)) is not None]
    for child in root:
        child[:] = []  # parts that no page has, and that may be nested without end
    response_dict["body"] = ET.tostring(root)


def _wrong(root: ET.Element) -> str | None:
    """Say why an answer is no page of a listing; None where it is one."""
    name = root.tag.rpartition("}")[2]
    if name != _PAGE:
        return f"a page that is no {_PAGE} but {one_line(name, limit=64)}"
    more = root.find(f"{_namespace(root)}IsTruncated")
    if more is not None:
        more.text = (more.text or "").strip().lower()  # botocore knows the word true in small letters only
        if more.text not in ("true", "false"):
            return f"a page of which IsTruncated is {one_line(more.text, limit=64) or 'empty'}"
    return None


def _taken(root: ET.Element) -> dict[str, Any]:
    """Return the columns of a page."""
    namespace = _namespace(root)
    contents = root.findall(f"{namespace}Contents")
    keys, sizes, etags, moments = (
        [entry.findtext(namespace + name) for entry in contents] for name in ("Key", "Size", "ETag", "LastModified")
    )
    if root.findtext(f"{namespace}EncodingType") == "url":
        keys = [decode_key(key) for key in keys]
    return {
        "key": keys,
        "size": size_column(pa.array(sizes, pa.string())),
        "etag": tag_column(pa.array(etags, pa.string())),
        "last_modified": pc.floor_temporal(time_column(pa.array(moments, pa.string())), unit="second"),
    }


def _namespace(root: ET.Element) -> str:
    return root.tag[: root.tag.find("}") + 1]


def _columns(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of what botocore read."""
    moments = [second(entry.get("LastModified")) for entry in contents]
    return {
        "key": [entry.get("Key") for entry in contents],
        "size": pa.array([size_of(entry.get("Size")) for entry in contents], pa.int64()),
        "etag": pa.array([tag_of(entry.get("ETag")) for entry in contents], pa.string()),
        "last_modified": pa.array(moments, pa.timestamp("us", "UTC")),
    }


def decode_key(key: str | None) -> str | None:
    r"""Return a key that S3 wrote percent-encoded ("ListObjectsV2", encoding-type, Amazon S3 API Reference).

    Bytes that are no UTF-8, which S3 itself has in no key, become text such as ``\\xff``: each key has its own row.
    """
    return unquote_plus(key, errors="backslashreplace") if key and ("%" in key or "+" in key) else key


def second(moment: object) -> datetime | None:
    """Return a time in whole seconds, as HTTP writes it, so that listings and answers agree."""
    known = time_of(moment)
    return None if known is None else known.replace(microsecond=0)
