"""Plugin photos: links for guests of one event: they see its photos and add some, without a token.

A link is a random secret until a time. Only its digest is stored, as a record, so a link can be listed
and revoked, and a reader of the records cannot use one. The secret travels in a header and in the
fragment of the page's address: it stands in no log.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from photo_rules import Caller, Wrong, event_id

HEADER: Final = "X-Guest-Link"
COLLECTION: Final = "photoGuests"
KIND: Final = "guest"
MAX_LINKS: Final = 100
"""Links of one event that are good at the same time."""

_SECRET: Final = re.compile(r"[A-Za-z0-9_-]{32}")
_ID: Final = re.compile(r"[0-9a-f]{32}")
_PRIVATE: Final = {"Cache-Control": "no-store"}

Answer = tuple[int, Any, dict[str, str]]


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _key(event: str, link: str) -> str:
    return f"event_{event}/{link}"


async def create(request: Any, links: Any) -> Answer:
    """Make a link that is good for `hours`; its secret is told this once. Raises `Wrong`."""
    event = event_id(request.resources["eventId"])
    if len(await _valid(links, event)) >= MAX_LINKS:
        raise Wrong(409, "too_many_links", f"an event has {MAX_LINKS} links at most: revoke some")
    secret, now = secrets.token_urlsafe(24), time.time()
    link = _digest(secret)
    item = {
        "id": link,
        "eventId": event,
        "created": now,
        "expires": now + 3600 * int(json.loads(request.body)["hours"]),
    }
    await links.put(_key(event, link), item)
    return 201, {**_told(item), "secret": secret}, _PRIVATE


async def listed(request: Any, links: Any) -> Answer:
    """Return the links of an event that are good, without their secrets; remove the others."""
    event = event_id(request.resources["eventId"])
    return 200, {"links": [_told(item) for item in await _valid(links, event)]}, _PRIVATE


async def revoke(request: Any, links: Any) -> Answer:
    """Make a link useless at once: 204. Raises `Wrong` for an unknown one."""
    event, link = event_id(request.resources["eventId"]), str(request.resources["linkId"])
    if not _ID.fullmatch(link) or not await links.delete(_key(event, link)):
        raise Wrong(404, "not_found", "there is no such link")
    return 204, None, {}


async def guest(request: Any, links: Any) -> Caller:
    """Return the guest who sends a request. Raises `Wrong` (403) without a link that is good."""
    event = event_id(request.resources["eventId"])
    secret = str(request.headers.get(HEADER, ""))
    item = await links.get(_key(event, _digest(secret))) if _SECRET.fullmatch(secret) else None
    if item is None or item["expires"] < time.time():
        raise Wrong(403, "link_expired", "this link is not valid (any more): ask for a new one")
    return KIND, f"{KIND}:{item['id']}"


async def _valid(links: Any, event: str) -> list[Mapping[str, Any]]:
    """Return the links that are good now; remove those that have expired."""
    valid, cursor = [], None
    while True:
        page = await links.query(f"event_{event}/", limit=MAX_LINKS, cursor=cursor)
        for item in page.items:
            if item["expires"] < time.time():
                await links.delete(item["key"])
            else:
                valid.append(item)
        cursor = page.cursor
        if cursor is None:
            return valid


def _told(item: Mapping[str, Any]) -> dict[str, Any]:
    expires = datetime.fromtimestamp(item["expires"], UTC).isoformat(timespec="seconds")
    return {"id": item["id"], "eventId": item["eventId"], "expires": expires}
