"""Lets requests with a link through to what the link is for."""

from __future__ import annotations

from collections.abc import Mapping

from gateway.auth.links.holders import LinkHolders
from gateway.auth.links.link import LINK_PREFIX, Link
from gateway.auth.links.scope import OPEN_PATH, check_link_request
from gateway.auth.presented import presented_tokens
from gateway.auth.request import RequestHead
from gateway.domain.path_template import UploadPathTemplate
from gateway.errors import Refusal

_CREDENTIALS = ("Authorization", "X-Auth-Token")


class LinkAccess:
    """The links of one process, as requests use them. On the server's event loop."""

    def __init__(self, holders: LinkHolders, template: UploadPathTemplate) -> None:
        self.holders = holders
        self._template = template

    def is_presented(self, headers: Mapping[str, str]) -> bool:
        """Tell whether a request has what looks like a link."""
        if not any(name in headers for name in _CREDENTIALS):
            return False
        return any(token.startswith(LINK_PREFIX) for token in presented_tokens(headers))

    def link_of(self, head: RequestHead) -> Link | None:
        """Return the link of a request that it is for, None where the request has none.

        Raises `Refusal`: `link_unavailable`, `password_needed`, `forbidden`.
        """
        if not any(name in head.headers for name in _CREDENTIALS):
            return None
        holder = self.holders.find(presented_tokens(head.headers))
        if holder is None:
            return None
        if not holder.is_open and head.raw_path != OPEN_PATH:
            raise Refusal("password_needed", "this link needs its password: POST it to /-/links/open")
        check_link_request(holder.link, head, self._template)
        return holder.link

    def check_grant(self, link_id: str) -> None:
        """Refuse a signed URL whose link is not in force any more. Raises `Refusal`."""
        self.holders.in_force(link_id)

    def count_download(self, head: RequestHead) -> None:
        """Count a file or an archive that is fetched by a URL that names a link: once, not by range."""
        grant = None if head.caller is None else head.caller.grant
        goes_on = not head.headers.get("Range", "bytes=0-").startswith("bytes=0-")
        if grant is not None and grant.link is not None and head.method == "GET" and not goes_on:
            self.holders.count_download(grant.link)
