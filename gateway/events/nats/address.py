"""The address that deliveries in NATS name as the place of their files, kept over restarts.

Workers fetch files there: after a change of the port or of `--advertise`, deliveries that were relayed
before wait for the earlier address.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

ADDRESS_FILE: Final = "relay-address"
"""The name of the file in the state folder. It holds one line, `HOST:PORT`."""


def recorded_address(state: Path) -> str | None:
    """Return the address of the latest start with NATS, None if there was none. Blocking."""
    try:
        return (state / ADDRESS_FILE).read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def record_address(state: Path, address: str) -> str | None:
    """Record the address of this start; return the earlier one if it was another. Blocking.

    A file that cannot be written costs only the warning. The lock of the directory is held.
    """
    earlier = recorded_address(state)
    if earlier == address:
        return None
    try:
        (state / ADDRESS_FILE).write_text(f"{address}\n", encoding="utf-8")
    except OSError:
        return None
    return earlier


def address_advice(earlier: str) -> str:
    """Return what to do about deliveries that name an earlier address."""
    return (
        f"workers wait for files at {earlier}: give the gateway that address again (--port,"
        f" --advertise {earlier}), or `gateway events drop` what waits and `gateway events replay` it"
    )
