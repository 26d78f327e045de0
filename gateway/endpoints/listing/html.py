"""A page of a folder for a browser: one document without scripts, fonts or images."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Final
from urllib.parse import quote, urlencode

from gateway.domain.units import format_size, iso_time
from gateway.endpoints.listing.page import ListedPage
from gateway.storage.protocols import Stat

_STYLE: Final = """
:root { color-scheme: light dark; --text: #171a1f; --muted: #58616d; --line: #e0e4e9; --back: #fff;
  --link: #0a5bb5; --hover: #f6f7f9 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6eaef; --muted: #9aa5b1; --line: #29313a; --back: #0e1217; --link: #7db7ff;
    --hover: #161b22 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 64rem; padding: 1.5rem 1rem; background: var(--back);
  color: var(--text); font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.25rem; margin: 0 0 1rem; overflow-wrap: anywhere }
a { color: var(--link); text-underline-offset: .15em }
a:focus-visible { outline: 2px solid var(--link); outline-offset: 2px }
nav { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0 0 1rem }
table { width: 100%; border-collapse: collapse; table-layout: fixed }
th, td { text-align: left; padding: .5rem .25rem; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere }
th { font-weight: 600; font-size: .875rem; color: var(--muted) }
tbody tr:hover { background: var(--hover) }
.size { width: 7rem; text-align: right; color: var(--muted); font-variant-numeric: tabular-nums }
.time { width: 12rem; text-align: right; color: var(--muted); font-variant-numeric: tabular-nums }
.empty { color: var(--muted); padding: 2rem 0 }
@media (max-width: 40rem) {
  .time { display: none }
  .size { width: 5.5rem }
  td a { display: inline-block; min-height: 1.5rem }
}
"""

_HASH: Final = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

HTML_HEADERS: Final = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_HASH}'; base-uri 'none'; form-action 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
}
"""The headers of the page. Nothing but its one style may load or run (Content Security Policy 3)."""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the page links to: the files themselves, an archive of all, the folder above, the console.

    `kept` are the fields of the query that the next page has too.
    """

    files: bool
    is_first: bool
    has_parent: bool
    kept: Mapping[str, str] = field(default_factory=dict)
    console: str | None = None


def page_html(page: ListedPage, options: PageOptions) -> str:
    """Return the document. Names are escaped; links are relative, whatever proxy is in front."""
    title = escape(page.path)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{title}</h1>\n{_links(page, options)}{_table(page, options)}{_next(page, options)}"
        "</main>\n</body>\n</html>\n"
    )


def _links(page: ListedPage, options: PageOptions) -> str:
    links = []
    if options.has_parent:
        links.append('<a href="../">Folder above</a>')
    if not options.is_first:
        links.append('<a href="./">First page</a>')
    if options.files and (page.entries or not options.is_first):
        links.append('<a href="?format=zip" download>All as a zip archive</a>')
    if options.console is not None:
        links.append(f'<a href="{escape(options.console)}">Open in the console</a>')
    return f'<nav aria-label="Folder">{"".join(links)}</nav>\n' if links else ""


def _table(page: ListedPage, options: PageOptions) -> str:
    if not page.entries:
        text = "This folder is empty." if options.is_first else "There is nothing more."
        return f'<p class="empty">{text}</p>\n'
    rows = "".join(_rows(page, options))
    return (
        '<table>\n<thead><tr><th scope="col">Name</th><th scope="col" class="size">Size</th>'
        '<th scope="col" class="time">Changed</th></tr></thead>\n'
        f"<tbody>\n{rows}</tbody>\n</table>\n"
    )


def _rows(page: ListedPage, options: PageOptions) -> Iterator[str]:
    for entry in page.entries:
        name = page.name_of(entry)
        if isinstance(entry, Stat):
            shown = _link(name) if options.files else escape(name)
            moment = iso_time(entry.modified)
            changed = f'<time datetime="{moment}">{moment[:19].replace("T", " ")}</time>'
            size = format_size(entry.bytes)
        else:
            shown, size, changed = _link(name), "", ""
        yield f'<tr><td>{shown}</td><td class="size">{size}</td><td class="time">{changed}</td></tr>\n'


def _link(name: str) -> str:
    # "./": a name with a colon would be taken for a scheme (RFC 3986 section 4.2).
    return f'<a href="./{escape(quote(name))}">{escape(name)}</a>'


def _next(page: ListedPage, options: PageOptions) -> str:
    if page.next is None:
        return ""
    query = escape(urlencode({"cursor": page.next, **options.kept}))
    return f'<nav aria-label="Pages"><a rel="next" href="?{query}">Next page</a></nav>\n'
