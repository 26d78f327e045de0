"""Events room, NATS: does the server put events on stable storage before it says yes?

The rule: by default it does not, for two minutes; an operator must be told so once, plainly. An
ordinary client cannot ask, so the monitoring port and the system account are tried, and where
neither answers, that is said too.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any, Final

import aiohttp
import nats.errors

from gateway.errors import EventEngineUnavailable
from gateway.events.nats.connection import Connection
from gateway.events.nats.servers import Servers

log = logging.getLogger("gateway.nats")

MONITORING_PORT: Final = 8222
SECONDS: Final = 2.0

_ADVICE: Final = "set `jetstream { sync_interval: always }` in its configuration"


async def look_at_sync(connection: Connection, servers: Servers) -> bool | None:
    """Warn where events may be lost with the power; return what was found, None if nothing could be."""
    always = _always(await _from_system_account(connection))
    if always is None:
        told = await asyncio.gather(*(_from_monitoring(host) for host in servers.hosts))
        known = [one for one in map(_always, told) if one is not None]
        always = all(known) if known else None
    if always is None:
        log.warning(
            "whether the NATS servers sync before they say yes cannot be seen from here: %s;"
            " without it a power failure may cost up to two minutes of events, which"
            " `gateway events replay --since` can fire again",
            _ADVICE,
        )
    elif not always:
        log.error(
            "a NATS server says yes before it syncs: a power failure may cost up to two minutes of"
            " events; %s",
            _ADVICE,
        )
    return always


def _always(told: dict[str, Any] | None) -> bool | None:
    """Read `sync_always` out of what /varz, or its like on the system account, tells."""
    config = ((told or {}).get("jetstream") or {}).get("config")
    return bool(config.get("sync_always", False)) if isinstance(config, dict) else None


async def _from_system_account(connection: Connection) -> dict[str, Any] | None:
    try:
        answer = await connection.client.request("$SYS.REQ.SERVER.PING.VARZ", b"", timeout=SECONDS)
        told: dict[str, Any] = json.loads(answer.data).get("data")
    except (
        EventEngineUnavailable,
        nats.errors.Error,
        TimeoutError,
        OSError,
        ValueError,
        AttributeError,
    ):
        return None
    return told


async def _from_monitoring(host: str) -> dict[str, Any] | None:
    patience = aiohttp.ClientTimeout(total=SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=patience) as session,
            session.get(f"http://{host}:{MONITORING_PORT}/varz", allow_redirects=False) as answer,
        ):
            told = json.loads(await answer.read()) if answer.status == 200 else None
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return None
    return told if isinstance(told, dict) else None
