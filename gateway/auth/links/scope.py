"""What a link is for: uploads into its folder, or reading its folder. Everything else is refused.

Uploads are compared by the path under which they would be stored, as it is decoded and checked for the
upload itself, and not by how the request spells it.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.auth.links.link import Link
from gateway.auth.request import RequestHead
from gateway.domain.method_overrides import named_methods
from gateway.domain.partial import CONCAT_FIELD, UPLOAD_QUERY
from gateway.domain.path_template import UploadPathTemplate
from gateway.errors import Refusal

OPEN_PATH: Final = "/-/links/open"
SHARED_PATH: Final = "/-/shared"

_STATUS: Final = re.compile(r"/-/uploads/[0-9A-HJKMNP-TV-Z]{26}-[0-9]{1,6}", re.ASCII)
_KEY_QUERY: Final = "resume"
_ANY_NAME: Final = "name"
_READING: Final = frozenset({"GET", "HEAD"})
_CREATING: Final = frozenset({"PUT", "POST"})
_BY_KEY: Final = frozenset({"HEAD", "DELETE"})
_CONTINUING: Final = frozenset({"HEAD", "GET", "PATCH", "DELETE"})
_CONDITIONS: Final = ("If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since")


def check_link_request(link: Link, head: RequestHead, template: UploadPathTemplate) -> None:
    """Refuse a request that a link is not for. Raises `Refusal`."""
    if any(named_methods(head.headers, head.params)):
        raise _not_for("it takes no other method beside that of the request")
    method, raw_path = head.method, head.raw_path
    if raw_path == OPEN_PATH and method == "POST":
        return
    if link.kind == "share":
        if raw_path == SHARED_PATH and method in _READING:
            return
        raise _not_for("it is for reading its folder, at GET /-/shared")
    if method in _READING and _STATUS.fullmatch(raw_path):
        return
    _check_upload(link, head, template)


def check_link_path(link: Link, path: str) -> None:
    """Refuse an upload that would be stored elsewhere, whatever its request looked like."""
    if link.kind != "drop" or not path.startswith(link.folder):
        raise _not_for("it is for uploads into its folder")


def _check_upload(link: Link, head: RequestHead, template: UploadPathTemplate) -> None:
    path = _stored_path(head.raw_path, template)
    if path is None or not path.startswith(link.folder):
        raise _not_for("it is for uploads into its folder")
    if any(name in head.headers for name in _CONDITIONS):
        raise _not_for("it takes no conditions: what is there already is not told")
    if CONCAT_FIELD in head.headers:
        raise _not_for("files are sent whole, and not as parts to be joined")
    has_key = _KEY_QUERY in head.params
    if head.method in _CREATING:
        if "Content-Range" in head.headers and not has_key:
            raise _not_for("others may send a file of this name: a range needs `?resume=KEY`")
        return
    goes_on = UPLOAD_QUERY in head.params or (has_key and head.method in _BY_KEY)
    if head.method not in _CONTINUING or not goes_on:
        raise _not_for("it is for uploads, and nothing else")


def _stored_path(raw_path: str, template: UploadPathTemplate) -> str | None:
    """Return where a path of an upload leads, or a file in the folder of such a path."""
    if raw_path == "/":
        return None
    if not raw_path.endswith("/"):
        match = template.match(raw_path)
        return None if match is None else match.path
    match = template.match(raw_path + _ANY_NAME)
    return match.path if match is not None and match.path.endswith(f"/{_ANY_NAME}") else None


def _not_for(reason: str) -> Refusal:
    return Refusal("forbidden", f"this link does not allow that: {reason}")
