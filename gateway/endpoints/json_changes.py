"""Reads what an operator wants changed: a POST of JSON that never comes from a page of another site."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web

from gateway.auth.foreign_pages import is_cross_site
from gateway.domain.json_text import parse_json
from gateway.errors import Refusal
from gateway.http.request_body import read_small_body

MAX_BODY_BYTES: Final = 256 << 10


async def read_change(request: web.BaseRequest) -> dict[str, Any]:
    """Return the JSON object of a request. Raises `Refusal`, and `ValueError` for another body."""
    _reject_cross_site(request)
    content = await read_small_body(request, MAX_BODY_BYTES)
    try:
        body = parse_json(content)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(body, dict):
        raise ValueError("the body must be a JSON object")
    return body


def _reject_cross_site(request: web.BaseRequest) -> None:
    """Refuse what a page of another site made a browser send. Raises `Refusal`.

    A form cannot send JSON, and a script of another origin only after a preflight, which gets
    405; the headers are a second defence. Sources: fetch.spec.whatwg.org (CORS-safelisted
    request-header), w3.org/TR/fetch-metadata.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise Refusal("unsupported_media_type", "send JSON, with `Content-Type: application/json`")
    if is_cross_site(request):
        raise Refusal("forbidden", "this request comes from a page of another site")
