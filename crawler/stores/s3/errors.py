"""What a failure of S3 means, in one line each: told by its error code, whichever library met it.

The codes are of "Error responses" in the Amazon S3 API Reference. Only the code and words of our own are shown: bodies
and texts of libraries hold request ids, whole URLs and signatures.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import aiohttp
import botocore.exceptions as bc
from botocore.parsers import ResponseParserError

from crawler.errors import ArchivedError, CredentialsExpiredError, ObjectChangedError, StoreError, StoreUnavailableError
from crawler.stores.errors import (
    advised,
    denied,
    failed,
    from_os_error,
    from_status,
    missing,
    overlong,
    range_ignored,
    unavailable,
)
from crawler.stores.http.aiohttp_transport import from_client_error
from crawler.stores.obstore import from_obstore
from crawler.stores.s3.transport import OverlongAnswerError
from crawler.stores.urls import one_line, printable

NO_CREDENTIALS = (
    "no AWS credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
    "or read public data with --anon"
)
NOT_REFRESHED = "AWS credentials could not be refreshed"
_WRONG_REGION = "bucket is in another region, which could not be found out: set AWS_REGION"
_MOVED = ("PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
_BUSY = ("SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "ServiceUnavailable")
_EXPIRED = "AWS credentials have expired: get new ones"
_UNKNOWN_KEY = "access key id is not known to this store: check it, or the profile and --endpoint-url"


def _archived(url: str, said: str) -> StoreError:
    return ArchivedError(printable(url), said)


def _expired(url: str, said: str) -> StoreError:
    return CredentialsExpiredError(printable(url), said)


_MEANINGS: Mapping[str, tuple[Callable[[str, str], StoreError], str]] = {
    "NoSuchBucket": (missing, "no such bucket: check its name and --endpoint-url"),
    "NoSuchKey": (missing, "no such object"),
    "NoSuchVersion": (missing, "no such object"),
    "MethodNotAllowed": (missing, "object was deleted"),  # what a delete marker answers
    "InvalidAccessKeyId": (denied, _UNKNOWN_KEY),
    "InvalidClientTokenId": (denied, _UNKNOWN_KEY),
    "SignatureDoesNotMatch": (denied, "secret access key is wrong: check it, or the profile"),
    **dict.fromkeys(("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"), (_expired, _EXPIRED)),
    "InvalidToken": (denied, "session token is wrong"),
    "AccountProblem": (denied, "account has a problem"),
    "InvalidPayer": (denied, "account that should pay is disabled"),
    "RequestTimeTooSkewed": (denied, "clock of this computer is wrong"),
    "InvalidObjectState": (_archived, "archived: restore it before it can be read"),
    "InvalidBucketName": (failed, "is not a name that S3 knows"),
    "InvalidURI": (failed, "is not a name that S3 knows"),
    **dict.fromkeys(_MOVED, (failed, _WRONG_REGION)),
    **dict.fromkeys(_BUSY, (partial(unavailable, kind="slow-down"), "store is busy")),
    "RequestTimeout": (partial(unavailable, kind="time-out"), "timed out"),  # told with 400
}
_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,32})</Region>")
_STATUS = re.compile(r"status code: (\d{3})")
_CAUSES = (
    ((bc.ReadTimeoutError, bc.ConnectTimeoutError, TimeoutError), "timed out", "time-out"),
    (bc.SSLError, "certificate or TLS error", "tls"),
    (bc.ConnectionClosedError, "answer was cut short", "reset"),
    ((bc.ResponseStreamingError, bc.IncompleteReadError), "answer was cut short", "short-body"),
    (ResponseParserError, "answer is not one of S3", "short-body"),
)
FENCE = "127.0.0.1:0"
"""Address of a proxy that there cannot be. obstore follows redirects with the session token of the credentials, and has
no option not to; so it is told that all other hosts are reached through this proxy."""

_BARE_REDIRECT = "redirect without LOCATION"


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked when it failed: the advice depends on it.

    Attributes
    ----------
    anon : bool
        Without a signature.
    requester_pays : bool
    listing : bool
        A listing, else one object.
    session : bool
        With a session token.
    """

    anon: bool
    requester_pays: bool
    listing: bool = False
    session: bool = False


def from_code(url: str, code: str, status: int | None, asked: Asked, retry_after: object = None) -> StoreError:
    """Return the error that S3's error code means for ``url``.

    Parameters
    ----------
    url : str
    code : str
        Empty where the answer had no body, as those to HEAD have none.
    status : int or None
        Of HTTP.
    asked : Asked
    retry_after : object
        See `crawler.stores.errors.advised`.
    """
    shown = one_line(f"{status or ''} {code}".strip(), limit=80)
    if code in _MEANINGS:
        meaning, said = _MEANINGS[code]
        mapped = meaning(url, f"{said} ({shown})")
        return advised(mapped, retry_after) if isinstance(mapped, StoreUnavailableError) else mapped
    if status == HTTPStatus.MOVED_PERMANENTLY:
        return failed(url, f"{_WRONG_REGION} ({shown})")
    if status == HTTPStatus.FORBIDDEN or code in ("AccessDenied", "AllAccessDisabled"):
        return _forbidden(url, shown, asked)
    if status is None:
        return failed(url, f"store said {shown or 'nothing'}")
    mapped = from_status(url, status, retry_after)
    plain = not code or isinstance(mapped, ObjectChangedError)
    return mapped if plain else _with_code(mapped, one_line(code, limit=64))


def _with_code(mapped: StoreError, code: str) -> StoreError:
    reason = f"{mapped.reason} ({code})"
    if isinstance(mapped, StoreUnavailableError):
        return StoreUnavailableError(mapped.url, reason, mapped.kind, mapped.retry_after)
    return type(mapped)(mapped.url, reason)


def _forbidden(url: str, shown: str, asked: Asked) -> StoreError:
    said = "listing not allowed" if asked.listing else "access denied"
    advice = []
    if asked.anon:
        said += " without credentials"
    elif not asked.requester_pays:
        advice.append("if the requester is to pay, say --requester-pays")
    if asked.session:  # Ceph says no more of one that has expired
        advice.append("if the session has expired, begin a new one")
    if asked.listing:
        advice.append("if only listing is denied, name the keys in a key file")
    return denied(url, f"{said} ({shown})" + (": " + "; ".join(advice) if advice else ""))


def from_botocore(url: str, error: Exception, asked: Asked) -> StoreError:  # noqa: PLR0911 - one for each kind
    """Return the error that one of botocore, aiobotocore or s3fs means for ``url``."""
    # s3fs turns errors of the store into OSError, and keeps them as the cause.
    for one in (error, error.__cause__):
        if isinstance(one, bc.ClientError):
            answer = one.response
            told = answer.get("ResponseMetadata", {})
            status, retry_after = told.get("HTTPStatusCode"), told.get("HTTPHeaders", {}).get("retry-after")
            code = str(answer.get("Error", {}).get("Code") or "")
            return from_code(url, "" if code.isdigit() else code, status, asked, retry_after)
    if (said := _of_credentials(error)) is not None:
        return denied(url, said)
    if isinstance(error, OverlongAnswerError):
        return overlong(url, int(error.kwargs["limit"]))
    for kinds, cause, kind in _CAUSES:
        if isinstance(error, kinds):
            return unavailable(url, cause, kind)
    # The cause of what could not connect, or broke off, is of aiohttp, under one name or another.
    inner = getattr(error, "kwargs", {}).get("error")
    for one in (error, inner, error.__cause__):
        if isinstance(one, aiohttp.ClientError):
            return from_client_error(url, one)
    if isinstance(error, OSError) and not isinstance(error, bc.BotoCoreError):
        return from_os_error(url, error)
    meaning = unavailable if isinstance(error, bc.HTTPClientError) and not isinstance(inner, UnicodeError) else failed
    return meaning(url, _of_settings(error, inner) or f"cannot be asked for ({type(error).__name__})")


def at_endpoint(mapped: StoreUnavailableError, endpoint: str) -> StoreUnavailableError:
    """Return an error of a server that never answered with the server's address, and what to check."""
    said = f"{mapped.reason} ({printable(endpoint)}): check --endpoint-url and the network"
    return StoreUnavailableError(mapped.url, said, mapped.kind)


def _of_settings(error: Exception, inner: object) -> str | None:
    if isinstance(inner, UnicodeError):
        return "answer has a header that is not UTF-8"
    if isinstance(error, bc.ParamValidationError):
        return "is not a name that S3 knows"
    if isinstance(error, bc.InvalidRegionError):
        return "no region has this name: check --region or AWS_REGION"
    if isinstance(error, ValueError) and "Invalid endpoint" in str(error):
        return "endpoint is no URL: --endpoint-url begins with http:// or https://"
    return None


def _of_credentials(error: Exception) -> str | None:
    if isinstance(error, bc.NoCredentialsError):
        return NO_CREDENTIALS
    if isinstance(error, bc.PartialCredentialsError):
        return "AWS credentials are not whole: both key and secret are needed"
    if isinstance(error, bc.ProfileNotFound):
        return f"no AWS profile {one_line(str(error.kwargs.get('profile')), limit=64)}"
    if isinstance(error, (bc.CredentialRetrievalError, bc.MetadataRetrievalError, bc.RefreshWithMFAUnsupportedError)):
        return f"{NOT_REFRESHED} ({type(error).__name__})"
    if isinstance(error, (bc.SSOError, bc.TokenRetrievalError)):  # an expired login
        return f"{NOT_REFRESHED}: log in again, as with aws sso login ({type(error).__name__})"
    return None


def from_s3_obstore(url: str, error: Exception, asked: Asked) -> StoreError:
    """Return the error that one of obstore's S3Store means for ``url``."""
    said = str(error)
    if "credential provider" in said.partition("\n")[0]:
        return denied(url, NOT_REFRESHED)
    if is_range_ignored(error):
        return range_ignored(url)
    if FENCE in said:
        return failed(url, "store redirects to another server, which is not followed")
    if _BARE_REDIRECT in said:
        return from_code(url, "", HTTPStatus.MOVED_PERMANENTLY, asked)
    status = _STATUS.search(said)
    if status is None:
        return from_obstore(url, error)
    code = _CODE.search(said)
    return from_code(url, code[1] if code else "", int(status[1]), asked)


def status_of(error: Exception) -> int | None:
    """Return the HTTP status of an error of obstore's."""
    status = _STATUS.search(str(error))
    return int(status[1]) if status else None


def is_range_ignored(error: Exception) -> bool:
    """Tell whether an error of obstore's says that the whole object was the answer to a range."""
    return "non-partial response" in str(error)


def is_wrong_region(error: Exception) -> bool:
    """Tell whether an error of obstore's says that the bucket is in another region."""
    code = _CODE.search(str(error))
    return _BARE_REDIRECT in str(error) or (code is not None and code[1] in _MOVED)


def named_region(error: Exception) -> str | None:
    """Return the region that an error of obstore's names."""
    region = _REGION.search(str(error))
    return region[1] if region else None
