"""Foundation: one log line per fact, as text for a person or JSON for a machine.

Who is being served travels in context variables (`bind`), so that every line written on the way,
on the server's loop or in a script lane, carries `upload_id` and `event_id`. Lines go to stderr.
Extra facts are given as `extra={"facts": {...}}`. May import the standard library only.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any

_bound: ContextVar[Mapping[str, Any]] = ContextVar("gateway_log_facts")
_NOTHING: Mapping[str, Any] = {}
_QUOTED = frozenset(' "=\n')


def bound() -> Mapping[str, Any]:
    """Return the facts that lines of this context carry."""
    return _bound.get(_NOTHING)


@contextlib.contextmanager
def bind(**facts: Any) -> Iterator[None]:
    """Make every log line written inside carry `facts` (upload_id, event_id, plugin ...)."""
    token = _bound.set({**bound(), **facts})
    try:
        yield
    finally:
        _bound.reset(token)


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    own = getattr(record, "facts", None)
    return {**bound(), **(own if isinstance(own, Mapping) else {})}


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    """`time LEVEL logger: message key=value ...`, a traceback below.

    Control characters are escaped and further lines indented: nothing logged can look like a line.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (and its traceback, if it has one)."""
        message, *rest = _printable(record.getMessage()).split("\n")
        facts = "".join(f" {key}={_value(value)}" for key, value in _facts(record).items())
        if record.exc_info:
            rest += _printable(self.formatException(record.exc_info)).split("\n")
        first = f"{_timestamp(record)} {record.levelname:<7} {record.name}: {message}{facts}"
        return "\n    ".join([first, *rest])


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time, level, logger, message`, the facts, `traceback`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        entry: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, ensure_ascii=False, default=str)


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text)


def _value(value: Any) -> str:
    text = _printable(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or set(text) & _QUOTED else text


def configure(style: str | None = None, level: str = "info") -> None:
    """Send the project's log to stderr: `text`, `json`, or None: text on a terminal, else JSON."""
    if style is None:
        style = "text" if sys.stderr.isatty() else "json"
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if style == "text" else JsonFormatter())
    logger = logging.getLogger("gateway")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
