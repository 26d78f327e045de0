"""Types of the arguments of verbs, as the settings spell them."""

from __future__ import annotations

import argparse

from gateway.domain.units import parse_duration, parse_size


def duration(text: str) -> float:
    """Return the seconds of `90`, `15m` or `7d`, for argparse."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (got {text!r})") from error


def size(text: str) -> int:
    """Return the bytes of `1048576`, `64M` or `10G`, for argparse."""
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error} (got {text!r})") from error
