"""What `gateway status` shows of a gateway, and where each fact comes from."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from gateway import __version__
from gateway.auth.installation import public_url
from gateway.auth.key_store import KeyStore
from gateway.domain.units import iso_time
from gateway.endpoints.admin.facts import FactsEndpoint, ReadFact, UpstreamRoutes
from gateway.endpoints.admin.processes import ProcessClients
from gateway.endpoints.admin.reload import ReloadEndpoint
from gateway.endpoints.inflight import Inflight
from gateway.events.held_log import HeldLog
from gateway.events.protocols import Ledger, QueueName
from gateway.events.remote_ledger import encode_depth
from gateway.plugins import Plugins
from gateway.server.resources import Resources
from gateway.settings import Settings
from gateway.telemetry.metrics import Metrics

LATELY: Final = 3600.0
"""Seconds: failed uploads of the latest hour are counted, as far as they are kept in memory."""

EXPIRING: Final = 7 * 86400.0
"""Seconds before its end from which on a key is shown."""

MAX_KEYS: Final = 20
MAX_FAULTS: Final = 20


class FactSources(NamedTuple):
    """Where the facts of one process come from; `ledger` is that of the whole installation."""

    resources: Resources
    queue: QueueName
    ledger: Ledger
    inflight: Inflight
    metrics: Metrics
    reload: ReloadEndpoint
    upstreams_down: Callable[[], UpstreamRoutes]


def facts_endpoint(sources: FactSources, processes: ProcessClients) -> FactsEndpoint:
    """Return the endpoint of one process."""
    resources, queue, ledger, inflight, metrics, reload, down = sources
    settings, held = resources.settings, resources.journal.held_log
    own_url = public_url(settings, resources.base.installation.own)
    fixed = {
        "version": __version__,
        "started": iso_time(time.time()),
        "url": own_url,
        "address": resources.base.shared.url,
        "directory": str(settings.directory),
        "processes": settings.processes,
        "storage": str(settings.storage),
        "events": str(queue),
        "authorization": settings.auth,
    }
    shared: dict[str, ReadFact] = {
        "deliveries": partial(_deliveries, ledger),
        "paused": partial(_paused, ledger),
        "disk": partial(_disk, resources),
        "plugins": partial(_plugins, resources.plugins, reload),
        "quotas": resources.quotas.quotas.near_limits,
        "keys": partial(_expiring_keys, settings),
    }
    return FactsEndpoint(fixed, partial(_uploads, inflight, held, metrics), down, shared, processes)


async def _uploads(inflight: Inflight, held: HeldLog, metrics: Metrics) -> Mapping[str, int | None]:
    """Count the uploads of this process; None for what another process counts."""
    kept, waiting = metrics.partials.kept, await asyncio.wrap_future(held.count())
    return {
        "in_flight": len(inflight),
        "held": waiting,
        "resumable": None if kept is None else kept[0],
        **inflight.ended_since(time.time() - LATELY),
    }


async def _deliveries(ledger: Ledger) -> Any:
    return encode_depth(await ledger.depth())["depth"]


async def _paused(ledger: Ledger) -> Any:
    return sorted(await ledger.paused())


async def _disk(resources: Resources) -> Any:
    space = resources.base.disk.space
    free = await asyncio.to_thread(space.free)
    accepts = await asyncio.to_thread(space.accepts_uploads)
    size, kept_free = await asyncio.to_thread(space.size), resources.settings.min_free_bytes
    return {"free": free, "size": size, "kept_free": kept_free, "accepts_uploads": accepts}


async def _plugins(plugins: Plugins, reload: ReloadEndpoint) -> Any:
    """Return what is loaded, and the faults of the newest reload: with any, nothing has changed."""
    current = plugins.current
    kinds = {kind: len(loaded) for kind, loaded in current.plugins.items() if loaded}
    facts: dict[str, Any] = {"set": current.number, "files": len(current.files), "kinds": kinds}
    if reload.latest is not None:
        moment, outcome = reload.latest
        facts |= {"reloaded": iso_time(moment), "faults": outcome.faults[:MAX_FAULTS]}
    return facts


async def _expiring_keys(settings: Settings) -> Any:
    """Return the keys in force that end within `EXPIRING`, the next one first."""
    table = await asyncio.to_thread(KeyStore(settings.state).read)
    now = time.time()
    ending = sorted(
        (key.expires, key.name)
        for key in table.keys.values()
        if key.revoked is None and key.expires is not None and now < key.expires < now + EXPIRING
    )
    return [{"name": name, "expires": iso_time(expires)} for expires, name in ending[:MAX_KEYS]]
