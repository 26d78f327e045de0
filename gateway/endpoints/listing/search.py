"""Looks for names below a folder: what one request looks at is bounded, and the next one goes on there.

A text matches a name that contains it, whatever the case of its letters and however its characters are
composed (Unicode Standard Annex #15). What is found is what a list of the folder and of those below has.
"""

from __future__ import annotations

import contextlib
import math
import time
import unicodedata
from collections.abc import AsyncGenerator, Iterator
from typing import Final, NamedTuple

from gateway.storage.protocols import FolderStorage, Stat

MAX_SEARCHED_FILES: Final = 20_000
"""Files that one request looks at: some 0.5 s of a disk, 20 requests to a bucket."""

MAX_SEARCH_SECONDS: Final = 1.0
"""A request looks at no further files this long after its first one.

The time until then does not count: to read the names of a large folder may take longer, for each request
anew, and a search has to get on.
"""

TIMED_FILES: Final = 100
"""Files between two looks at the clock: each request gets at least so far."""


class SearchResult(NamedTuple):
    """Matching files and paths of folders, in the order of the list, and how many files were looked at.

    `reached` is the path behind which the next part begins, None where everything was looked at.
    """

    entries: list[Stat | str]
    searched: int
    reached: str | None


async def search(
    storage: FolderStorage, folder: str, text: str, *, after: str | None, limit: int
) -> SearchResult:
    """Look for `text` in the names below `folder`, behind the path `after`, for up to `limit` entries.

    A folder is seen by the files below it; its path ends with a slash, also as `after`.
    """
    wanted = comparable(text)
    entries: list[Stat | str] = []
    searched, reached = 0, after or folder
    deadline = math.inf
    listing = storage.list(folder, after=after)
    try:
        async for stat in listing:
            passed: list[Stat | str] = [*_entered(reached, stat.path, len(folder)), stat]
            for entry in passed:
                if len(entries) == limit:
                    return SearchResult(entries, searched, reached)
                reached = entry if isinstance(entry, str) else entry.path
                if wanted in comparable(_last_name(reached)):
                    entries.append(entry)
            searched += 1
            if searched == 1:
                deadline = time.monotonic() + MAX_SEARCH_SECONDS
            late = searched % TIMED_FILES == 0 and time.monotonic() > deadline
            if late or searched == MAX_SEARCHED_FILES:
                return SearchResult(entries, searched, reached)
    finally:
        if isinstance(listing, AsyncGenerator):
            with contextlib.suppress(RuntimeError):
                await listing.aclose()
    return SearchResult(entries, searched, None)


def comparable(text: str) -> str:
    """Return a text as it is compared: without case and in one composition."""
    if text.isascii():
        return text.lower()
    # Folding the case may leave characters that compose again.
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def _entered(previous: str, path: str, start: int) -> Iterator[str]:
    """Yield the folders on the way to `path`, from character `start` on, that `previous` is not in."""
    slash = path.find("/", start)
    while slash >= 0:
        folder = path[: slash + 1]
        if not previous.startswith(folder):
            yield folder
        slash = path.find("/", slash + 1)


def _last_name(path: str) -> str:
    return path.removesuffix("/").rpartition("/")[2]
