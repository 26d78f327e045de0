"""S3 room: what S3 says is wrong, in our own words, in one place.

One rule: a client learns whether to try again, the operator learns why, and neither sees a
credential. What is nobody's fault but our own stays as it is and becomes a 500.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.errors import GatewayError, Refusal

UNAVAILABLE: Final = "storage_unavailable"

NO_CREDENTIALS: Final = (
    "there are no credentials for the storage: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " a profile (AWS_PROFILE), or give this machine a role"
)
_AGAIN: Final = "the storage cannot be reached now; try again a little later"
_ODD: Final = "the storage did not take the request; its operator knows why"

_BY_CODE: Mapping[str, tuple[str, str]] = {
    "NoSuchKey": ("not_found", "there is no such file"),
    "404": ("not_found", "there is no such file"),
    "PreconditionFailed": ("precondition_failed", "the file is not as the request demands"),
    "412": ("precondition_failed", "the file is not as the request demands"),
    "EntityTooLarge": ("too_large", "the storage does not take files of this size"),
    "KeyTooLongError": ("bad_path", "the path is too long for the storage"),
    "MetadataTooLarge": ("bad_request", "the metadata is too large for the storage"),
    "BadDigest": ("digest_mismatch", "the storage got other bytes than were sent"),
    "InvalidDigest": ("bad_digest", "the storage cannot read the digest"),
    "InvalidRange": ("bad_range", "the range lies outside the file"),
    "416": ("bad_range", "the range lies outside the file"),
    "QuotaExceeded": ("no_space", "the storage is full"),
    "InsufficientCapacity": ("no_space", "the storage is full"),
    "XMinioStorageFull": ("no_space", "the storage is full"),
}
"""Codes of Amazon S3 (API reference, "Error responses"), Ceph and MinIO; numbers are those of HEAD."""

FOR_THE_OPERATOR: Mapping[str, str] = {
    "AccessDenied": "the credentials may not do this: docs/how-to/run-on-s3.md lists the rights",
    "403": "the credentials may not do this, or are wrong, or this machine's clock is",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong",
    "RequestTimeTooSkewed": "the clock of this machine or of the storage is wrong",
    "ExpiredToken": "the temporary credentials have expired",
    "InvalidToken": "AWS_SESSION_TOKEN is wrong",
    "NoSuchBucket": "make the bucket, or name another one in --storage",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_REGION",
}
"""What only the operator can mend, and how; the client is asked to come back."""

log = logging.getLogger("gateway.storage")


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise `Refusal` for whatever S3, its library or the network raises inside.

    `doing` says what was tried, for the log (`"reading /upload/a.bin"`). Errors of ours pass.
    """
    try:
        yield
    except GatewayError:
        raise
    except Exception as fault:
        refusal = refusal_of(fault, doing)
        if refusal is None:
            raise
        raise refusal from fault


def refusal_of(fault: Exception, doing: str) -> Refusal | None:
    """Return what a client is told of `fault`, and log what the operator must know.

    None for what is neither of S3 nor of the network.
    """
    from botocore import exceptions

    if isinstance(fault, exceptions.ClientError):
        return _answered(fault, doing)
    if isinstance(fault, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return no_credentials(doing)
    if isinstance(fault, exceptions.ParamValidationError):
        return None
    if is_unavailable(fault) or isinstance(fault, exceptions.BotoCoreError):
        log.warning("%s: the storage is away: %s", doing, _words(fault))
        return Refusal(UNAVAILABLE, _AGAIN)
    return None


def is_unavailable(fault: BaseException) -> bool:
    """Tell whether nobody can say if the request was done: no answer came, or one in 5xx."""
    import aiohttp
    from botocore import exceptions

    if isinstance(fault, exceptions.ClientError):
        return status_of(fault) >= 500
    return isinstance(
        fault, exceptions.HTTPClientError | exceptions.ConnectionError | aiohttp.ClientError | OSError
    )


def no_credentials(doing: str) -> Refusal:
    """Return the refusal for want of credentials, and tell the operator how to give some."""
    log.error("%s: %s", doing, NO_CREDENTIALS)
    return Refusal(UNAVAILABLE, _ODD)


def code_of(fault: BaseException) -> str:
    """Return the code of an answer of S3 (`NoSuchKey`), or an empty text for any other fault."""
    response = getattr(fault, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status_of(fault: BaseException) -> int:
    """Return the HTTP status of an answer of S3, 0 where there was none."""
    response = getattr(fault, "response", None)
    found = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return int(found.get("HTTPStatusCode", 0))


def _answered(fault: Exception, doing: str) -> Refusal:
    code, status = code_of(fault), status_of(fault)
    if code in _BY_CODE:
        ours, message = _BY_CODE[code]
        return Refusal(ours, message)
    if code in FOR_THE_OPERATOR or status == 403:
        log.error(
            "%s: the storage says %s: %s",
            doing,
            code,
            FOR_THE_OPERATOR.get(code, FOR_THE_OPERATOR["403"]),
        )
        return Refusal(UNAVAILABLE, _ODD)
    if status >= 500 or status in {408, 409, 429} or code == "SlowDown":
        log.warning("%s: the storage says %s (%d)", doing, code, status)
        return Refusal(UNAVAILABLE, _AGAIN)
    log.error("%s: the storage says %s (%d): %s", doing, code, status, _said(fault))
    return Refusal("internal", _ODD)


def _said(fault: BaseException) -> str:
    response = getattr(fault, "response", {})
    return str(response.get("Error", {}).get("Message", ""))[:500]


def _words(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}"[:500]
