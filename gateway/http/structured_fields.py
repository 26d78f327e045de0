"""Structured fields: Integer, Boolean and Dictionary, as RFC 9651 section 4.2 parses them. Pure.

A field of another type, or one that is malformed in any place, counts as one that was not sent: its
definition says so where it matters (draft-ietf-httpbis-resumable-upload section 4.1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

_KEY: Final = r"[a-z*][a-z0-9_.*-]*"
_INTEGER: Final = r"-?[0-9]{1,15}"
_BARE: Final = "|".join(
    (
        r"-?[0-9]{1,12}\.[0-9]{1,3}",  # Decimal
        _INTEGER,
        r'"(?:[ !#-\[\]-~]|\\["\\])*"',  # String
        r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*",  # Token
        r":[A-Za-z0-9+/=]*:",  # Byte Sequence
        r"\?[01]",  # Boolean
    )
)
_PARAMETERS: Final = rf"(?:; *{_KEY}(?:=(?:{_BARE}))?)*"
_INTEGER_ITEM: Final = re.compile(rf" *({_INTEGER}){_PARAMETERS} *", re.ASCII)
_BOOLEAN_ITEM: Final = re.compile(rf" *\?([01]){_PARAMETERS} *", re.ASCII)
_MEMBER: Final = re.compile(rf"({_KEY})(?:=({_BARE}))?{_PARAMETERS}", re.ASCII)
_COMMA: Final = re.compile(r"[ \t]*,[ \t]*")


def parse_integer(lines: Sequence[str]) -> int | None:
    """Return an Item that is an Integer of at most 15 digits; None for none, or for anything else."""
    match = _INTEGER_ITEM.fullmatch(lines[0]) if len(lines) == 1 else None
    return None if match is None else int(match[1])


def parse_boolean(lines: Sequence[str]) -> bool | None:
    """Return an Item that is a Boolean; None for none, or for anything else."""
    match = _BOOLEAN_ITEM.fullmatch(lines[0]) if len(lines) == 1 else None
    return None if match is None else match[1] == "1"


def parse_integers(lines: Sequence[str]) -> Mapping[str, int]:
    """Return the members of a Dictionary that are Integers; none of a malformed one.

    The last one of a name counts. Members of other types are left out; one that is an inner list, or a
    type that RFC 9651 added, makes the whole malformed here.
    """
    text = ", ".join(lines).strip(" ")
    if not text:
        return {}
    members: dict[str, int] = {}
    position = 0
    while (match := _MEMBER.match(text, position)) is not None:
        key, value = match[1], match[2]
        members.pop(key, None)
        if value is not None and re.fullmatch(_INTEGER, value, re.ASCII):
            members[key] = int(value)
        if match.end() == len(text):
            return members
        comma = _COMMA.match(text, match.end())
        if comma is None:
            break
        position = comma.end()
    return {}
