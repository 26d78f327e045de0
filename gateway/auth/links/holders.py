"""Finds the link of a request: by its secret, or by what its password was exchanged for.

In memory, so that no request waits for the file. A secret has 256 random bits, so its digest is looked
up as it is: see `auth.api_keys`.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

from gateway.auth.links.link import LINK_PREFIX, Link, link_unavailable
from gateway.auth.links.store import NO_LINKS, LinkTable, LinkUse
from gateway.auth.tokens import token_digest
from gateway.signing.keys import LinkSigner

BEARER_TTL: Final = 12 * 3600
"""Seconds that a password need not be given again."""

_BEARER: Final = re.compile(r"([a-z2-7]{8})\.([0-9]{1,12})\.([A-Za-z0-9_-]{43})", re.ASCII)


class LinkHolder(NamedTuple):
    """Who has a link. `is_open`: nothing more is needed; else its password is."""

    link: Link
    is_open: bool


class LinkBearer(NamedTuple):
    """What the right password of a link was exchanged for, and until when it counts (Unix time)."""

    token: str
    expires: float


class LinkHolders:
    """The links as a process has them. Used on the server's event loop; a thread replaces them."""

    def __init__(self, signer: LinkSigner, now: Callable[[], float] = time.time) -> None:
        self._signer = signer
        self._now = now
        self._table = NO_LINKS
        self._lock = threading.Lock()  # between the loop and the thread that writes the uses
        self._downloads: dict[str, int] = {}
        self._uses: dict[str, float] = {}

    def replace(self, table: LinkTable) -> None:
        """Have these from now on."""
        self._table = table

    def find(self, tokens: Iterable[str]) -> LinkHolder | None:
        """Return whose link the first of `tokens` is that looks like one; None where none does.

        Raises `Refusal("link_unavailable")` where it looks like one and is not in force.
        """
        for token in tokens:
            if token.startswith(LINK_PREFIX):
                return self._holder(token.removeprefix(LINK_PREFIX))
        return None

    def in_force(self, link_id: str) -> Link:
        """Return a link that is in force. Raises `Refusal("link_unavailable")`."""
        link, now = self._table.links.get(link_id), self._now()
        if link is None or link.state(now) != "active":
            raise link_unavailable()
        with self._lock:
            self._uses[link_id] = now
        return link

    def exchange(self, link: Link) -> LinkBearer:
        """Return what counts in place of the secret of a link whose password was given."""
        expiry = int(self._now()) + BEARER_TTL
        if link.expires is not None:
            expiry = min(expiry, int(link.expires))
        signature = self._signer.sign(link.id, link.password or "", expiry)
        return LinkBearer(f"{LINK_PREFIX}{link.id}.{expiry}.{signature}", float(expiry))

    def count_download(self, link_id: str) -> None:
        """Count a file or an archive that is fetched through a link."""
        with self._lock:
            self._downloads[link_id] = self._downloads.get(link_id, 0) + 1
            self._uses[link_id] = self._now()  # the use may have been taken meanwhile

    def take_uses(self) -> Mapping[str, LinkUse]:
        """Return the uses since the last call, by id."""
        with self._lock:
            uses, self._uses = self._uses, {}
            downloads, self._downloads = self._downloads, {}
        return {link_id: LinkUse(downloads.get(link_id, 0), used) for link_id, used in uses.items()}

    def _holder(self, text: str) -> LinkHolder:
        if bearer := _BEARER.fullmatch(text):
            link_id, expiry = bearer[1], int(bearer[2])
            link = self.in_force(link_id)
            genuine = self._signer.is_genuine(bearer[3], link_id, link.password or "", expiry)
            if link.password is None or not genuine or expiry <= self._now():
                raise link_unavailable()
            return LinkHolder(link, is_open=True)
        link_id = self._table.digests.get(token_digest(LINK_PREFIX + text), "")
        link = self.in_force(link_id)
        return LinkHolder(link, is_open=link.password is None)
