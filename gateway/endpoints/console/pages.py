"""Which page stands at which path. A path of the API shows its page to a browser."""

from __future__ import annotations

from typing import Final, NamedTuple

from gateway.domain.api_routes import literal_names

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
    folder, _, last = raw_path.rpartition("/")
    name = _ONE_BELOW.get(folder)
    return None if name is None or last in _LITERAL[folder] | {""} else PagePlace(name, "../")


_ONE_BELOW: Final = {path.rpartition("/")[0]: name for path, name in PAGES.items() if path.endswith("}")}

_LITERAL: Final = {folder: literal_names(folder) for folder in _ONE_BELOW}
"""Endpoints beside the variable of a page, such as `/-/events/depth`: they have no page."""
