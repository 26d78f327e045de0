"""Finds what is wrong in the scripts of handlers that load: unknown names, unknown keys of the event."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from gateway.errors import ConfigError
from gateway.plugins.default_events import default_event
from gateway.plugins.handler import Handler
from gateway.plugins.models import DECIDING
from gateway.plugins.scripting.lint import undefined_names, unknown_keys
from gateway.plugins.scripting.namespace import script_names

_SET_BY_HANDLERS: Final = frozenset({"max_bytes", "on_conflict", "metadata"})
"""Keys that an event that decides has once an earlier handler has set them."""


def lint_handler(handler: Handler) -> Iterator[ConfigError]:
    """Yield an error for each unknown name and key. Call it where no other thread runs."""
    source = handler.document.source("script")
    yield from undefined_names(source, script_names())
    keys = set(default_event(handler)) | (_SET_BY_HANDLERS if handler.event in DECIDING else set())
    yield from unknown_keys(source, handler.name, keys)
