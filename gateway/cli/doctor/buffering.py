"""Checks that a proxy in front passes the bodies of uploads on while they come."""

from __future__ import annotations

import http.client
import secrets
import ssl
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from gateway.cli.doctor.finding import Finding
from gateway.domain.template_segments import fill_variables
from gateway.settings import Settings

RESPONSE_TIMEOUT: Final = 3.0
"""Seconds. A refusal that does not wait for the rest of a body takes milliseconds."""

_BODY_BYTES: Final = 128 << 10
_SENT_BYTES: Final = _BODY_BYTES // 2
_PAGE: Final = "docs/how-to/run-behind-nginx.md"


def request_buffering(settings: Settings) -> Iterator[Finding]:
    """Uploads that break keep what has come: the proxy does not hold their bodies back.

    A PATCH of an upload that does not exist is refused before its body has ended, unless the proxy
    waits for all of it. It has no effect, and needs no authorization.
    """
    if settings.public_url is None or not settings.resumable:
        return
    path = fill_variables(settings.file_upload_api_path, lambda _: "gateway-doctor")
    url = f"{settings.public_url}{path}"
    try:
        status, is_ours = _early_response(url)
    except TimeoutError:
        advice = (
            "an upload that breaks behind it keeps nothing: set `proxy_request_buffering off;` for the"
            f" upload path in nginx, see {_PAGE}; in other proxies what turns request buffering off"
        )
        yield Finding(
            "warn", f"the proxy at {settings.public_url} buffers the bodies of uploads", advice
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        advice = "only a machine that reaches --public-url can check whether its proxy buffers bodies"
        yield Finding("warn", f"{url}: {error or type(error).__name__}", advice)
    else:
        yield _finding_of(url, status, is_ours=is_ours)


def _finding_of(url: str, status: int, *, is_ours: bool) -> Finding:
    if not is_ours:
        advice = "start the gateway, let the proxy pass the upload path to it, and check --public-url"
        return Finding("warn", f"{url} answers {status}, but not by a gateway", advice)
    return Finding("ok", f"bodies of uploads pass through the proxy as they come ({url})")


def _early_response(url: str) -> tuple[int, bool]:
    """Send half of a body; return the status of the response, and whether a gateway sent it.

    Raises `TimeoutError` where there is none while the body has not ended.
    """
    parts = urlsplit(url)
    connection = _connection(parts.scheme, parts.hostname or "", parts.port)
    try:
        connection.putrequest("PATCH", f"{parts.path}?upload={secrets.token_hex(8)}.none")
        connection.putheader("Content-Type", "application/partial-upload")
        connection.putheader("Content-Length", str(_BODY_BYTES))
        connection.putheader("Upload-Offset", "0")
        connection.putheader("Upload-Complete", "?0")
        connection.endheaders()
        connection.send(bytes(_SENT_BYTES))
        with connection.getresponse() as response:
            return response.status, response.getheader("X-Request-Id") is not None
    finally:
        connection.close()


def _connection(scheme: str, host: str, port: int | None) -> http.client.HTTPConnection:
    """Return a connection without any proxy of the environment; the certificate is not checked here."""
    if scheme != "https":
        return http.client.HTTPConnection(host, port, timeout=RESPONSE_TIMEOUT)
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=RESPONSE_TIMEOUT, context=context)
