"""Visits of pages of the console, by people with these credentials."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

from tests.support.browser import BrowserVisit, visiting_as

BROWSER = "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
PHONE = {"width": 390, "height": 844}


def visiting(token: str | None = None, **how: Any) -> AbstractAsyncContextManager[BrowserVisit]:
    """Open an empty page whose requests have a token: `async with visiting("secret-alice")`."""
    headers = {} if token is None else {"extra_http_headers": {"Authorization": f"Bearer {token}"}}
    return visiting_as(BrowserVisit, **{"viewport": {"width": 1280, "height": 844}, **headers, **how})
