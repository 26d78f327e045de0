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
_bound: ContextVar[dict[str, Any]] = ContextVar("gateway_log_facts")
_hidden: ContextVar[hide | None] = ContextVar("gateway_log_hidden", default=None)
_NOTHING: Mapping[str, Any] = MappingProxyType({})
_QUOTED = frozenset(' "=\n')


def event(name: str, **fields: object) -> dict[str, object]:
    """Return the `extra` of a log call: a fixed event word (`upload.failed`) and its fields.

    The sentence of a log line may change, the word may not: alerts and searches match on it.
    """
    return {"event": name, "fields": fields}


def bound() -> Mapping[str, Any]:
    """Return the facts that lines of this context carry."""
    return _bound.get(_NOTHING)


class bind:  # noqa: N801 (used like a function; every request passes here, and a generator is slow)
    """Make every log line written inside carry `facts` (upload_id, event_id, plugin ...)."""

    __slots__ = ("_facts", "_token")

    def __init__(self, **facts: Any) -> None:
        self._facts = facts

    def __enter__(self) -> None:
        self._token = _bound.set({**bound(), **self._facts})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def add(**facts: Any) -> None:
    """Make every further line inside the innermost `bind` carry `facts` too."""
    _bound.get().update(facts)


class hide:  # noqa: N801 (as above)
    """Keep what `find` returns, such as a request's token, out of every line written inside.

    `find` is called once, when the first line is written; most requests write none.
    """

    __slots__ = ("_find", "_found", "_outer", "_token")

    def __init__(self, find: Callable[[], Iterable[str]]) -> None:
        self._find = find
        self._found: tuple[str, ...] | None = None

    def __enter__(self) -> None:
        self._outer = _hidden.get()
        self._token = _hidden.set(self)

    def __exit__(self, *_: object) -> None:
        _hidden.reset(self._token)

    def texts(self) -> tuple[str, ...]:
        """Return what is hidden here, and by whom this one is surrounded."""
        if self._found is None:
            outer = self._outer.texts() if self._outer is not None else ()
            self._found = (*outer, *self._find())
        return self._found


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    own = getattr(record, "fields", getattr(record, "facts", None))
    return {**bound(), **(own if isinstance(own, Mapping) else {})}


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class _Masked(logging.Formatter):
    """A formatter that masks messages, texts among the facts, and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Masking = str
        self.always: Mapping[str, Any] = _NOTHING

    def message(self, record: logging.LogRecord) -> str:
        """Return what the line says."""
        return self._masked(record.getMessage())

    def facts(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the facts that the line carries."""
        return {
            key: self._masked(value) if isinstance(value, str) else value
            for key, value in {**self.always, **_facts(record)}.items()
        }

    def event(self, record: logging.LogRecord) -> str | None:
        """Return the event word of the line, if it has one."""
        word = getattr(record, "event", None)
        return word if isinstance(word, str) else None

    def traceback(self, record: logging.LogRecord) -> str | None:
        """Return the traceback of the line, if it has one."""
        return self._masked(self.formatException(record.exc_info)) if record.exc_info else None

    def _masked(self, text: str) -> str:
        hiding = _hidden.get()
        for hidden in hiding.texts() if hiding is not None else ():
            text = text.replace(hidden, "[redacted]")
        return self.mask(text)


class TextFormatter(_Masked):
    """`time LEVEL logger: message key=value ...`, a traceback below; the event word is left out.

    Control characters are escaped and further lines indented: nothing logged can look like a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (and its traceback, if it has one)."""
        message, *rest = _printable(self.message(record)).split("\n")
        facts = "".join(f" {key}={_value(value)}" for key, value in self.facts(record).items())
        traceback = self.traceback(record)
        if traceback is not None:
            rest += _printable(traceback).split("\n")
        first = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {message}{facts}"
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
        entry = {
            **head,
            **self.facts(record),
            **head,
        }  # head first in the line, and no field replaces it
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
    """Ours, as told from those that a program around us may have set."""


def configure(style: str | None = None, level: str = "info") -> None:
    """Send the log to stderr: `text`, `json`, or None: text on a terminal, else JSON.

    The project's own lines from `level` on, those of others (asyncio, libraries) from warnings on.
    """
    if style is None:
        style = "text" if sys.stderr.isatty() else "json"
    handler = _Handler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    logger = logging.getLogger("gateway")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    others = logging.getLogger()
    others.handlers[:] = [one for one in others.handlers if not isinstance(one, _Handler)] + [handler]


def mask_with(mask: Masking) -> None:
    """Take secrets out of all that is logged from now on, by way of `configure`'s handler."""
    for handler in logging.getLogger("gateway").handlers:
        if isinstance(handler.formatter, _Masked):
            handler.formatter.mask = mask


def always(**facts: Any) -> None:
    """Make every line carry `facts`, whatever context it comes from, by way of `configure`'s handler."""
    for handler in logging.getLogger("gateway").handlers:
        if isinstance(handler.formatter, _Masked):
            handler.formatter.always = facts


def take_thread_failures() -> None:
    """Log what ends a thread, as one line that is masked, instead of Python's words on stderr."""

    def failed(what: threading.ExceptHookArgs) -> None:
        error = what.exc_value
        if error is not None:
            logging.getLogger("gateway").error("a thread failed", exc_info=error)

    threading.excepthook = failed
