"""Makes signed URLs, for scripts and for the command line.

A URL is signed only for an endpoint that will accept it. It begins with what the operator configured
(`public_url`, `advertise`), never with what a client sent.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import quote

from gateway.domain import paths
from gateway.domain.api_routes import OBJECTS_PREFIX
from gateway.domain.grant import Grant, encode_path, grant_metadata
from gateway.domain.path_template import PathMatch, UploadPathTemplate
from gateway.errors import Refusal
from gateway.settings import Settings
from gateway.signing.urls import UrlSigner
from gateway.storage.protocols import Storage

DEFAULT_URL_TTL: Final = 900

SignedUrl = str | dict[str, Any]
"""A URL, or for a POST `{"url", "fields"}`: a form with these fields before its file."""


RecordGrant = Callable[[Grant], Awaitable[None]]
"""Records what a URL allows whose use the gateway will not see."""


def no_public_url() -> str:
    """Stand in for the base of URLs in a process that serves none. Raises `RuntimeError`."""
    raise RuntimeError("this process has no address of its own: set --public-url to the gateways' URL")


class SignedUrlFactory:
    """Signs URLs of stored paths. `base` returns what URLs of the gateway begin with.

    A `storage` that is a bucket signs what it can itself. What such a URL allows to upload is given to
    `record` before the URL is given out.
    """

    def __init__(
        self,
        settings: Settings,
        urls: UrlSigner,
        base: Callable[[], str],
        storage: Storage | None = None,
        record: RecordGrant | None = None,
    ) -> None:
        self._template = settings.upload_template
        self._downloads = settings.downloads
        self._urls = urls
        self._base = base
        self._storage = storage
        self._record = record

    async def sign_url(  # noqa: PLR0913 - the names that scripts know
        self,
        method: str,
        path: str,
        *,
        expires: int = DEFAULT_URL_TTL,
        content_type: str | None = None,
        length: int | None = None,
        max_length: int | None = None,
        metadata: Mapping[str, str] | None = None,
        once: bool = False,
        overwrite: bool = True,
        filename: str | None = None,
        cache_control: str | None = None,
    ) -> SignedUrl:
        """Return a URL that allows `method` (PUT, POST, GET, HEAD) on a stored path, as events name it.

        For POST that is `{"url", "fields"}`: a form, with these fields before its one file. It lives
        `expires` seconds, at most 7 days. For an upload: the `content_type`, the exact `length` or
        greatest `max_length` in bytes, the `metadata` of the file; `once`: a stored upload uses the URL
        up; `overwrite=False`: no file is replaced. `filename` is the name that a browser saves a GET
        under. Raises `ValueError`.
        """
        grant = Grant(
            method=method,
            path=_checked(path),
            expires=int(time.time()) + int(expires),
            content_type=content_type,
            length=length,
            max_length=max_length,
            metadata=grant_metadata(metadata or {}),
            once=new_nonce() if once else None,
            on_conflict=None if overwrite else "reject",
            filename=filename,
            cache_control=cache_control,
        )
        grant.check(time.time())
        # Only the gateway itself can count how often a URL has been used.
        if self._storage is not None and not once:
            signed = await self._storage.sign(grant, expires=grant.expires)
            if signed is not None:
                if self._record is not None and grant.method in {"PUT", "POST"}:
                    await self._record(grant)
                return (
                    {"url": signed.url, "fields": dict(signed.fields)} if signed.fields else signed.url
                )
        return self._gateway_url(grant)

    def _gateway_url(self, grant: Grant) -> SignedUrl:
        """Return a URL of the gateway: the path itself where that is served, else below `/-/objects`."""
        if grant.method not in {"PUT", "POST", "GET", "HEAD"}:
            raise ValueError("files are sent with PUT or POST, and read with GET or HEAD")
        served = grant.method in {"PUT", "POST"} or self._downloads
        path = grant.path if served and self._is_upload(grant.path) else OBJECTS_PREFIX + grant.path
        if grant.method == "POST":
            fields = self._urls.form_fields(grant.at(path))
            return {"url": self._base() + encode_path(path), "fields": fields}
        return self._base() + self._urls.target(grant.at(path))

    def _is_upload(self, path: str) -> bool:
        """Tell whether the upload template maps this URL path to the same stored path."""
        match = self._template.match(encode_path(path))
        return match is not None and match.path == path


class StoredUrls:
    """The addresses of stored files. `base` is what URLs of the gateway begin with."""

    __slots__ = ("_template", "base")

    def __init__(self, template: UploadPathTemplate, base: str) -> None:
        self._template = template
        self.base = base

    def address_of(self, path: str) -> str:
        """Return the URL at which a stored path is fetched, where `--downloads` serves files.

        That is the upload URL of the path, else the one below `/-/objects`: handlers may write paths
        that no upload has, and `--stored-path` may leave variables out.
        """
        spelled = self._template.spell(path)
        return self.base + (f"{OBJECTS_PREFIX}{quote(path)}" if spelled is None else spelled)


def new_nonce() -> str:
    """Return the name of a one-time URL: 128 random bits."""
    return secrets.token_urlsafe(16)


def match_object_path(raw_path: str) -> PathMatch | None:
    """Return what a raw path below `/-/objects` names, None for any other path.

    Raises `Refusal("bad_path")`.
    """
    if not raw_path.startswith(OBJECTS_PREFIX + "/"):
        return None
    segments = paths.decode(raw_path.removeprefix(OBJECTS_PREFIX))
    if any("/" in segment for segment in segments):
        raise Refusal("bad_path", "a segment of the path contains a slash")
    key = "/".join(segments)
    paths.check_path(key)
    return PathMatch(f"/{key}", {"filepath": key})


def _checked(path: str) -> str:
    try:
        return "/" + "/".join(paths.check_path(path))
    except Refusal as refusal:
        raise ValueError(refusal.message) from None
