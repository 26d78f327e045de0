"""Plugin photos: settings, names of events and photos, keys, metadata.

A name from here is safe in a key, and a text safe in a header. No network and no files.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from photo_images import COPY_SUFFIX, FORMATS, HEIC_TYPES, Sizes

UPLOADS: Final = "uploads"
MAX_METADATA_BYTES: Final = 2048
"""Bytes of all names and values of the metadata of an object."""
SIGNED_PATH: Final = "/-/objects/"
"""Path of signed URLs of the gateway itself; those of a bucket lead to its host."""

_CHOICES: Final = {
    "originals": ("owner", "all"),
    "through": ("storage", "gateway"),
    "heic": ("auto", "never"),
}
_EVENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PHOTO: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_UNTOLD: Final = re.compile(r"[^\w .()-]+")


class Wrong(Exception):
    """A request that cannot be served: status, code, and a message that says what to do."""

    def __init__(self, status: int, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": code, "message": message, **facts}


@dataclass(frozen=True, slots=True)
class Rules:
    """The Config plugin `photos`, checked. Bytes, pixels, seconds."""

    max_bytes: int = 25_000_000
    max_pixels: int = 50_000_000
    copy_side: int = 2048
    thumb_side: int = 480
    upload_seconds: int = 900
    view_seconds: int = 900
    originals: str = "owner"
    through: str = "storage"
    heic: str = "auto"

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Rules:
        """Read a config. Raises `ValueError` that names the key that is wrong."""
        defaults = {spec.name: spec.default for spec in fields(cls)}
        for key, value in config.items():
            if key not in defaults:
                raise ValueError(
                    f"config photos: there is no key {key}; the keys are {', '.join(defaults)}"
                )
            if key in _CHOICES:
                if value not in _CHOICES[key]:
                    raise ValueError(f"config photos: {key} is {' or '.join(_CHOICES[key])}")
            elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"config photos: {key} must be a whole number from 1 on")
        return cls(**config)

    @property
    def types(self) -> list[str]:
        """The content types that are taken, sorted. HEIC is one where its extra is installed."""
        refused = HEIC_TYPES if self.heic == "never" else {}
        return sorted(FORMATS.keys() - refused.keys())

    @property
    def sizes(self) -> Sizes:
        """Bounds of the copies."""
        return Sizes(self.max_pixels, self.copy_side, self.thumb_side)


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo as its uploader announced it; `owner` is None without authentication.

    `owner_kind` says who authenticated the owner: equal names of two issuers are two owners.
    """

    event_id: str
    photo_id: str
    content_type: str
    title: str = ""
    description: str = ""
    owner: str | None = None
    owner_kind: str | None = None

    @property
    def record_key(self) -> str:
        """The key of its record."""
        return record_key(self.event_id, self.photo_id)

    @property
    def original(self) -> str:
        """The key of the upload."""
        return f"{UPLOADS}/event_{self.event_id}/{self.photo_id}.{FORMATS[self.content_type][0]}"

    @property
    def copy(self) -> str:
        """The key of the optimized copy."""
        return f"photos/event_{self.event_id}/{self.photo_id}.{COPY_SUFFIX}"

    @property
    def thumb(self) -> str:
        """The key of the thumbnail."""
        return f"thumbs/event_{self.event_id}/{self.photo_id}.{COPY_SUFFIX}"

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata that is signed with the upload, without empty values."""
        told = {
            "photoid": self.photo_id,
            "eventid": self.event_id,
            "contenttype": self.content_type,
            "title": self.title,
            "description": self.description,
            "owner": self.owner or "",
            "ownerkind": self.owner_kind or "",
        }
        return {name: value for name, value in told.items() if value}

    @property
    def file_name(self) -> str:
        """The file name for a download of the original."""
        name = _UNTOLD.sub(" ", self.title).strip(" .")[:80] or self.photo_id
        return f"{name}.{FORMATS[self.content_type][0]}"


def event_id(text: str) -> str:
    """Return the id of an event. Raises `Wrong` (400) unless it is safe in a key."""
    if not _EVENT.fullmatch(text):
        message = "an event id has 1 to 64 letters, digits, - and _, and starts with a letter or digit"
        raise Wrong(400, "bad_event", message)
    return text


def photo_id(text: str) -> str:
    """Return the id of a photo. Raises `Wrong` (404) for an impossible id."""
    if not _PHOTO.fullmatch(text):
        raise nothing()
    return text


def nothing() -> Wrong:
    """Return the refusal of an unknown photo."""
    return Wrong(404, "not_found", "there is no such photo")


def record_prefix(event: str) -> str:
    """Return the prefix of the records of an event's photos."""
    return f"event_{event}/"


def record_key(event: str, photo: str) -> str:
    """Return the key of the record of a photo."""
    return record_prefix(event) + photo


Caller = tuple[str, str] | None
"""Name and kind of the caller, None without authentication."""


def announced(event: str, body: Mapping[str, Any], caller: Caller, rules: Rules) -> Photo:
    """Return a new photo for the body of a request that fits the schema. Raises `Wrong`."""
    content_type = body["contentType"]
    if content_type not in (valid := rules.types):
        message = f"Invalid contentType for image. Valid values are: {', '.join(valid)}"
        raise Wrong(400, "unsupported_content_type", message, valid=valid)
    if body.get("bytes", 0) > rules.max_bytes:
        message = f"a photo may have {rules.max_bytes} bytes at the most"
        raise Wrong(413, "too_large", message, max_bytes=rules.max_bytes)
    title, description = (_plain(name, body.get(name, "")) for name in ("title", "description"))
    photo = Photo(event_id(event), str(uuid.uuid4()), content_type, title, description, *(caller or ()))
    size = sum(len(name) + len(value.encode()) for name, value in photo.metadata.items())
    if size > MAX_METADATA_BYTES:
        over = size - MAX_METADATA_BYTES
        raise Wrong(400, "too_long", f"title and description are {over} bytes too long together")
    return photo


def _plain(name: str, text: str) -> str:
    """Return a text in one line. Raises `Wrong` if no header can carry it."""
    line = " ".join(text.split())
    if _CONTROL.search(line):
        raise Wrong(400, "bad_text", f"{name} contains a control character")
    return line


def read_back(metadata: Mapping[str, str], key: str) -> Photo | None:
    """Return the photo that an object's metadata describes, None for objects of others."""
    try:
        photo = Photo(
            event_id(metadata["eventid"]),
            photo_id(metadata["photoid"]),
            metadata["contenttype"],
            metadata.get("title", ""),
            metadata.get("description", ""),
            metadata.get("owner") or None,
            metadata.get("ownerkind") or None,
        )
        return photo if photo.original == key else None
    except (KeyError, Wrong):
        return None
