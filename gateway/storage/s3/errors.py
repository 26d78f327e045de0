"""Maps what S3, its library and the network raise to refusals, in one place.

A client learns whether to try again, the operator learns why, and neither sees a credential. A defect
of the gateway passes unchanged and becomes a 500.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from typing import Final

from gateway.errors import GatewayError, Refusal
from gateway.telemetry.logs import event

UNAVAILABLE: Final = "storage_unavailable"

NO_CREDENTIALS: Final = (
    "there are no credentials for the storage: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY,"
    " a profile (AWS_PROFILE), or give this machine a role"
)
_TRY_LATER: Final = "the storage cannot be reached now; try again a little later"
_SEE_LOG: Final = "the storage did not accept the request; the server log says why"

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

OPERATOR_HINTS: Mapping[str, str] = {
    "AccessDenied": "the credentials may not do this: docs/how-to/run-on-s3.md lists the rights",
    "403": "the credentials may not do this, or are wrong, or this machine's clock is",
    "InvalidAccessKeyId": "AWS_ACCESS_KEY_ID is not known there",
    "SignatureDoesNotMatch": "AWS_SECRET_ACCESS_KEY is wrong",
    "RequestTimeTooSkewed": "the clock of this machine or of the storage is wrong",
    "ExpiredToken": "the temporary credentials have expired",
    "InvalidToken": "AWS_SESSION_TOKEN is wrong",
    "NoSuchBucket": "make the bucket, or name another one in --storage",
    "NoSuchUpload": "the parts of an unfinished upload are gone: a lifecycle rule that aborts multipart"
    " uploads must leave them 7 days",
    "AuthorizationHeaderMalformed": "the bucket is in another region: set AWS_REGION",
    "PermanentRedirect": "the bucket is in another region: set AWS_REGION",
    "IllegalLocationConstraintException": "the bucket is in another region: set AWS_REGION",
}
"""What only the operator can correct, and how; the client is asked to come back."""

log = logging.getLogger("gateway.storage")


@contextlib.contextmanager
def as_refusals(operation: str) -> Iterator[None]:
    """Raise `Refusal` for whatever S3, its library or the network raises inside.

    `operation` names what is tried, for the log (`"reading /upload/a.bin"`). `GatewayError`s pass.
    """
    try:
        yield
    except GatewayError:
        raise
    except Exception as error:
        refusal = refusal_of(error, operation)
        if refusal is None:
            raise
        raise refusal from error


def refusal_of(error: Exception, operation: str) -> Refusal | None:
    """Return a client's refusal, None for no error of S3 or the network; log what the operator needs."""
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return _refusal_of_response(error, operation)
    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return no_credentials(operation)
    if isinstance(error, exceptions.ParamValidationError):
        return None
    if is_unavailable(error) or isinstance(error, exceptions.BotoCoreError):
        reason = f"{type(error).__name__}: {error}"[:500]
        log.warning(
            "%s failed: the storage cannot be reached: %s",
            operation,
            reason,
            extra=event("storage.unavailable", operation=operation, reason=reason),
        )
        return Refusal(UNAVAILABLE, _TRY_LATER)
    return None


def is_unavailable(error: BaseException) -> bool:
    """Tell whether it is unknown if the request was done: no response came, or one in 5xx."""
    import aiohttp
    from botocore import exceptions

    if isinstance(error, exceptions.ClientError):
        return status_of(error) >= 500
    return isinstance(
        error, exceptions.HTTPClientError | exceptions.ConnectionError | aiohttp.ClientError | OSError
    )


def no_credentials(operation: str) -> Refusal:
    """Return the refusal for want of credentials, and log how to give some."""
    log.error(
        "%s failed: %s",
        operation,
        NO_CREDENTIALS,
        extra=event("storage.refused", operation=operation, code="NoCredentials"),
    )
    return Refusal(UNAVAILABLE, _SEE_LOG)


def code_of(error: BaseException) -> str:
    """Return the code of a response of S3 (`NoSuchKey`), an empty text for any other error."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def status_of(error: BaseException) -> int:
    """Return the HTTP status of a response of S3, 0 where there was none."""
    response = getattr(error, "response", None)
    metadata = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    return int(metadata.get("HTTPStatusCode", 0))


def _refusal_of_response(error: Exception, operation: str) -> Refusal:
    code, status = code_of(error), status_of(error)
    if code in _BY_CODE:
        gateway_code, message = _BY_CODE[code]
        return Refusal(gateway_code, message)
    if code in OPERATOR_HINTS or status == 403:
        hint, refusal = OPERATOR_HINTS.get(code, OPERATOR_HINTS["403"]), Refusal(UNAVAILABLE, _SEE_LOG)
    elif status >= 500 or status in {408, 409, 429} or code == "SlowDown":
        hint, refusal = "clients are asked to try again", Refusal(UNAVAILABLE, _TRY_LATER)
    else:
        hint = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))[:500]
        refusal = Refusal("internal", _SEE_LOG)
    log.log(
        logging.WARNING if refusal.message == _TRY_LATER else logging.ERROR,
        "%s failed: the storage says %s (%d): %s",
        operation,
        code,
        status,
        hint,
        extra=event("storage.refused", operation=operation, code=code, status=status),
    )
    return refusal
