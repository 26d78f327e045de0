"""The events that decide about a request: how each is made, and what its handlers decided is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from gateway.domain.event_bodies import deleting_event, downloading_event, listing_event, uploading_event
from gateway.domain.model import DELETING, DOWNLOADING, LISTING, UPLOADING, Download, FileRequest, Upload
from gateway.plugins.scripting.decision import Served, read_changes, read_path, read_served
from gateway.plugins.scripting.values import Event

ReadChanges = Callable[[Event], Any]
"""Reads the changes of an event after its handler. Raises `InvalidResult`."""

ADMITTING_EVENTS: Final[Mapping[str, tuple[Callable[[Any], dict[str, Any]], ReadChanges]]] = {
    UPLOADING: (uploading_event, read_changes),
    DOWNLOADING: (downloading_event, read_served),
    LISTING: (listing_event, read_path),
    DELETING: (deleting_event, read_path),
}


def default_changes(subject: Upload | FileRequest) -> Served | None:
    """Return what the default authorization allows that a handler has to."""
    if not isinstance(subject, Download) or subject.archive is None:
        return None
    return Served(subject.path, subject.filename, subject.cache_control, allow_archive=True)
