"""Pages of ListObjectsV2: their XML to Arrow columns, past botocore, which makes an object of every tag.

botocore reads what is left of an answer: whether there is more, tokens, errors.
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
from crawler.stores.values import size_column, size_of, tag_column, tag_of, time_column, time_of

EVENT = "before-parse.*.ListObjectsV2"
"""What botocore emits between an answer and its reading of it; `take_contents` is for it.

Of any service: so it comes before botocore's own handler, which parses each body of S3's to see whether it is an error.
"""

_TAKEN = "TakenContents"


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
    """
    columns = answer.get(_TAKEN)
    if columns is None:
        columns = _columns(answer.get("Contents") or ())
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

    An answer that is in any way unusual is left whole: botocore reads it, or says what is wrong.
    """
    if response_dict.get("status_code") != 200:
        return
    try:
        root = ET.fromstring(response_dict["body"])  # noqa: S314 - expat refuses to expand entities without bound
        columns = _taken(root)
    except (ET.ParseError, ValueError):
        return
    response_dict["body"] = ET.tostring(root)
    customized_response_dict[_TAKEN] = columns


def _taken(root: ET.Element) -> dict[str, Any]:
    namespace = root.tag[: root.tag.find("}") + 1]
    contents = root.findall(f"{namespace}Contents")
    root[:] = [child for child in root if child.tag != f"{namespace}Contents"]
    keys, sizes, etags, moments = (
        [entry.findtext(namespace + name) for entry in contents] for name in ("Key", "Size", "ETag", "LastModified")
    )
    if not all(keys):
        raise ValueError("an object without a key")
    if root.findtext(f"{namespace}EncodingType") == "url":
        # What botocore does too, whole pages of plain keys aside ("ListObjectsV2", Amazon S3 API Reference).
        keys = [unquote_plus(key) if "%" in key or "+" in key else key for key in keys if key]
    return {
        "key": keys,
        "size": size_column(pa.array(sizes, pa.string())),
        "etag": tag_column(pa.array(etags, pa.string())),
        "last_modified": pc.floor_temporal(time_column(pa.array(moments, pa.string())), unit="second"),
    }


def _columns(contents: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the columns of what botocore read."""
    moments = [second(entry.get("LastModified")) for entry in contents]
    return {
        "key": [entry["Key"] for entry in contents],
        "size": pa.array([size_of(entry.get("Size")) for entry in contents], pa.int64()),
        "etag": pa.array([tag_of(entry.get("ETag")) for entry in contents], pa.string()),
        "last_modified": pa.array(moments, pa.timestamp("us", "UTC")),
    }


def second(moment: object) -> datetime | None:
    """Return a time in whole seconds, as HTTP writes it, so that listings and answers agree."""
    known = time_of(moment)
    return None if known is None else known.replace(microsecond=0)
