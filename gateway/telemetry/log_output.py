"""Log lines on stderr: JSON, or text, with secrets masked. Lines of libraries have the same format.

On a terminal a line is short and coloured, without ids; elsewhere it has everything.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.domain.units import format_size
from gateway.telemetry.logs import NO_FIELDS, bound_fields, event, hidden_secrets

Masking = Callable[[str], str]
_QUOTED = frozenset(' "=\n')
_DETAILS: Final = frozenset(
    {
        "request_id", "upload_id", "event_id", "handler", "event_type", "remote",
        "upstream_ms", "bytes_in", "bytes_out", "user_agent",
    }
)  # fmt: skip
"""Fields that a terminal shows at the level debug only."""
_ACCESS_DETAILS: Final = _DETAILS | {"route", "upstream"}
"""Those of the line of a request: a failure names its upstream on a line of its own."""

_RED, _GREEN, _YELLOW, _CYAN, _DIM = 31, 32, 33, 36, 2
_LEVEL_COLOURS: Final = {"DEBUG": _DIM, "WARNING": _YELLOW, "ERROR": _RED, "CRITICAL": _RED}
_STATUS_COLOURS: Final = {"2": _GREEN, "3": _CYAN, "4": _YELLOW, "5": _RED}


_encode_json: Final = json.JSONEncoder(ensure_ascii=False, default=str).encode
"""Made once: `json.dumps` makes an encoder for each call that has options."""


@functools.lru_cache(maxsize=1)
def _second(created: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(created))


def _timestamp(record: logging.LogRecord) -> str:
    return f"{_second(int(record.created))}.{int(record.msecs):03d}Z"


class _Masked(logging.Formatter):
    """A formatter that masks secrets in messages, fields and tracebacks."""

    def __init__(self) -> None:
        super().__init__()
        self.mask: Masking = str
        self.process_fields: Mapping[str, Any] = NO_FIELDS

    def message(self, record: logging.LogRecord) -> str:
        """Return the sentence of the line.

        What a request hides is masked in the arguments of our own sentences, not in their constant
        words: a client could edit the log. Sentences of scripts and libraries have no such parts.
        """
        if not record.args or not _is_own(record.name):
            message = record.getMessage()
            return self.mask(message) if _is_own(record.name) else self._masking()(message)
        arguments, masked = record.args, self._masking()
        if isinstance(arguments, Mapping):
            filled = str(record.msg) % {
                key: _argument(value, masked) for key, value in arguments.items()
            }
        else:
            filled = str(record.msg) % tuple(_argument(value, masked) for value in arguments)
        return self.mask(filled)

    def fields(self, record: logging.LogRecord) -> dict[str, Any]:
        """Return the fields of the line."""
        own = getattr(record, "fields", None)
        fields = {**self.process_fields, **bound_fields(), **(own if isinstance(own, Mapping) else {})}
        masked = self._masking()
        return {k: masked(v) if isinstance(v, str) else v for k, v in fields.items()}

    def event(self, record: logging.LogRecord) -> str | None:
        """Return the event word of the line, if it has one."""
        word = getattr(record, "event", None)
        return word if isinstance(word, str) else None

    def traceback(self, record: logging.LogRecord) -> str | None:
        """Return the traceback of the line, if it has one."""
        return self._masking()(self.formatException(record.exc_info)) if record.exc_info else None

    def _masking(self) -> Masking:
        """Return what masks the texts of one line. Most lines have nothing to hide but what is set."""
        secrets, mask = hidden_secrets(), self.mask
        if not secrets:
            return mask

        def masked(text: str) -> str:
            for secret in secrets:
                text = text.replace(secret, "[redacted]")
            return mask(text)

        return masked


def _argument(value: object, masked: Masking) -> object:
    if isinstance(value, int | float):
        return value
    return masked(value) if isinstance(value, str) else _MaskedArgument(value, masked)


def _is_own(logger: str) -> bool:
    return logger.partition(".")[0] == "gateway" and not logger.startswith("gateway.plugin.")


class _MaskedArgument:
    """An argument of a log call whose text is masked in whatever way it is written."""

    def __init__(self, value: object, mask: Masking) -> None:
        self._value = value
        self._mask = mask

    def __str__(self) -> str:
        return self._mask(str(self._value))

    def __repr__(self) -> str:
        return self._mask(repr(self._value))


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


class TerminalFormatter(_Masked):
    """`12:51:56 PUT 201 /upload/README.md 10.3 kB 36 ms`, the level only where it is not info.

    Times are local. `details` shows ids and the logger, `colour` marks levels and statuses.
    """

    def __init__(self, *, details: bool, colour: bool) -> None:
        super().__init__()
        self._details = details
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line (and its traceback, if it has one)."""
        message, *rest = _printable(self.message(record)).split("\n")
        fields = self.fields(record)
        is_request = record.name == "gateway.access"
        if not self._details:
            left_out = _ACCESS_DETAILS if is_request else _DETAILS
            fields = {name: value for name, value in fields.items() if name not in left_out}
        text = message
        if is_request:
            text = self._request(fields, aborted=self.event(record) == "request.aborted")
        text += "".join(f" {key}={_value(value)}" for key, value in fields.items())
        if (traceback := self.traceback(record)) is not None:
            rest += _printable(traceback).split("\n")
        level = "" if record.levelname == "INFO" else f"{record.levelname} "
        name = f"{record.name}: " if self._details else ""
        moment = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = self._coloured(level, _LEVEL_COLOURS.get(record.levelname))
        return "\n    ".join([f"{self._coloured(moment, _DIM)} {level}{name}{text}", *rest])

    def _request(self, fields: dict[str, Any], *, aborted: bool) -> str:
        """Return method, status, path, bytes and milliseconds of a request, and take their fields."""
        aborted = aborted and "status" in fields
        status = str(fields.pop("status", "aborted"))
        parts = [
            _value(fields.pop("method", "")),
            self._coloured(status, _STATUS_COLOURS.get(status[:1], _RED)),
            _value(fields.pop("path", "")),
        ]
        if isinstance(size := fields.pop("bytes", None), int):
            parts.append(format_size(size))
        if isinstance(ms := fields.pop("ms", None), int | float):
            parts.append(f"{ms:.0f} ms")
        if aborted:
            parts.append(self._coloured("aborted", _RED))
        return " ".join(parts)

    def _coloured(self, text: str, code: int | None) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and code is not None and text else text


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
        return _encode_json(entry)


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

    On a terminal text is short, and coloured unless NO_COLOR is set. Lines of the gateway are logged
    from `level` on, those of libraries from `warning` on.
    """
    handler = _Handler(sys.stderr)
    handler.setFormatter(_formatter(style, level))
    logger = logging.getLogger("gateway")
    logger.handlers[:] = [handler]
    logger.propagate = False
    logger.setLevel(level.upper())
    root = logging.getLogger()
    root.handlers[:] = [old for old in root.handlers if not isinstance(old, _Handler)] + [handler]
    _omit_origins()


def _omit_origins() -> None:
    """Let no line look up its thread, process and place in the code, which none of them shows.

    They took a fifth of the time of an access line ("Optimization" in Python's logging HOWTO).
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None


def _formatter(style: str | None, level: str) -> _Masked:
    terminal = sys.stderr is not None and sys.stderr.isatty()
    if style == "json" or (style is None and not terminal):
        return JsonFormatter()
    if not terminal:
        return TextFormatter()
    colour = not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return TerminalFormatter(details=level == "debug", colour=colour)


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
