"""`/-/links`: operators make, list and revoke links."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import segno

from gateway.auth.links.creation import LinkTerms, NewLink, create_link
from gateway.auth.links.link import DEFAULT_LINK_TTL, MAX_COUNT, Link
from gateway.auth.links.passwords import LinkPasswords
from gateway.auth.links.store import LinkTable
from gateway.auth.links.watcher import LinkWatcher
from gateway.auth.request import IncomingRequest
from gateway.domain.path_template import UploadPathTemplate
from gateway.domain.units import count_up_to, iso_time, parse_duration, parse_size
from gateway.endpoints.json_changes import read_change
from gateway.endpoints.links.counts import LinkCounts, LinkUsage
from gateway.errors import ConfigError, Refusal
from gateway.http.responses import ApiHandler, Response, json_response

PAGE_LINKS: Final = 100
MAX_PAGE_LINKS: Final = 500
STATES: Final = ("active", "expired", "revoked")

FOR_EVER: Final = "never"
"""The `expires` of a link that does not expire."""

_FIELDS: Final = frozenset({"kind", "folder", "expires", "max_files", "max_bytes", "password"})


class LinksEndpoint:
    """Serves `/-/links` and one link. `base` is what URLs of the gateway begin with."""

    def __init__(
        self,
        watcher: LinkWatcher,
        passwords: LinkPasswords,
        counts: LinkCounts,
        template: UploadPathTemplate,
        base: Callable[[], str],
    ) -> None:
        self._watcher = watcher
        self._passwords = passwords
        self._counts = counts
        self._template = template
        self._base = base

    def handlers(self) -> dict[str, ApiHandler]:
        """Return a handler for each endpoint of `API_ROUTES` that is served here."""
        return {
            "links": self._list,
            "links.create": self._create,
            "link": self._describe,
            "link.revoke": self._revoke,
        }

    async def _list(self, incoming: IncomingRequest) -> Response:
        limit, after, state = _read_query(incoming.params)
        table, now = await self._table(), time.time()
        links = [link for link in table.links.values() if state in {None, link.state(now)}]
        ids = [link.id for link in links]
        start = ids.index(after) + 1 if after in ids else 0
        page = links[start : start + limit]
        counts = await self._counts.of(page)
        rows = [shown_link(link, counts.get(link.id), now) for link in page]
        is_last = start + limit >= len(links)
        return json_response({"links": rows, "next": None if is_last else page[-1].id})

    async def _describe(self, incoming: IncomingRequest) -> Response:
        link = _find(await self._table(), incoming.variables["link_id"])
        counts = await self._counts.of([link])
        return json_response(shown_link(link, counts.get(link.id), time.time()))

    async def _revoke(self, incoming: IncomingRequest) -> Response:
        link_id = incoming.variables["link_id"]
        _find(await self._table(), link_id)
        try:
            await asyncio.to_thread(self._watcher.store.revoke, link_id)
        except ConfigError as error:
            raise Refusal("records_unavailable", "the links cannot be written now") from error
        link = _find(await self._spread_table(), link_id)
        counts = await self._counts.of([link])
        return json_response(shown_link(link, counts.get(link.id), time.time()))

    async def _create(self, incoming: IncomingRequest) -> Response:
        try:
            body = await read_change(incoming.request)
            terms = _read_terms(body)
            if (password := body.get("password")) is not None:
                if not isinstance(password, str):
                    raise ValueError("password: must be a text")
                terms = terms._replace(password_hash=await self._passwords.hash(password))
            creator = None if incoming.operator is None else str(incoming.operator["name"])
            new = await asyncio.to_thread(
                create_link, self._watcher.store, terms, self._template, creator, time.time()
            )
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None
        except ConfigError as error:
            raise Refusal("records_unavailable", "the links cannot be written now") from error
        await self._spread_table()
        response = json_response(shown_once(new, self._base()), 201)
        response.headers["Location"] = f"/-/links/{new.link.id}"
        response.headers["Cache-Control"] = "no-store"
        return response

    async def _spread_table(self) -> LinkTable:
        """Return the links once all processes have what was changed. Raises as `_table`."""
        table = await self._table()
        await asyncio.sleep(self._watcher.spread)
        return table

    async def _table(self) -> LinkTable:
        """Return the links as they are now. Raises `Refusal("records_unavailable")`."""
        try:
            return await asyncio.to_thread(self._watcher.refresh, with_uses=True)
        except ConfigError as error:
            raise Refusal("records_unavailable", "the links cannot be read now") from error


def shown_link(link: Link, usage: LinkUsage | None, now: float) -> dict[str, Any]:
    """Return what an operator reads of a link: everything but its secret."""
    times = {name: getattr(link, name) for name in ("created", "expires", "revoked", "last_used")}
    return {
        "id": link.id,
        "kind": link.kind,
        "folder": link.folder,
        "state": link.state(now),
        "password": link.password is not None,
        "creator": link.creator,
        **{name: None if moment is None else iso_time(moment) for name, moment in times.items()},
        "max_files": link.max_files,
        "max_bytes": link.max_bytes,
        "files": 0 if usage is None else usage.files,
        "bytes": 0 if usage is None else usage.bytes,
        "downloads": link.downloads,
    }


def shown_once(new: NewLink, base: str) -> dict[str, Any]:
    """Return what is told of a new link, this time only: its URL, and that as the rows of a QR code."""
    link, url = new.link, new.url(base)
    return {
        "id": link.id,
        "kind": link.kind,
        "folder": link.folder,
        "url": url,
        "qr": qr_rows(url),
        "expires": None if link.expires is None else iso_time(link.expires),
        "max_files": link.max_files,
        "max_bytes": link.max_bytes,
        "password": link.password is not None,
    }


def qr_rows(text: str) -> list[str]:
    """Return a QR code as rows of 0 (light) and 1 (dark), without the quiet zone around it."""
    code = segno.make_qr(text, error="m", boost_error=False)
    return ["".join("1" if module else "0" for module in row) for row in code.matrix]


def _find(table: LinkTable, link_id: str) -> Link:
    link = table.links.get(link_id)
    if link is None:
        raise Refusal("not_found", "there is no link of this id")
    return link


def _read_terms(body: Mapping[str, Any]) -> LinkTerms:
    """Read the terms of a link, without its password. Raises `ValueError`."""
    if unknown := sorted(body.keys() - _FIELDS):
        raise ValueError(f"{unknown[0]!r} is no field of a link: {', '.join(sorted(_FIELDS))}")
    kind, folder = body.get("kind"), body.get("folder")
    if not isinstance(kind, str) or not isinstance(folder, str):
        raise ValueError("kind and folder are needed: texts")
    lifetime = body.get("expires")
    return LinkTerms(
        kind,
        folder,
        DEFAULT_LINK_TTL if lifetime is None else _lifetime(lifetime),
        _amount("max_files", body.get("max_files"), _files),
        _amount("max_bytes", body.get("max_bytes"), parse_size),
    )


def _lifetime(value: Any) -> float | None:
    if value == FOR_EVER:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        if abs(value) > MAX_COUNT:  # Infinity too: JSON may say 1e999
            raise ValueError(f"expires: that is too far away: send `{FOR_EVER}`")
        return float(value)
    try:
        return parse_duration(value) if isinstance(value, str) else parse_duration("")
    except ValueError as error:
        raise ValueError(f"expires: {error}, or `{FOR_EVER}`") from None


def _amount(name: str, value: Any, parse: Callable[[str], int]) -> int | None:
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        return parse(value) if isinstance(value, str) and len(value) < 40 else parse("")
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _files(text: str) -> int:
    count = count_up_to(text, MAX_COUNT)
    if count is None:
        raise ValueError("must be a number of files, from 1 to 2^53")
    return count


def _read_query(params: Mapping[str, Sequence[str]]) -> tuple[int, str, str | None]:
    limit = count_up_to(params.get("limit", [str(PAGE_LINKS)])[-1], MAX_PAGE_LINKS)
    if limit is None:
        raise Refusal("bad_request", f"limit must be a number from 1 to {MAX_PAGE_LINKS}")
    state = params.get("state", [None])[-1]
    if state not in {None, *STATES}:
        raise Refusal("bad_request", f"state is one of {', '.join(STATES)}")
    return limit, params.get("cursor", [""])[-1], state
