"""The verb `events`: what was asked for, checked before anything is done.

The rule: a slip is told with a way on; an argument that would be ignored is a slip too. Touches
nothing.
"""

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

_TAKES: Final[Mapping[str, frozenset[str]]] = {
    "list": frozenset({"state", "handler", "since"}),
    "show": frozenset({"event_ids"}),
    "retry": frozenset({"event_ids", "dead", "handler", "since"}),
    "drop": frozenset({"event_ids", "dead", "handler", "since"}),
    "pause": frozenset({"handler"}),
    "resume": frozenset({"handler"}),
    "replay": frozenset({"event_ids", "handler", "since"}),
}
ACTIONS: Final = tuple(_TAKES)
_OPTIONAL: Final = ("dead", "state", "handler", "since")

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGO: Final = re.compile(r"(\d{1,9})([smhdw])")


def checked(args: argparse.Namespace) -> None:
    """Raise `ConfigError` for arguments that do not make sense together."""
    action, events = args.action, args.event_ids
    takes = _TAKES[action]
    for name in _OPTIONAL:
        if getattr(args, name) and name not in takes:
            raise ConfigError(f"events {action} takes no --{name}; see `gateway events --help`")
    if events and "event_ids" not in takes:
        more = "; did you mean `gateway events show`?" if action == "list" else ""
        raise ConfigError(f"events {action} takes no id{more}")
    if action == "show" and len(events) != 1:
        raise ConfigError("events show needs the id of an event; `gateway events list` prints them")
    if action in {"pause", "resume"} and not args.handler:
        raise ConfigError(f"events {action} needs --handler NAME")
    if action in {"retry", "drop"} and bool(events) == args.dead:
        raise ConfigError(f"events {action} needs either ids of events or --dead")
    if action == "replay" and bool(events) == bool(args.since):
        raise ConfigError("events replay needs either ids of events or --since T, such as --since 2h")
    selected(args)


def selected(args: argparse.Namespace, events: Sequence[str] = ()) -> Selection:
    """Return which deliveries are meant. Raises `ConfigError` for a time that is none."""
    return Selection(
        state="dead" if args.dead else args.state,
        handler=args.handler,
        since=None if args.since is None else moment(args.since, time.time()),
        events=tuple(events),
    )


def moment(text: str, now: float) -> float:
    """Return the Unix time that `text` names: `2h` ago, a date and time (ISO 8601), or itself one.

    Without a zone it is local time. Raises `ConfigError`.
    """
    if ago := _AGO.fullmatch(text):
        return max(now - int(ago[1]) * _UNITS[ago[2]], 0.0)
    for read in (float, lambda iso: datetime.fromisoformat(iso).timestamp()):
        try:
            said = read(text)
        except (ValueError, OverflowError, OSError):
            continue
        if math.isfinite(said) and said >= 0:
            return said
    raise ConfigError(f"--since {text}: say 2h, 7d, 2026-11-22T08:00 or a Unix time")
