"""What log calls need: fixed event words, fields of the context, texts to be redacted.

A call is `log.warning("upload failed", extra=event("upload.failed", reason=code))`. Fields bound to
the context (`bind`: `upload_id`, `event_id`) are on every line, on the server's loop and in script
executors. `log_output` writes the lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextvars import Context, ContextVar, copy_context
from types import MappingProxyType
from typing import Any

_bound: ContextVar[dict[str, Any]] = ContextVar("gateway_log_fields")
_hidden: ContextVar[hide | None] = ContextVar("gateway_log_hidden", default=None)
NO_FIELDS: Mapping[str, Any] = MappingProxyType({})


def event(name: str, **fields: object) -> dict[str, object]:
    """Return the `extra` of a log call: a fixed event word (`upload.failed`) and its fields.

    The sentence of a log line may change, the word may not: alerts and searches match on it.
    """
    return {"event": name, "fields": fields}


def bound_fields() -> Mapping[str, Any]:
    """Return the fields of all lines of this context."""
    return _bound.get(NO_FIELDS)


class bind:  # noqa: N801 (used like a function; every request enters it, and a generator is slow)
    """Add `fields` (upload_id, event_id, handler ...) to every log line written inside."""

    __slots__ = ("_fields", "_token")

    def __init__(self, **fields: Any) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        self._token = _bound.set({**bound_fields(), **self._fields})

    def __exit__(self, *_: object) -> None:
        _bound.reset(self._token)


def context_with(**fields: Any) -> Context:
    """Return a copy of this context with `fields` added: what runs in it is as if inside `bind`."""
    context = copy_context()
    context.run(_bound.set, {**bound_fields(), **fields})
    return context


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


def hidden_secrets() -> tuple[str, ...]:
    """Return the texts that must not be written in this context."""
    block = _hidden.get()
    return block.secrets() if block is not None else ()
