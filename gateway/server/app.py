"""Puts resources, doors and what lives beside them together into a gateway, and takes it down again.

`Gateway.prepare` opens the resources, `start` the rooms that live on the loop in the order in which
they depend on each other, `stop` ends them in reverse.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field

from aiohttp import web

from gateway.domain.schedules import Schedule
from gateway.endpoints.dispatcher import Dispatcher
from gateway.endpoints.inflight import Inflight
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.events.scheduler import Scheduler
from gateway.http.protocol import make_runner
from gateway.http.sockets import load_certificate, owner_socket, tls_context
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.server.delivery import EventDelivery
from gateway.server.endpoints import Endpoints
from gateway.server.resources import Resources
from gateway.server.shared import ProcessContext, SharedResources
from gateway.settings import Settings
from gateway.storage.local.state_dir import StateDirectory
from gateway.telemetry.metrics import Metrics

log = logging.getLogger("gateway")

BACKLOG = 1024
SWEEP_SECONDS = 3600.0


@dataclass(slots=True)
class Gateway:
    """A running gateway, or one process of it. `settings.port` 0 becomes a real port in `address`.

    `process` comes from a supervisor; without one the gateway is the only process of its directory.
    """

    settings: Settings
    process: ProcessContext | None = None
    resources: Resources = field(init=False)
    delivery: EventDelivery = field(init=False)
    scheduler: Scheduler = field(init=False)
    endpoints: Endpoints = field(init=False)
    dispatcher: Dispatcher = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    _servers: list[web.ServerRunner] = field(default_factory=list)
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _house: list[asyncio.Task[None]] = field(default_factory=list)

    # -- starting

    def prepare(self) -> None:
        """Take the directory, load plugins, open the journal and settle what a crash left.

        Blocking, before any port opens. Raises `ConfigError`.
        """
        with contextlib.ExitStack() as opened:
            if self.process is None:  # no supervisor gave us one: the shared are ours alone
                shared = SharedResources(self.settings)
                shared.open()
                opened.callback(shared.close)
                self.process = shared.process(0)
            self.resources = Resources(self.settings, self.process)
            self.resources.open()
            opened.callback(self.resources.close)
            self._opened = opened.pop_all()

    async def start(self) -> None:
        """Start the threads and the runner, then take requests."""
        await self.hooks.start()
        self.resources.committer.start()
        if self.resources.object_backend is not None:
            await self.resources.object_backend.start()
        self.delivery = EventDelivery(self.resources, self.metrics)
        self.endpoints = Endpoints(self.resources, self.metrics, self.delivery.ledgers)
        self.dispatcher = await self.endpoints.open()
        await self.delivery.start()
        self.scheduler = Scheduler(
            self.journal.outbox, self.journal.schedule_state, ledger=self.delivery.ledgers.get("nats")
        )
        await self.scheduler.start(self._schedules())
        kept = self.settings.retention, self.settings.relayed_retention
        chores = self.journal.ledger.prune_periodically(*kept), self._sweep()
        self._house = [asyncio.create_task(chore) for chore in chores]
        await self._listen()

    def _schedules(self) -> dict[str, Schedule]:
        """Return what this process has to tick: one process of a node does."""
        return self.plugins.current.schedules if self.resources.process.slot == 0 else {}

    async def _sweep(self) -> None:
        """Let go of one-time URLs that expired long ago, until cancelled: one process of a node does."""
        while self.resources.process.slot == 0:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.resources.one_time_marks.remove_expired)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _listen(self) -> None:
        """Take requests on the port, and the owner's on the Unix socket."""
        public = make_runner(self.dispatcher.handle)
        owner = make_runner(self.dispatcher.handle_owner)
        self._servers = [public, owner]
        for server in self._servers:
            await server.setup()
        await web.SockSite(owner, owner_socket(self.resources.state)).start()
        await web.SockSite(
            public, self.resources.process.socket, ssl_context=self.resources.tls, backlog=BACKLOG
        ).start()

    # -- facts

    @property
    def hooks(self) -> Hooks:
        """What fires events at the handlers."""
        return self.resources.hooks

    @property
    def plugins(self) -> Plugins:
        """The plugins, generation after generation."""
        return self.resources.plugins

    @property
    def state(self) -> StateDirectory:
        """The places of this process in the state folder."""
        return self.resources.state

    @property
    def journal(self) -> Journal:
        """The journal of this process."""
        return self.resources.journal

    @property
    def inflight(self) -> Inflight:
        """The uploads on their way."""
        return self.endpoints.inflight

    @property
    def generated_token(self) -> str | None:
        """The token that this very start has made, to be shown once."""
        return self.resources.process.token

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are (or, while stopping, were) bound."""
        return self.resources.process.address

    @property
    def url(self) -> str:
        """Where a person on this machine finds the gateway."""
        return self.resources.process.url

    def describe(self) -> list[str]:
        """Return what a person wants to know at start: who authorizes, which plugin does what."""
        lines = self.resources.plugins.describe()
        if self.hooks.replaces_authorization():
            lines.append("uploads are authorized by the plugins")
        else:
            said = "" if self.settings.auth_explicit else " (not said aloud: loopback only, no proxies)"
            lines.append(f"uploads are authorized by --auth {self.settings.auth}{said}")
        return lines

    def introduce(self) -> None:
        """Log the description, once for all processes."""
        if self.resources.process.slot == 0:
            for line in self.describe():
                log.info("%s", line)

    # -- changing and ending

    async def reload(self) -> None:
        """Take new plugins and certificates (SIGHUP); any fault keeps the old ones and is logged."""
        resources = self.resources
        try:
            # On a context of its own: one that takes half of a pair serves nobody any more.
            await asyncio.to_thread(tls_context, self.settings)
            await asyncio.to_thread(resources.installation.read_certificate)
            await asyncio.to_thread(resources.tree.reload_protected, resources.protected())
            await resources.plugins.reload()  # last: a fault behind it would leave new plugins unheard
        except ConfigError as fault:
            log.error("the reload failed, all stays as it was:\n%s", fault)
            return
        except Exception:
            log.exception("the reload failed, all stays as it was")
            return
        if resources.tls is not None:
            with contextlib.suppress(ConfigError):  # it was good just now
                load_certificate(resources.tls, self.settings)
        await self.delivery.refresh()
        self.scheduler.refresh(self._schedules())
        log.info("reloaded: generation %d of the plugins", resources.plugins.current.number)
        self.introduce()

    async def stop(self) -> None:
        """Stop accepting, finish requests up to the grace time, hand unfinished events back."""
        self.dispatcher.stopping = True
        for server in self._servers:
            for site in list(server.sites):
                await site.stop()
        grace = self.settings.grace
        for chore in self._house:
            chore.cancel()
        await self.scheduler.stop()
        await asyncio.gather(self.dispatcher.drain(grace), self.delivery.stop(grace))
        await asyncio.gather(*(server.cleanup() for server in self._servers))
        await self.endpoints.close()
        if self.resources.object_backend is not None:
            await self.resources.object_backend.close()
        for clients in self.resources.s3_clients:
            await clients.close()
        await self.hooks.close(1.0)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.resources.state.socket.unlink()
        self._opened.close()
