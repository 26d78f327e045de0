"""Plugin photos: the responses of its routes: begin an upload, list photos, show one, remove one.

Callers are authorized (`auth: default`), or guests with a link. This file decides whose photo it is and
gives out URLs, never bytes.
"""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

import photo_guests
from photo_rules import (
    SIGNED_PATH,
    Caller,
    Photo,
    Rules,
    Wrong,
    announced,
    event_id,
    nothing,
    photo_id,
    record_key,
    record_prefix,
)

from gateway.errors import Refusal

READY: Final = "ready"
REJECTED: Final = "rejected"

MOST_LISTED: Final = 100
USUALLY_LISTED: Final = 50

Answer = tuple[int, Any, dict[str, str]]
Serve = Callable[..., Awaitable[Answer]]

_PRIVATE: Final = {"Cache-Control": "no-store"}


def _told(serve: Serve) -> Serve:
    """Turn `Wrong` into its response."""

    @functools.wraps(serve)
    async def serve_or_tell(*arguments: Any) -> Answer:
        try:
            return await serve(*arguments)
        except Wrong as wrong:
            return wrong.status, wrong.body, _PRIVATE

    return serve_or_tell


@_told
async def initiate(request: Any, config: Mapping[str, Any], sign_url: Any) -> Answer:
    """Return 201 with the id of a new photo and the URL to PUT its bytes to.

    The URL is good for a PUT of the announced type and size, and carries the metadata.
    """
    return await _initiate(request, config, sign_url, _caller(request))


async def _initiate(request: Any, config: Mapping[str, Any], sign_url: Any, caller: Caller) -> Answer:
    rules = Rules.of(config)
    body = json.loads(request.body)
    photo = announced(request.resources["eventId"], body, caller, rules)
    exact = int(body["bytes"]) if "bytes" in body else None  # in JSON 5.0 is an integer too
    put = functools.partial(
        sign_url,
        "PUT",
        f"/{photo.original}",
        expires=rules.upload_seconds,
        content_type=photo.content_type,
        length=exact,
        max_length=rules.max_bytes if exact is None else None,
        metadata=photo.metadata,
    )
    answer = {
        "photoId": photo.photo_id,
        "s3PutObjectUrl": await _put_url(put, rules),
        "headers": {"Content-Type": photo.content_type},
        "expires": int(time.time()) + rules.upload_seconds,
        "maxBytes": rules.max_bytes,
    }
    return 201, answer, _PRIVATE


async def _put_url(put: Callable[..., Awaitable[str]], rules: Rules) -> str:
    """Return a URL of the bucket if the storage is one, else one of the gateway, which never overwrites.

    A bucket cannot be kept from overwriting by a client that sends nothing but its type; the new
    photo would be looked at like the first one.
    """
    if rules.through == "storage":
        url = await put()
        if not urlsplit(url).path.startswith(SIGNED_PATH):
            return url
    return await put(overwrite=False)


@_told
async def listed(request: Any, config: Mapping[str, Any], sign_url: Any, photos: Any) -> Answer:
    """Return the finished photos of an event, newest first, or those that `ids` names.

    `limit` (1 to 100) and `cursor` page. `ids`, up to 100 with commas between, tells of every photo
    that has been looked at, rejected ones too; the others are still on their way.
    """
    return await _listed(request, config, sign_url, photos)


async def _listed(
    request: Any, config: Mapping[str, Any], sign_url: Any, photos: Any, *, by_guest: bool = False
) -> Answer:
    event = event_id(request.resources["eventId"])
    if "ids" in request.params:
        wanted = [photo_id(one) for one in _one(request, "ids").split(",")][:MOST_LISTED]
        found = [await photos.get(record_key(event, one)) for one in wanted]
        items, cursor = [item for item in found if item is not None], None
    else:
        cursor = _one(request, "cursor") or None
        sorting = {"index": "listed", "order": "desc", "limit": _limit(request)}
        try:
            page = await photos.query(record_prefix(event), **sorting, cursor=cursor)
        except ValueError as fault:
            raise Wrong(400, "bad_cursor", "the cursor is none that this list has given") from fault
        items, cursor = page.items, page.cursor
    show = _Show(Rules.of(config), sign_url, request, by_guest=by_guest)
    return 200, {"photos": [await show(item) for item in items], "cursor": cursor}, _PRIVATE


@_told
async def one(request: Any, config: Mapping[str, Any], sign_url: Any, photos: Any, files: Any) -> Answer:
    """Return a photo (`GET`), or remove it if the caller owns it (`DELETE`: 204)."""
    key = record_key(event_id(request.resources["eventId"]), photo_id(request.resources["photoId"]))
    item = await photos.get(key)
    if item is None:
        raise nothing()
    if request.method != "DELETE":
        return 200, await _Show(Rules.of(config), sign_url, request)(item), _PRIVATE
    if not _may_remove(request, item):
        raise Wrong(403, "forbidden", "only its owner may remove a photo")
    # The record goes last: where this is cut off, another DELETE finds it and goes on.
    for place in item["keys"].values():
        await removed(files, f"/{place}")
    await photos.delete(key)
    return 204, None, {}


# -- guests, who have a link instead of a token: they see and add, and remove nothing


@_told
async def guest_links(request: Any, links: Any) -> Answer:
    """Make a link (`POST`), list those that are good (`GET`), revoke one (`DELETE`)."""
    serve = {"POST": photo_guests.create, "GET": photo_guests.listed, "DELETE": photo_guests.revoke}
    return await serve[request.method](request, links)


@_told
async def guest_initiate(request: Any, config: Mapping[str, Any], sign_url: Any, links: Any) -> Answer:
    """Do as `initiate` for a guest."""
    return await _initiate(request, config, sign_url, await photo_guests.guest(request, links))


@_told
async def guest_listed(
    request: Any, config: Mapping[str, Any], sign_url: Any, photos: Any, links: Any
) -> Answer:
    """Do as `listed` for a guest."""
    await photo_guests.guest(request, links)
    return await _listed(request, config, sign_url, photos, by_guest=True)


@_told
async def guest_one(
    request: Any, config: Mapping[str, Any], sign_url: Any, photos: Any, links: Any
) -> Answer:
    """Return a photo to a guest."""
    await photo_guests.guest(request, links)
    key = record_key(event_id(request.resources["eventId"]), photo_id(request.resources["photoId"]))
    item = await photos.get(key)
    if item is None:
        raise nothing()
    return 200, await _Show(Rules.of(config), sign_url, request, by_guest=True)(item), _PRIVATE


async def removed(files: Any, path: str) -> None:
    """Remove a file if it exists."""
    try:
        await files.delete(path)
    except Refusal as refusal:
        if refusal.code != "not_found":
            raise


class _Show:
    """Shows records to clients, with URLs that expire."""

    def __init__(self, rules: Rules, sign_url: Any, request: Any, *, by_guest: bool = False) -> None:
        self._by_guest = by_guest
        self._rules = rules
        self._sign = sign_url
        self._request = request

    async def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        photo = Photo(
            item["eventId"], item["id"], item["contentType"], item["title"], item["description"]
        )
        may_remove = not self._by_guest and _may_remove(self._request, item)
        told = {
            "id": photo.photo_id,
            "eventId": photo.event_id,
            "state": item["state"],
            "title": photo.title,
            "description": photo.description,
            "contentType": photo.content_type,
            "created": datetime.fromtimestamp(item["created"], UTC).isoformat(timespec="milliseconds"),
            # The name in a token may be an address of mail: not for those who have a link alone.
            "owner": None if self._by_guest else item["owner"],
            "removable": may_remove,
        }
        if item["state"] == REJECTED:
            return {**told, "reason": item["reason"]}
        told |= {name: item[name] for name in ("bytes", "width", "height")}
        keys = item["keys"]
        told["url"] = await self._url(keys["copy"])
        told["thumbnailUrl"] = await self._url(keys["thumb"])
        # The original may still tell where it was taken: not everybody's business.
        if may_remove or self._rules.originals == "all":
            told["originalUrl"] = await self._url(keys["original"], filename=photo.file_name)
        return told

    async def _url(self, key: str, **more: str) -> str:
        # The same URLs for a while: browsers cache pictures by their URL. The time is looked at for
        # each, since a long list may be told over the end of a second.
        step = max(self._rules.view_seconds // 3, 1)
        url: str = await self._sign(
            "GET",
            f"/{key}",
            expires=self._rules.view_seconds + step - int(time.time()) % step,
            cache_control=f"private, max-age={self._rules.view_seconds}",
            **more,
        )
        return url


def _caller(request: Any) -> Caller:
    principal = request.principal
    return None if principal is None else (str(principal["name"]), str(principal["kind"]))


def _may_remove(request: Any, item: Mapping[str, Any]) -> bool:
    """Tell whether the caller owns it; without authentication all callers do."""
    return request.principal is None or _caller(request) == (item["owner"], item["ownerKind"])


def _one(request: Any, name: str) -> str:
    values = request.params.get(name, [""])
    return str(values[-1])


def _limit(request: Any) -> int:
    text = _one(request, "limit") or str(USUALLY_LISTED)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MOST_LISTED:
        raise Wrong(400, "bad_limit", f"limit is a number from 1 to {MOST_LISTED}")
    return int(text)
