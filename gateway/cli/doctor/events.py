"""Checks of the journal and of the NATS servers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Final

from gateway.cli.doctor.finding import Finding
from gateway.domain.addresses import connectable_host, host_port
from gateway.errors import ConfigError, EventEngineUnavailable
from gateway.events.nats.address import address_advice, recorded_address
from gateway.settings import Settings

LARGE_JOURNAL: Final = 10 << 30
"""Bytes of the journals of a directory that are worth a word."""

NATS_TIMEOUT: Final = 10.0
"""Seconds for all questions to the NATS servers."""


def journal(settings: Settings) -> Iterator[Finding]:
    """The journals have a size that the retention explains."""
    files = [file for file in settings.state.glob("journal-*.db*") if file.is_file()]
    if not files:
        yield Finding("ok", "no journal yet; the first start creates it")
        return
    size = sum(file.stat().st_size for file in files)
    summary = f"journal: {size / 2**20:.1f} MiB"
    if size > LARGE_JOURNAL:
        yield Finding("warn", summary, "look at `gateway events list --state dead`, lower --retention")
    else:
        yield Finding("ok", summary)


def nats(settings: Settings) -> Iterator[Finding]:
    """The NATS servers can be reached, and deliveries there name an address that stays."""
    if settings.events == "journal":
        return
    yield from asyncio.run(_nats(settings))
    yield from _address(settings)


async def _nats(settings: Settings) -> list[Finding]:
    try:
        from gateway.events.nats.probe import probe_servers  # an extra
    except ImportError as error:
        advice = "run pip install '.[nats]' in the checkout"
        return [Finding("FAIL", f"the NATS client library is missing ({error.name})", advice)]
    advice = "uploads go on and events wait in the journal: start the servers, check --events"
    try:
        async with asyncio.timeout(NATS_TIMEOUT):
            facts = await probe_servers(settings)
    except TimeoutError:
        return [Finding("FAIL", f"{settings.events} does not answer in {NATS_TIMEOUT:g} s", advice)]
    except (EventEngineUnavailable, ConfigError) as error:
        return [Finding("FAIL", f"{settings.events} is unavailable: {error}", advice)]
    name = f"nats-server {facts.version} at {facts.shown}"
    if not facts.syncs:
        return [Finding("warn", name, "it cannot sync before it acknowledges: use 2.12 or newer")]
    if facts.max_payload < 2 * settings.max_header_bytes:
        advice = "uploads with long headers are refused (431): raise `max_payload`"
        return [Finding("warn", f"{name} takes {facts.max_payload} bytes an event", advice)]
    return [Finding("ok", f"{name} is available")]


def _address(settings: Settings) -> Iterator[Finding]:
    """Deliveries in NATS name HOST:PORT of this gateway."""
    if settings.advertise is None and settings.port == 0:
        advice = "events name an address that changes at each start: set --port or --advertise"
        yield Finding("warn", "--port 0 with NATS", advice)
        return
    own = settings.advertise or (connectable_host(settings.host), settings.port)
    earlier = recorded_address(settings.state)
    if earlier is not None and earlier != host_port(*own):
        text = f"deliveries in NATS may name {earlier}, and this gateway is {host_port(*own)}"
        yield Finding("warn", text, address_advice(earlier))
