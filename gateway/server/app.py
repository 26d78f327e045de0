"""Runs a gateway, or one process of it, on resources that are open already.

`running_gateway` starts its parts in the order in which they depend on each other and stops them in
reverse: stop accepting, drain requests, requeue deliveries, close.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Final

from aiohttp import web

from gateway.auth.installation import public_url
from gateway.domain.model import UPLOADING
from gateway.domain.schedules import Schedule
from gateway.domain.template_segments import fill_variables
from gateway.endpoints.admin.reload import ReloadOutcome
from gateway.endpoints.dispatcher import Dispatcher
from gateway.errors import ConfigError
from gateway.events.scheduler import Scheduler
from gateway.http.head_filters import head_filter
from gateway.http.limits import ConnectionLimits, connection_share
from gateway.http.protocol import make_runner
from gateway.http.sockets import owner_socket, tls_context
from gateway.plugins.loader import NO_FILES
from gateway.plugins.shared_names import shared_names_warning
from gateway.server.delivery import EventDelivery
from gateway.server.endpoints import Endpoints, open_endpoints
from gateway.server.listening import PublicPort
from gateway.server.process import protected_places
from gateway.server.quotas import start_quotas
from gateway.server.reread_settings import reread_tokens
from gateway.server.resources import Resources
from gateway.server.script_services import HOOKS_GRACE
from gateway.settings import Settings, describe_processes
from gateway.storage.local.one_time_marks import OneTimeMarks
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway")

CANCEL_TIMEOUT: Final = 2.0
"""Seconds for requests that are cut off to discard their files and to tell of it."""

SWEEP_INTERVAL: Final = 3600.0
"""Seconds between two looks for one-time URLs that expired long ago."""


@dataclass(slots=True, frozen=True)
class Gateway:
    """A running gateway, or one process of it."""

    resources: Resources
    metrics: Metrics
    delivery: EventDelivery
    endpoints: Endpoints
    scheduler: Scheduler
    port: PublicPort
    servers: list[web.ServerRunner] = field(default_factory=list)
    _reloading: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are (or, while stopping, were) bound."""
        return self.resources.base.shared.address

    @property
    def url(self) -> str:
        """The URL of the gateway on this machine."""
        return self.resources.base.shared.url

    def describe(self) -> list[str]:
        """Return the lines of the start: where files go, processes, what plugins do, who may upload."""
        plugins, authorization = self.resources.plugins.describe(), _authorization(self.resources)
        return [*_places(self.resources), *plugins, authorization]

    def log_description(self) -> None:
        """Log the description, once for all processes."""
        if self.resources.base.state.slot == 0:
            files, uploads, processes, *plugins, authorization = self.describe()
            for line in (files, uploads, processes):
                log.info("%s", line, extra=event("gateway.configured"))
            for line in plugins:
                log.info("%s", line, extra=event("plugin.loaded"))
            for folder in self.resources.plugins.current.empty_folders:
                log.warning("%s: %s", folder, NO_FILES, extra=event("plugins.empty"))
            log.info("%s", authorization, extra=event("authorization.chosen"))
            settings, handlers = self.resources.settings, self.resources.plugins.current.handlers
            if settings.web:
                page = public_url(settings, self.resources.base.installation.own)
                log.info("open %s/ in a browser", page, extra=event("gateway.configured"))
            if shared := shared_names_warning(settings.upload_template, handlers[UPLOADING]):
                log.warning("%s", shared, extra=event("stored_path.shared"))

    async def reload(self) -> ReloadOutcome:
        """Load tokens, plugins and certificates anew (SIGHUP); any error is logged and keeps the old.

        One after the other: what was read first must not replace what was read later.
        """
        async with self._reloading:
            outcome = await self._reload()
        self.endpoints.operators.reload.latest = time.time(), outcome
        return outcome

    async def _reload(self) -> ReloadOutcome:
        resources, settings = self.resources, self.resources.settings
        tree, number = resources.base.disk.tree, resources.plugins.current.number
        try:
            tokens = await asyncio.to_thread(reread_tokens, resources.base.shared)
            tls = await asyncio.to_thread(tls_context, settings)
            await asyncio.to_thread(resources.base.installation.read_certificate)
            await asyncio.to_thread(tree.reload_protected, protected_places(settings))
            await resources.plugins.reload()  # last: an error after it would leave new plugins in force
        except ConfigError as error:
            log.error(
                "the reload failed, nothing has changed:\n%s", error, extra=event("plugins.rejected")
            )
            return ReloadOutcome(number, faults=tuple(resources.plugins.mask(str(error)).splitlines()))
        except Exception as error:
            log.exception("the reload failed, nothing has changed", extra=event("plugins.rejected"))
            return ReloadOutcome(
                number, faults=(f"the reload failed: {type(error).__name__}, see the log",)
            )
        self.endpoints.dispatcher.auth.tokens.replace(tokens)
        self.endpoints.dispatcher.routing.follow_table()
        if tls is not None and not self.endpoints.dispatcher.stopping:
            await self.port.listen(tls)
        await self.delivery.refresh()
        self.scheduler.refresh(_schedules(resources))
        number = resources.plugins.current.number
        log.info("reloaded: plugin set %d", number, extra=event("plugins.reloaded"))
        self.log_description()
        return ReloadOutcome(number, tuple(resources.plugins.describe()))


@asynccontextmanager
async def running_gateway(resources: Resources) -> AsyncIterator[Gateway]:
    """Run a gateway on resources, which are closed with it. Raises `ConfigError`, `OSError`."""
    settings, metrics = resources.settings, Metrics()
    resources.hooks.shadows.counts = metrics
    async with AsyncExitStack() as stack:
        await _start_backends(stack, resources)
        delivery = EventDelivery(resources, metrics)
        endpoints = await open_endpoints(stack, resources, metrics, delivery)
        dispatcher = endpoints.dispatcher
        servers = _make_servers(resources.settings, dispatcher)
        stack.push_async_callback(_clean_up, dispatcher, servers)
        for server in servers:
            await server.setup()
        await delivery.start()
        stack.push_async_callback(_drain, dispatcher, delivery, settings.grace)
        ledger = delivery.ledgers.get("nats")
        scheduler = Scheduler(resources.journal.outbox, resources.journal.schedule_state, ledger=ledger)
        await scheduler.start(_schedules(resources))
        stack.push_async_callback(scheduler.stop)
        _start_background(stack, resources)
        stack.callback(endpoints.operators.streams.stop)
        stack.push_async_callback(_stop_accepting, dispatcher, servers)
        port = PublicPort(servers[0], resources.base.shared.socket)
        gateway = Gateway(resources, metrics, delivery, endpoints, scheduler, port, servers)
        endpoints.operators.reload.serve_with(gateway.reload)
        resources.base.shared.fresh.keep()
        await web.SockSite(servers[1], owner_socket(resources.base.directory)).start()
        await port.listen(resources.tls)
        yield gateway


def _make_servers(settings: Settings, dispatcher: Dispatcher) -> list[web.ServerRunner]:
    """Return the server of the network and that of the owner, whose connections no client shares."""
    sessions = dispatcher.auth.sessions
    limits = ConnectionLimits(
        settings.max_header_bytes,
        settings.idle_timeout,
        settings.min_rate,
        connection_share(),
        is_shared_address=dispatcher.auth.proxies.trusts,
        filter_head=head_filter(dispatcher.auth.identity, None if sessions is None else sessions.cookie),
    )
    return [
        make_runner(dispatcher.handle, limits, dispatcher.take if settings.short_path else None),
        make_runner(dispatcher.handle_owner, replace(limits, share=None)),
    ]


async def _start_backends(stack: AsyncExitStack, resources: Resources) -> None:
    """Start what runs scripts and what commits, each stopped when nothing needs it any more."""
    stack.push_async_callback(asyncio.to_thread, resources.close)
    parts = resources.parts
    parts.committer.start()
    stack.push_async_callback(asyncio.to_thread, parts.committer.close)
    if parts.holder is not None:
        stack.push_async_callback(asyncio.to_thread, parts.holder.close)
    stack.push_async_callback(asyncio.to_thread, resources.base.directory.socket.unlink, missing_ok=True)
    await resources.hooks.start()
    stack.push_async_callback(resources.hooks.close, HOOKS_GRACE)
    for clients in reversed(parts.clients):
        stack.push_async_callback(clients.close)
    if parts.backend is not None:
        stack.push_async_callback(parts.backend.close)
        await parts.backend.start()
    stack.push_async_callback(parts.remover.close)
    await parts.remover.start()
    await start_quotas(stack, resources.quotas, resources.settings)


def _start_background(stack: AsyncExitStack, resources: Resources) -> None:
    """Start the tasks that keep the state folder small, until they are cancelled."""
    retention = resources.settings.retention, resources.settings.relayed_retention
    work = [resources.journal.ledger.prune_periodically(*retention)]
    if resources.base.state.slot == 0:
        work.append(_remove_expired(resources.base.state.one_time_marks))
    for coroutine in work:
        stack.callback(asyncio.create_task(coroutine).cancel)


async def _remove_expired(marks: OneTimeMarks) -> None:
    while True:
        with suppress(OSError):
            await asyncio.to_thread(marks.remove_expired)
        await asyncio.sleep(SWEEP_INTERVAL)


async def _stop_accepting(dispatcher: Dispatcher, servers: list[web.ServerRunner]) -> None:
    dispatcher.stopping = True
    for server in servers:
        for site in list(server.sites):
            await site.stop()


async def _drain(dispatcher: Dispatcher, delivery: EventDelivery, grace: float) -> None:
    """Let requests and handlers end for up to `grace` seconds; hand unfinished deliveries back."""
    await asyncio.gather(_drain_requests(dispatcher, grace), delivery.stop(grace))


async def _drain_requests(dispatcher: Dispatcher, grace: float) -> None:
    """Let requests end; then close the WebSocket connections, which end by themselves at some time."""
    await dispatcher.drain(grace)
    await dispatcher.routing.websockets.stop()


async def _clean_up(dispatcher: Dispatcher, servers: list[web.ServerRunner]) -> None:
    """Close the connections. Requests that are cut off still need scripts and storage for their end."""
    await asyncio.gather(*(server.cleanup() for server in servers))
    dispatcher.files.uploads.cancel_admissions()
    await dispatcher.serving.wait_idle(CANCEL_TIMEOUT)


def _schedules(resources: Resources) -> dict[str, Schedule]:
    """Return the schedules that this process ticks: the first process of a node ticks all."""
    return resources.plugins.current.schedules if resources.base.state.slot == 0 else {}


def _places(resources: Resources) -> tuple[str, str, str]:
    """Return the lines that say where files are stored and uploaded to, and how many processes serve."""
    settings, installation = resources.settings, resources.base.installation
    stored = settings.directory if settings.storage == "file" else settings.storage
    path = fill_variables(
        settings.file_upload_api_path,
        lambda name: "<name>" if name in {"filepath", "filename"} else f"<{name}>",
    )
    uploads = f"uploads: {public_url(settings, installation.own)}{path}"
    return f"files: {stored}", uploads, describe_processes(settings.processes)


def _authorization(resources: Resources) -> str:
    settings = resources.settings
    if resources.hooks.replaces_authorization():
        return "uploads are authorized by the plugins"
    if settings.auth == "none" and not settings.auth_explicit:
        return (
            f"anyone on this machine may upload (default for {settings.host}; requests through a proxy,"
            " or to a name other than localhost, are refused until you set --auth)"
        )
    return f"uploads are authorized by --auth {settings.auth}"
