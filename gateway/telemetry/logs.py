"""Structured logging to stderr, as text or JSON lines, with fixed event words and masked secrets.

A call is `log.warning("upload failed", extra=event("upload.failed", reason=code))`. Fields bound to
the context (`bind`: `upload_id`, `event_id`) are on every line, on the server's loop and in script
executors. Lines of asyncio and other libraries have the same format.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any

Masking = Callable[[str], str]
_bound: ContextVar[dict[str, Any]] = ContextVar("gateway_log_fields")
_hidden: ContextVar[hide | None] = ContextVar("gateway_log_hidden", default=None)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_QUOTED = frozenset(' "=\n')


def event(name: str, **fields: object) -> dict[str, object]:
    """Return the `extra` of a log call: a fixed event word (`upload.failed`) and its fields.

    The sentence of a log line may change, the word may not: alerts and searches match on it.
    """
    return {"event": name, "fields": fields}


def bound_fields() -> Mapping[str, Any]:
    """Return the fields of all lines of this context."""
    return _bound.get(_NOTHING)


class bind:  # noqa: N801 (used like a function; every request enters it, and a generator is slow)
    """Add `fields` (upload_id, event_id, plugin ...) to every log line written inside."""

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _bound.set({**bound_fields(), **self._fields})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def add_fields(**fields: Any) -> None:
    """Add `fields` to every further line inside the innermost `bind`."""
    _bound.get().update(fields)


class hide:  # noqa: N801 (as above)
    """Redact the texts that `find_secrets` returns, such as a token, in every line written inside.

    `find_secrets` is called once, when the first line is written; most requests write none.
    """

    __slots__ = ("_find_secrets", "_outer", "_secrets", "_token")

    def __init__(self, find_secrets: Callable[[], Iterable[str]]) -> None:
        self._find_secrets = find_secrets
        self._secrets: tuple[str, ...] | None = None

    def __enter__(self) -> None:
        self._outer = _hidden.get()
        self._token = _hidden.set(self)

    def __exit__(self, *_: object) -> None:
        _hidden.reset(self._token)

    def secrets(self) -> tuple[str, ...]:
        """Return the texts of this block and of the blocks around it."""
        if self._secrets is None:
            outer = self._outer.secrets() if self._outer is not None else ()
            self._secrets = (*outer, *self._find_secrets())
        return self._secrets


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Masked(logging.Formatter):
    """A formatter that masks secrets in messages, fields and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Masking = str
        self.process_fields: Mapping[str, Any] = _NOTHING

    def message(self, record: logging.LogRecord) -> str:
        """Return the sentence of the line."""
        return self._masked(record.getMessage())

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields of the line."""
        own = getattr(record, "fields", None)
        fields = {**self.process_fields, **bound_fields(), **(own if isinstance(own, Mapping) else {})}
        return {k: self._masked(v) if isinstance(v, str) else v for k, v in fields.items()}

    def event(self, record: logging.LogRecord) -> str | None:
        """Return the event word of the line, if it has one."""
        word = getattr(record, "event", None)
        return word if isinstance(word, str) else None

    def traceback(self, record: logging.LogRecord) -> str | None:
        """Return the traceback of the line, if it has one."""
        return self._masked(self.formatException(record.exc_info)) if record.exc_info else None

    def _masked(self, text: str) -> str:
        block = _hidden.get()
        for secret in block.secrets() if block is not None else ():
            text = text.replace(secret, "[redacted]")
        return self.mask(text)


class TextFormatter(_Masked):
    """`time LEVEL logger: message key=value ...`, a traceback below; the event word is left out.

    Control characters are escaped and further lines indented, so that no logged text can forge a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (and its traceback, if it has one)."""
        message, *rest = _printable(self.message(record)).split("\n")
        fields = "".join(f" {key}={_value(value)}" for key, value in self.fields(record).items())
        traceback = self.traceback(record)
        if traceback is not None:
            rest += _printable(traceback).split("\n")
        first = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {message}{fields}"
        return "\n    ".join([first, *rest])


class JsonFormatter(_Masked):
    """One JSON object a line: `time, level, logger, event, message`, the fields, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        head: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        word = self.event(record)
        if word is not None:
            head["event"] = word
        head["message"] = self.message(record)
        # The head comes first in the line, and no field replaces it.
        entry = {**head, **self.fields(record), **head}
        traceback = self.traceback(record)
        if traceback is not None:
            entry["traceback"] = traceback
        return json.dumps(entry, ensure_ascii=False, default=str)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _value(value: Any) -> str:
    text = _printable(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & _QUOTED else text


class _Handler(logging.StreamHandler[Any]):
    """The handler that `configure` sets, distinct from those of an embedding program."""


def configure(style: str | None = None, level: str = "info") -> None:
    """Log to stderr as `text` or `json`; None: text on a terminal, else JSON.

    Lines of the gateway are logged from `level` on, those of libraries from `warning` on.
    """
    if style is None:
        style = "text" if sys.stderr.isatty() else "json"
    handler = _Handler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    logger = logging.getLogger("gateway")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    root = logging.getLogger()
    root.handlers[:] = [old for old in root.handlers if not isinstance(old, _Handler)] + [handler]


def set_mask(mask: Masking) -> None:
    """Mask secrets in every line of `configure`'s handler."""
    for handler in logging.getLogger("gateway").handlers:
        if isinstance(handler.formatter, _Masked):
            handler.formatter.mask = mask


def set_process_fields(**fields: Any) -> None:
    """Add `fields` to every line of `configure`'s handler, whatever its context."""
    for handler in logging.getLogger("gateway").handlers:
        if isinstance(handler.formatter, _Masked):
            handler.formatter.process_fields = fields


def log_thread_failures() -> None:
    """Log exceptions that end a thread as one masked line, instead of Python's text on stderr."""

    def failed(args: threading.ExceptHookArgs) -> None:
        error = args.exc_value
        if error is not None:
            log = logging.getLogger("gateway")
            log.error("a thread failed", exc_info=error, extra=event("thread.failed"))

    threading.excepthook = failed
