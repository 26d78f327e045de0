"""One page of a folder: what the query asks for, what the storage has, and both as JSON.

A cursor says how far a list was read, so files that are added or removed meanwhile shift nothing.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.domain import paths
from gateway.domain.digests import digest_field
from gateway.domain.units import count_up_to, iso_time
from gateway.endpoints.listing.search import search
from gateway.errors import Refusal
from gateway.storage.local.xattrs import guess_mime
from gateway.storage.protocols import INVALID_POSITION, MAX_FOLDER_PAGE, FolderStorage, Stat

_FOLDER: Final = "f"
_RECURSIVE: Final = "r"
_SEARCH: Final = "s"
_NO_FILES: Final = "there are no files below this folder"
_MAX_CURSOR: Final = 8192
_PARAMS: Final = frozenset({"limit", "cursor", "recursive", "search"})


class ListQuery(NamedTuple):
    """What the query of a list says. `after` is where the page begins, as the storage says it.

    With `search`, which looks below the folder too, the page has the names that contain it.
    """

    limit: int
    after: str | None
    recursive: bool
    search: str | None = None

    @classmethod
    def read(cls, params: Mapping[str, Sequence[str]]) -> ListQuery:
        """Read `limit`, `cursor`, `recursive` and `search`. Raises `Refusal("bad_request")`."""
        values = {name: params[name] for name in _PARAMS & params.keys()}
        if any(len(texts) > 1 for texts in values.values()):
            raise Refusal("bad_request", "limit, cursor, recursive and search may be given once each")
        limit = count_up_to(values.get("limit", (str(MAX_FOLDER_PAGE),))[0], MAX_FOLDER_PAGE)
        if limit is None:
            raise Refusal("bad_request", f"limit must be a number from 1 to {MAX_FOLDER_PAGE}")
        recursive = values.get("recursive", ("false",))[0]
        if recursive not in {"true", "false"}:
            raise Refusal("bad_request", "recursive must be true or false")
        search = values["search"][0] if "search" in values else None
        if search is not None and not 1 <= len(search) <= paths.MAX_SEGMENT_BYTES:
            raise Refusal("bad_request", f"search has 1 to {paths.MAX_SEGMENT_BYTES} characters")
        kind = _RECURSIVE if recursive == "true" else _FOLDER
        kind = kind if search is None else _SEARCH
        cursor = values.get("cursor", ("",))[0]
        after = _decode_cursor(cursor, kind) if cursor else None
        return cls(limit, after, recursive == "true", search)


@dataclass(frozen=True, slots=True)
class ListedPage:
    """Entries of a folder, and the cursor of the next page. Without `recursive` it has folders too.

    `described` tells that the types of the files are known, `searched` how many files were looked at to
    find these: None without a search.
    """

    path: str
    entries: Sequence[Stat | str]
    next: str | None
    described: bool = False
    searched: int | None = None

    def name_of(self, entry: Stat | str) -> str:
        """Return the path of an entry below the folder; that of a folder ends with a slash."""
        return (entry if isinstance(entry, str) else entry.path).removeprefix(self.path)


async def read_page(storage: FolderStorage, folder: str, query: ListQuery) -> ListedPage:
    """Read a page of a folder, or of all files below it. Raises `Refusal("not_found")`."""
    if query.search is not None:
        return await _search_page(storage, folder, query, query.search)
    if not query.recursive:
        page = await storage.list_folder(folder, after=query.after, limit=query.limit)
        cursor = _encode_cursor(page.next, _FOLDER)
        return ListedPage(folder, page.entries, cursor, page.described)
    if query.after is not None:
        _check_below(folder, query.after)
    listing = storage.list(folder, after=query.after)
    stats: list[Stat] = []
    try:
        async for stat in listing:
            stats.append(stat)
            if len(stats) > query.limit:
                break
    finally:
        if isinstance(listing, AsyncGenerator):
            with contextlib.suppress(RuntimeError):
                await listing.aclose()
    if not stats and query.after is None:
        raise Refusal("not_found", _NO_FILES)
    more = len(stats) > query.limit
    shown = stats[: query.limit]
    return ListedPage(folder, shown, _encode_cursor(shown[-1].path if more else None, _RECURSIVE))


async def _search_page(storage: FolderStorage, folder: str, query: ListQuery, text: str) -> ListedPage:
    if query.after is not None:
        _check_below(folder, query.after.removesuffix("/"))
    result = await search(storage, folder, text, after=query.after, limit=query.limit)
    if not result.searched and result.reached is None and query.after is None:
        raise Refusal("not_found", _NO_FILES)
    cursor = _encode_cursor(result.reached, _SEARCH)
    return ListedPage(folder, result.entries, cursor, searched=result.searched)


def page_json(
    page: ListedPage, url_of_file: Callable[[str], str], url_of_folder: Callable[[str], str]
) -> dict[str, Any]:
    """Return a page as JSON. `url_of_file` takes a path, `url_of_folder` a name and its slash, or ""."""
    return {
        "path": page.path,
        "url": url_of_folder(""),
        "entries": [
            _folder_json(entry, page.name_of(entry), url_of_folder)
            if isinstance(entry, str)
            else {"name": page.name_of(entry), **file_json(entry, url_of_file, described=page.described)}
            for entry in page.entries
        ],
        "next": page.next,
        **({} if page.searched is None else {"searched": page.searched}),
    }


def file_json(
    stat: Stat, url_of_file: Callable[[str], str], *, described: bool = True
) -> dict[str, Any]:
    """Return what is known of a file. `mime` is None where the storage has not told the type."""
    return {
        "kind": "file",
        "path": stat.path,
        "bytes": stat.bytes,
        "modified": iso_time(stat.modified),
        "etag": stat.etag,
        **({"digest": digest_field(stat.digests)} if stat.digests else {}),
        "mime": stat.mime or (guess_mime(stat.path) if described else None),
        "url": url_of_file(stat.path),
    }


def _folder_json(path: str, name: str, url_of_folder: Callable[[str], str]) -> dict[str, Any]:
    return {"name": name.removesuffix("/"), "kind": "folder", "path": path, "url": url_of_folder(name)}


def _check_below(folder: str, path: str) -> None:
    """Refuse a cursor of another folder. Raises `Refusal("bad_request")`."""
    try:
        paths.check_path(path)
    except Refusal:
        raise Refusal("bad_request", INVALID_POSITION) from None
    if not path.startswith(folder):
        raise Refusal("bad_request", INVALID_POSITION)


def _encode_cursor(position: str | None, kind: str) -> str | None:
    if position is None:
        return None
    # A page may end at a name that is not UTF-8, which no page shows.
    text = (kind + position).encode("utf-8", "surrogateescape")
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def _decode_cursor(cursor: str, kind: str) -> str:
    try:
        if len(cursor) > _MAX_CURSOR:
            raise ValueError("too long")
        padded = cursor + "=" * (-len(cursor) % 4)
        data = base64.b64decode(padded, altchars=b"-_", validate=True)
        text = data.decode("utf-8", "surrogateescape")
    except (ValueError, binascii.Error):
        text = ""
    if not text.startswith(kind) or len(text) == 1 or "\x00" in text:
        raise Refusal("bad_request", INVALID_POSITION)
    return text[1:]
