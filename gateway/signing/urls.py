"""Signs grants as the query of a URL, and verifies the target and the headers of a request. Pure.

No field of a URL is read before its signature has been verified. What is signed is a list of texts,
each prefixed with its length, so that no two requests sign the same bytes; method, path, every field
and every other parameter is in it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from gateway.domain.grant import BODY_METHODS, FIELD_PREFIX, MAX_LIFETIME, Grant, QueryPairs, encode_path
from gateway.domain.metadata import METADATA_PREFIX
from gateway.errors import Refusal
from gateway.signing.keys import derive_keys, sign_texts
from gateway.signing.targets import decode_path, read_query, write_query

URL_SKEW: Final = 60
"""Seconds by which the signing gateway's clock may be ahead. They never extend a URL's lifetime."""

_PURPOSE: Final = b"upload-gateway signed url v1"
_KEY_ID: Final = b"upload-gateway signed url v1: key id"
_META: Final = "Meta-"
_LENGTH: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_POLICIES: Final = (None, "reject")
_FIELDS: Final = {
    "Expires": "expires",
    "Content-Type": "content_type",
    "Length": "length",
    "Max-Length": "max_length",
    "Once": "once",
    "On-Conflict": "on_conflict",
    "Filename": "filename",
    "Cache-Control": "cache_control",
    "Link": "link",
}
"""The names of a URL's fields, without `X-Gateway-`, and those of the grant."""


class UrlSigner:
    """Signs grants and verifies requests. `clock` returns Unix time in seconds.

    The first of `keys` signs, all of them verify: a new key goes before the old one, which stays until
    its last URL has expired. Raises `ValueError` for none, or one under 32 bytes.
    """

    __slots__ = ("_clock", "_keys", "_newest")

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        named = [(_id_of(key), key) for key in derive_keys(keys, _PURPOSE)]
        self._newest = named[0][0]
        self._keys = dict(named)
        self._clock = clock

    def __repr__(self) -> str:
        return "<UrlSigner>"

    def sign(self, grant: Grant) -> str:
        """Return the query of the grant's URL: its own parameters, the `X-Gateway-*`, the signature.

        Raises `ValueError` for a grant that cannot be given.
        """
        return write_query(self._signed(grant).items(), grant.query)

    def target(self, grant: Grant) -> str:
        """Return path and query of the grant's URL, as they go over the wire. Raises as `sign`."""
        return f"{encode_path(grant.path)}?{self.sign(grant)}"

    def verify(self, method: str, raw_path: str, raw_query: str) -> Grant:
        """Return what the signature of a request allows; path and query are as sent, still encoded.

        Raises `Refusal`: `bad_signature` where this installation did not sign this method, path and
        query, or where there is no signature; `expired`.
        """
        try:
            path = decode_path(raw_path)
            own, others = read_query(raw_query)
            grant = self._granted(method, path, own, others)
        except (ValueError, KeyError):
            raise _bad_signature() from None
        self._check_time(grant)
        return grant

    def form_fields(self, grant: Grant) -> dict[str, str]:
        """Return the same as the fields of a form, which are sent before its file. Raises as `sign`."""
        return {FIELD_PREFIX + name: value for name, value in self._signed(grant).items()}

    def _signed(self, grant: Grant) -> dict[str, str]:
        grant.check(self._clock())
        own = {"Key": self._newest, **_written(grant)}
        signature = _mac(self._keys[self._newest], grant.method, grant.path, own, grant.query)
        return {**own, "Signature": signature}

    def verify_form(self, raw_path: str, raw_query: str, fields: Mapping[str, str]) -> Grant:
        """Return what the signed `fields` of a form allow, by their names without `X-Gateway-`.

        A field that is changed, left out or added is one that was not signed. Raises as `verify`.
        """
        try:
            own, others = read_query(raw_query) if raw_query else ({}, ())
            if own:
                raise ValueError("signed by its URL, too")
            grant = self._granted("POST", decode_path(raw_path), dict(fields), others)
        except (ValueError, KeyError):
            raise _bad_signature() from None
        self._check_time(grant)
        return grant

    def _granted(self, method: str, path: str, own: dict[str, str], others: QueryPairs) -> Grant:
        """Return the grant of fields whose signature is genuine. Raises `ValueError`, `KeyError`."""
        signature = own.pop("Signature")
        key = self._keys[own["Key"]]
        return _read(_signed_method(key, signature, method, path, own, others), path, own, others)

    def _check_time(self, grant: Grant) -> None:
        left = grant.expires - self._clock()
        if left <= 0:
            raise Refusal("expired", "this signed URL has expired: ask for a new one")
        if left > MAX_LIFETIME + URL_SKEW:
            raise _bad_signature()


def _bad_signature() -> Refusal:
    return Refusal(
        "bad_signature", "this URL was not signed for this request: use it exactly as it was given"
    )


def _id_of(key: bytes) -> str:
    return hmac.digest(key, _KEY_ID, hashlib.sha256).hex()[:8]


def _written(grant: Grant) -> dict[str, str]:
    """Return the grant as the fields of a URL, without key and signature."""
    fields = {
        name: str(value)
        for name, attribute in _FIELDS.items()
        if (value := getattr(grant, attribute)) is not None
    }
    return fields | {_META + name: value for name, value in grant.metadata.items()}


def _read(method: str, path: str, own: Mapping[str, str], others: QueryPairs) -> Grant:
    """Return the grant that `_written` wrote. Raises `ValueError`, `KeyError`."""
    metadata = {name: value for name, value in own.items() if name.startswith(_META)}
    if (
        own.keys() - metadata.keys() - _FIELDS.keys() - {"Key"}
        or own.get("On-Conflict") not in _POLICIES
    ):
        raise ValueError("signed by a newer version, with fields that are not known here")
    return Grant(
        method=method,
        path=path,
        expires=int(own["Expires"]),
        content_type=own.get("Content-Type"),
        length=_number(own.get("Length")),
        max_length=_number(own.get("Max-Length")),
        metadata={name.removeprefix(_META): value for name, value in metadata.items()},
        once=own.get("Once"),
        on_conflict="reject" if "On-Conflict" in own else None,
        filename=own.get("Filename"),
        cache_control=own.get("Cache-Control"),
        link=own.get("Link"),
        query=others,
    )


def _number(text: str | None) -> int | None:
    return None if text is None else int(text)


def _signed_method(
    key: bytes, signature: str, method: str, path: str, own: Mapping[str, str], others: QueryPairs
) -> str:
    """Return the method that was signed: the request's, or GET for a HEAD. Raises `ValueError`."""
    signed = ""
    for candidate in ("HEAD", "GET") if method == "HEAD" else (method,):
        mac = _mac(key, candidate, path, own, others)
        if hmac.compare_digest(mac.encode(), signature.encode()):
            signed = candidate
    if not signed:
        raise ValueError("the signature does not match")
    return signed


def _mac(key: bytes, method: str, path: str, own: Mapping[str, str], others: QueryPairs) -> str:
    """Sign all of it; the order of the URL's own fields does not matter."""
    texts = [method, path, str(len(own))]
    texts += [text for pair in sorted(own.items()) for text in pair]
    texts += [text for pair in others for text in pair]
    return sign_texts(key, texts)


def reject_mismatch(
    grant: Grant, headers: Mapping[str, str], whole_lengths: Sequence[str] | None = None
) -> None:
    """Raise Refusal `not_granted` for another request than the URL was signed for.

    What was signed and not sent is refused, and so is what was sent and contradicts what was signed.
    The Content-Type is the very text that was signed, once. An exact length needs that Content-Length;
    a greatest one admits a body without a length, which is counted while it is received. Where the body
    may be a part of a file, `whole_lengths` are those of the whole file, in place of Content-Length.
    """
    lengths = _values(headers, "content-length") if whole_lengths is None else list(whole_lengths)
    if grant.content_type is not None and _values(headers, "content-type") != [grant.content_type]:
        raise _not_granted(f"its Content-Type must be {grant.content_type}")
    if grant.length is not None and lengths != [str(grant.length)]:
        what = "Content-Length" if whole_lengths is None else "whole length"
        raise _not_granted(f"its {what} must be {grant.length}")
    if grant.max_length is not None and any(_above(text, grant.max_length) for text in lengths):
        raise _not_granted(f"its body may have {grant.max_length} bytes")
    if grant.method not in BODY_METHODS:
        return
    for name, value in headers.items():
        lowered = name.lower()
        if lowered.startswith(METADATA_PREFIX):
            signed = grant.metadata.get(lowered.removeprefix(METADATA_PREFIX))
            if signed is None or _text(value) != signed.strip(" \t"):
                raise _not_granted("its metadata is that of the URL, and no other")


def reject_unenforceable(grant: Grant, headers: Mapping[str, str]) -> None:
    """Raise Refusal `not_granted` for terms that only an endpoint that stores files can enforce."""
    uncounted = grant.max_body_bytes is not None and not _values(headers, "content-length")
    if uncounted or grant.once is not None or grant.on_conflict is not None or grant.metadata:
        raise _not_granted("its terms apply to stored files only")


def _above(length: str, limit: int) -> bool:
    return not _LENGTH.fullmatch(length) or int(length) > limit


def _values(headers: Mapping[str, str], name: str) -> list[str]:
    """Return every line of a header: a second one must not hide the first."""
    return [value.strip(" \t") for key, value in headers.items() if key.lower() == name]


def _text(value: str) -> str:
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace").strip(" \t")


def _not_granted(reason: str) -> Refusal:
    return Refusal("not_granted", f"this URL was signed for another request: {reason}")
