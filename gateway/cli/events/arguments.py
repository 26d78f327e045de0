"""Validation of the arguments of `gateway events`. An argument that has no effect is an error too."""

from __future__ import annotations

import argparse
import math
import re
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from gateway.errors import ConfigError
from gateway.events.protocols import Selection

_ACCEPTED: Final[Mapping[str, frozenset[str]]] = {
    "list": frozenset({"state", "handler", "since"}),
    "show": frozenset({"event_ids"}),
    "retry": frozenset({"event_ids", "dead", "handler", "since"}),
    "drop": frozenset({"event_ids", "dead", "handler", "since"}),
    "pause": frozenset({"handler"}),
    "resume": frozenset({"handler"}),
    "replay": frozenset({"event_ids", "handler", "since"}),
}
ACTIONS: Final = tuple(_ACCEPTED)
_OPTIONAL: Final = ("dead", "state", "handler", "since")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO: Final = re.compile(r"(\d{1,9})([smhdw])")


def check_arguments(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for invalid combinations of arguments."""
    action, events = args.action, args.event_ids
    accepted = _ACCEPTED[action]
    for name in _OPTIONAL:
        if getattr(args, name) and name not in accepted:
            raise ConfigError(f"events {action} has no --{name}; see `gateway events --help`")
    if events and "event_ids" not in accepted:
        hint = "; did you mean `gateway events show`?" if action == "list" else ""
        raise ConfigError(f"events {action} accepts no id{hint}")
    if action == "show" and len(events) != 1:
        raise ConfigError("events show needs the id of an event; `gateway events list` prints them")
    if action in {"pause", "resume"} and not args.handler:
        raise ConfigError(f"events {action} needs --handler NAME")
    if action in {"retry", "drop"} and bool(events) == args.dead:
        raise ConfigError(f"events {action} needs either ids of events or --dead")
    if action == "replay" and bool(events) == bool(args.since):
        raise ConfigError("events replay needs either ids of events or --since T, such as --since 2h")
    selection_of(args)


def selection_of(args: argparse.Namespace, events: Sequence[str] = ()) -> Selection:
    """Return the selected deliveries. Raises `ConfigError` for an invalid time."""
    return Selection(
        state="dead" if args.dead else args.state,
        handler=args.handler,
        since=None if args.since is None else parse_time(args.since, time.time()),
        events=tuple(events),
    )


def parse_time(text: str, now: float) -> float:
    """Return the Unix time of `2h` (ago), of a date and time (ISO 8601), or of a Unix time.

    Without a zone it is local time. Raises `ConfigError`.
    """
    if ago := _AGO.fullmatch(text):
        return max(now - int(ago[1]) * _UNITS[ago[2]], 0.0)
    for read in (float, lambda iso: datetime.fromisoformat(iso).timestamp()):
        try:
            parsed = read(text)
        except (ValueError, OverflowError, OSError):
            continue
        if math.isfinite(parsed) and parsed >= 0:
            return parsed
    raise ConfigError(f"--since {text}: use 2h, 7d, 2026-11-22T08:00 or a Unix time")
