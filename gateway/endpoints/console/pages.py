"""Which page stands at which path. A path of the API shows its page to a browser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.domain.api_routes import EVENTS_PREFIX, literal_names

PAGES: Final = {
    "/": "upload",
    "/-/": "home",
    "/-/uploads": "activity",
    "/-/uploads/{upload_id}": "timeline",
    "/-/files": "files",
    "/-/events": "events",
    "/-/events/{event_id}": "event",
    "/-/plugins": "plugins",
    "/-/status": "system",
    "/-/links": "links",
    "/-/session": "sign-in",
    "/-/drop": "drop",
    "/-/share": "share",
}
"""The name of a page by its path: `static/console/<name>.js` fills it. `{...}` is one segment."""


BASES: Final = ("-/", "./", "../")
"""What relative links to `/-/` begin with, at the depths of the paths."""


class PagePlace(NamedTuple):
    """A page, and what its relative links to `/-/` begin with."""

    name: str
    base: str


def find_page(raw_path: str) -> PagePlace | None:
    """Return the page of a path, None where there is none."""
    if raw_path == "/":
        return PagePlace(PAGES["/"], "-/")
    name = PAGES.get(raw_path)
    if name is not None and "{" not in raw_path:
        return PagePlace(name, "./")
    *folders, last = raw_path[1:].split("/")
    name = _ONE_BELOW.get(tuple(folders))
    if name is None or not last or (folders == _EVENTS and last in literal_names(EVENTS_PREFIX)):
        return None
    return PagePlace(name, "../")


_EVENTS: Final[Sequence[str]] = EVENTS_PREFIX[1:].split("/")

_ONE_BELOW: Final = {
    tuple(path[1:].split("/")[:-1]): name for path, name in PAGES.items() if path.endswith("}")
}
