"""Plugin exports: the responses of its two routes.

Callers are authorized (`auth: default`) and see their own exports only; all others are 404.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from export_asking import (
    DONE,
    FAILED,
    Item,
    Kept,
    Rules,
    TooManyQueued,
    Wrong,
    asked,
    folder_of,
    is_id,
    revive,
    settled,
    share,
)

Answer = tuple[int, Any, dict[str, str]]

_PRIVATE: Final = {"Cache-Control": "no-store", "Vary": "Accept"}
_RETRY: Final = {"Retry-After": "1"}


async def begin(request: Any, rules: Rules, kept: Kept, files: Any, sign_url: Any) -> Answer:
    """Answer `GET /exports`: a link to the export, or to its status."""
    if request.principal is None and _from_another_site(request.headers):
        message = "a page of another site may not order exports"
        return 403, {"error": "forbidden", "message": message}, _PRIVATE
    try:
        question = asked(request.params, request.principal, rules)
        item = await share(question, rules, kept, files)
    except Wrong as wrong:
        return 400, {"error": "bad_request", "message": str(wrong)}, _PRIVATE
    except TooManyQueued as busy:
        told = {"error": "too_many_requests", "message": str(busy)}
        return 429, told, {**_PRIVATE, "Retry-After": "10"}
    item = await settled(item["key"], rules.answer_within, kept) or item
    if item["state"] == DONE:
        return await _there(request, item, rules, sign_url)
    if item["state"] == FAILED:
        return 500, {"error": "export_failed", **_told(item)}, _PRIVATE
    where = {"Location": f"/exports/{item['key']}", **_RETRY}
    return 202, {**_told(item), "status": where["Location"]}, {**_PRIVATE, **where}


async def status(request: Any, rules: Rules, kept: Kept, files: Any, sign_url: Any) -> Answer:
    """Answer `GET /exports/{id}`: the progress of an export of the caller, or a link to it."""
    key = request.resources["id"]
    item = await kept.get(key) if is_id(key) else None
    if item is None or item["caller"] != folder_of(request.principal):
        return 404, {"error": "not_found", "message": "you have no such export"}, _PRIVATE
    item = await revive(item, rules, kept, files)
    if item["state"] == DONE:
        return await _there(request, item, rules, sign_url)
    return 200, _told(item), _PRIVATE if item["state"] == FAILED else {**_PRIVATE, **_RETRY}


async def _there(request: Any, item: Item, rules: Rules, sign_url: Any) -> Answer:
    """Link to the file: by a redirect, or in JSON for a client that prefers it."""
    url = await sign_url("GET", item["path"], expires=rules.url_seconds, filename=item["filename"])
    if not _prefers_json(request.headers):
        return 303, f"{url}\n", {**_PRIVATE, "Location": url}
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=rules.url_seconds)
    return 200, {**_told(item), "url": url, "expires": expires.isoformat()}, _PRIVATE


def _told(item: Item) -> dict[str, Any]:
    names = ("state", "from", "to", "records", "percent", "bytes", "message")
    return {"id": item["key"], **{name: item[name] for name in names if name in item}}


def _from_another_site(headers: Mapping[str, str]) -> bool:
    """Tell whether a page of another origin made a browser send this, as an image for example."""
    return headers.get("Sec-Fetch-Site", "none").lower() not in {"same-origin", "none"}


def _prefers_json(headers: Mapping[str, str]) -> bool:
    return "application/json" in headers.get("Accept", "").lower()
