"""The decision of a handler: its `handle`, and its changes to the event.

What is not understood refuses. A decision counts as soon as `terminate` is called, so that neither a
forgotten `await` nor a swallowed exception lets an upload pass.
"""

from __future__ import annotations

import json
import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, NamedTuple, cast

from gateway.domain.metadata import normalize_metadata
from gateway.domain.model import ON_CONFLICT, OnConflict
from gateway.errors import GatewayError, Refusal
from gateway.plugins.scripting.quotas import EVENT_KEY, read_quotas
from gateway.plugins.scripting.values import Event

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
BYTES = "application/octet-stream"

MAX_RESULT_BYTES: Final = 16 * 1024
"""Bytes of a handler's result, as JSON in UTF-8."""


class InvalidResult(GatewayError):
    """A handler left something invalid; the message tells the plugin's author what."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One `terminate()`: the status and the body of the answer; below 400 the upload goes on."""

    code: int
    body: bytes
    content_type: str
    output: Any


class Handle:
    """The `handle` of a script. `verdict` is its decision, `invalid` a call that has no meaning.

    `latest_progress` is the units done and in all, as last reported. `latest_result` is what the
    handler left for the client, None if nothing. `created` is the Unix time of a journalled event.
    """

    verdict: Verdict | None = None
    invalid: InvalidResult | None = None
    latest_progress: tuple[float, float] | None = None
    latest_result: dict[str, Any] | None = None
    created: float | None = None

    @property
    def refusal(self) -> Verdict | None:
        """The verdict if it refuses, else None."""
        return self.verdict if self.verdict is not None and self.verdict.code >= 400 else None

    def terminate(self, code: int = 200, output: Any = None) -> _AlreadyDone:
        """Refuse (`code >= 400`) with that status and output, or accept. The first refusal is final.

        `output`: str is text, dict and list are JSON, bytes are themselves, None is empty. Raises
        `InvalidResult` for a code outside 100..599 or another output.
        """
        if self.invalid is None and self.refusal is None:
            try:
                self.verdict = _verdict(code, output)
            except InvalidResult as error:
                self.invalid = error
                raise
        return _AlreadyDone()

    def progress(self, done: float, total: float) -> _AlreadyDone:
        """Report progress in any unit; `/-/uploads/<id>` shows the latest while the handler runs.

        A call costs next to nothing. Raises `ValueError` unless both are numbers from 0 on.
        """
        if not (_is_amount(done) and _is_amount(total)):
            raise ValueError("progress() takes two numbers, 0 or more")
        self.latest_progress = (done, total)
        return _AlreadyDone()

    def result(self, values: dict[str, Any]) -> _AlreadyDone:
        """Leave a JSON object for the client: in its answer if it waits, and at `/-/uploads/<id>`.

        The last call counts. Raises `InvalidResult` for what is no dict, no JSON, or larger than
        `MAX_RESULT_BYTES`; the result of an earlier call stays.
        """
        self.latest_result = _json_object(values)
        return _AlreadyDone()


class _AlreadyDone:
    """The awaitable of `handle.terminate()`: ready at once, the call has already taken effect."""

    def __await__(self) -> Generator[None, None, None]:
        return
        yield


def _is_amount(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value >= 0


def _verdict(code: Any, output: Any) -> Verdict:
    if not isinstance(code, int) or isinstance(code, bool) or not 100 <= code <= 599:
        raise InvalidResult("terminate() takes a code from 100 to 599")
    if output is None:
        return Verdict(code, b"", TEXT, None)
    if isinstance(output, bytes):
        return Verdict(code, output, BYTES, output)
    try:
        if isinstance(output, str):
            return Verdict(code, output.encode(), TEXT, output)
        if isinstance(output, dict | list):
            return Verdict(code, json.dumps(output, ensure_ascii=False).encode(), JSON, output)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(f"terminate() cannot write its output: {type(error).__name__}") from None
    raise InvalidResult("terminate() takes an output of str, dict, list, bytes or None")


def _json_object(values: Any) -> dict[str, Any]:
    """Return a copy that shares nothing with what the script goes on with. Raises `InvalidResult`."""
    if not isinstance(values, dict):
        raise InvalidResult("result() takes a dict")
    try:
        text = json.dumps(values, ensure_ascii=False, allow_nan=False)
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidResult(f"result() takes what JSON can say: {type(error).__name__}") from None
    if size > MAX_RESULT_BYTES:
        raise InvalidResult(
            f"result() takes at most {MAX_RESULT_BYTES} bytes as JSON, not {size}: keep the rest in"
            " records or in a file"
        )
    copied: dict[str, Any] = json.loads(text)
    return copied


class Changes(NamedTuple):
    """What an `APIGW.OnFileUploading` handler changes; `keys` are the optional ones that it set."""

    path: str
    keys: frozenset[str]
    max_bytes: int | None = None
    on_conflict: OnConflict = "replace"
    metadata: dict[str, str] | None = None
    quotas: Mapping[str, dict[str, int]] = MappingProxyType({})


class Received(NamedTuple):
    """Path, conflict policy, metadata and quotas as an `APIGW.OnFileReceived` handler leaves them."""

    path: str
    on_conflict: OnConflict
    metadata: dict[str, str]
    quotas: Mapping[str, dict[str, int]] = MappingProxyType({})


class Served(NamedTuple):
    """What an `APIGW.OnFileDownloading` handler decides: which file, under which name, how cached.

    Archives need `allow_archive`: no handler runs for the single files of an archive.
    """

    path: str
    filename: str | None
    cache_control: str | None
    allow_archive: bool


_OPTIONAL_KEYS: Final = frozenset({"max_bytes", "on_conflict", "metadata", EVENT_KEY})
_NO_KEYS: Final[frozenset[str]] = frozenset()


def read_changes(event: Event) -> Changes:
    """Read what `Changes` has of an event after its handler. Raises `InvalidResult`."""
    path = read_path(event)
    given = dict.keys(event)
    if given.isdisjoint(_OPTIONAL_KEYS):
        return Changes(path, _NO_KEYS)
    max_bytes = dict.get(event, "max_bytes")
    if max_bytes is not None and (
        not isinstance(max_bytes, int) or isinstance(max_bytes, bool) or max_bytes < 0
    ):
        raise InvalidResult('event["max_bytes"] must be a whole number of bytes, 0 or more, or None')
    keys = frozenset(given & _OPTIONAL_KEYS)
    metadata = _metadata(event) if "metadata" in keys else None
    return Changes(path, keys, max_bytes, _on_conflict(event), metadata, _quotas(event))


def _quotas(event: Event) -> dict[str, dict[str, int]]:
    try:
        return read_quotas(event)
    except ValueError as error:
        raise InvalidResult(f'event["{EVENT_KEY}"]: {error}') from None


def _on_conflict(event: Event) -> OnConflict:
    on_conflict = dict.get(event, "on_conflict", "replace")
    if on_conflict not in ON_CONFLICT:
        raise InvalidResult(f'event["on_conflict"] must be one of {", ".join(ON_CONFLICT)}')
    return cast(OnConflict, on_conflict)


def read_received(event: Event) -> Received:
    """Read path, on_conflict and metadata of an event after its handler. Raises `InvalidResult`."""
    return Received(read_path(event), _on_conflict(event), _metadata(event), _quotas(event))


def _metadata(event: Event) -> dict[str, str]:
    metadata = dict.get(event, "metadata")
    if not isinstance(metadata, dict) or not all(isinstance(name, str) for name in metadata):
        raise InvalidResult('event["metadata"] must be a dict of str')
    try:
        return normalize_metadata(metadata)
    except Refusal as refusal:
        raise InvalidResult(f'event["metadata"]: {refusal.message}') from None


def read_served(event: Event) -> Served:
    """Read what `Served` has of an event after its handler. Raises `InvalidResult`."""
    filename, cache_control = _line(event, "filename"), _line(event, "cache_control")
    archive = dict.get(event, "allow_archive") is True
    return Served(read_path(event), filename, cache_control, allow_archive=archive)


def _line(event: Event, key: str) -> str | None:
    text = dict.get(event, key)
    if text is None or (isinstance(text, str) and text.isprintable() and 0 < len(text) < 256):
        return text
    raise InvalidResult(f'event["{key}"] must be a str of one line, at most 255 characters, or None')


def read_path(event: Event) -> str:
    """Read the path of an event after its handler. Raises `InvalidResult`."""
    path = dict.get(event, "path")
    if not isinstance(path, str):
        raise InvalidResult('event["path"] must be a str')
    return path if path.startswith("/") else f"/{path}"
