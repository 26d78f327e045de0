"""Puts ground, doors and what lives beside them together into a gateway, and takes it down again.

`Gateway.prepare` opens the ground, `start` the rooms that live on the loop in the order in which
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

    `seat` comes from a supervisor; without one the gateway is the only process of its directory.
    """

    settings: Settings
    seat: ProcessContext | None = None
    ground: Resources = field(init=False)
    delivering: EventDelivery = field(init=False)
    timetable: Scheduler = field(init=False)
    doors: Endpoints = field(init=False)
    entrance: Dispatcher = field(init=False)
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
            if self.seat is None:  # no supervisor gave us one: the premises are ours alone
                premises = SharedResources(self.settings)
                premises.open()
                opened.callback(premises.close)
                self.seat = premises.seat(0)
            self.ground = Resources(self.settings, self.seat)
            self.ground.open()
            opened.callback(self.ground.close)
            self._opened = opened.pop_all()

    async def start(self) -> None:
        """Start the threads and the runner, then take requests."""
        await self.hooks.start()
        self.ground.committer.start()
        if self.ground.depot is not None:
            await self.ground.depot.start()
        self.delivering = EventDelivery(self.ground, self.metrics)
        self.doors = Endpoints(self.ground, self.metrics, self.delivering.ledgers)
        self.entrance = await self.doors.open()
        await self.delivering.start()
        self.timetable = Scheduler(
            self.journal.outbox, self.journal.ticks, ledger=self.delivering.ledgers.get("nats")
        )
        await self.timetable.start(self._schedules())
        kept = self.settings.retention, self.settings.relayed_retention
        chores = self.journal.ledger.keep_house(*kept), self._sweep()
        self._house = [asyncio.create_task(chore) for chore in chores]
        await self._listen()

    def _schedules(self) -> dict[str, Schedule]:
        """Return what this process has to tick: one process of a node does."""
        return self.plugins.current.schedules if self.ground.seat.slot == 0 else {}

    async def _sweep(self) -> None:
        """Let go of one-time URLs that expired long ago, until cancelled: one process of a node does."""
        while self.ground.seat.slot == 0:
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self.ground.once.remove_expired)
            await asyncio.sleep(SWEEP_SECONDS)

    async def _listen(self) -> None:
        """Take requests on the port, and the owner's on the Unix socket."""
        public = make_runner(self.entrance.handle)
        owner = make_runner(self.entrance.handle_owner)
        self._servers = [public, owner]
        for server in self._servers:
            await server.setup()
        await web.SockSite(owner, owner_socket(self.ground.state)).start()
        await web.SockSite(
            public, self.ground.seat.socket, ssl_context=self.ground.tls, backlog=BACKLOG
        ).start()

    # -- facts

    @property
    def hooks(self) -> Hooks:
        """What fires events at the handlers."""
        return self.ground.hooks

    @property
    def plugins(self) -> Plugins:
        """The plugins, generation after generation."""
        return self.ground.plugins

    @property
    def state(self) -> StateDirectory:
        """The places of this process in the state folder."""
        return self.ground.state

    @property
    def journal(self) -> Journal:
        """The journal of this process."""
        return self.ground.journal

    @property
    def inflight(self) -> Inflight:
        """The uploads on their way."""
        return self.doors.inflight

    @property
    def generated_token(self) -> str | None:
        """The token that this very start has made, to be shown once."""
        return self.ground.seat.token

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are (or, while stopping, were) bound."""
        return self.ground.seat.address

    @property
    def url(self) -> str:
        """Where a person on this machine finds the gateway."""
        return self.ground.seat.url

    def describe(self) -> list[str]:
        """Return what a person wants to know at start: who authorizes, which plugin does what."""
        lines = self.ground.plugins.describe()
        if self.hooks.replaces_authorization():
            lines.append("uploads are authorized by the plugins")
        else:
            said = "" if self.settings.auth_explicit else " (not said aloud: loopback only, no proxies)"
            lines.append(f"uploads are authorized by --auth {self.settings.auth}{said}")
        return lines

    def introduce(self) -> None:
        """Log the description, once for all processes."""
        if self.ground.seat.slot == 0:
            for line in self.describe():
                log.info("%s", line)

    # -- changing and ending

    async def reload(self) -> None:
        """Take new plugins and certificates (SIGHUP); any fault keeps the old ones and is logged."""
        ground = self.ground
        try:
            # On a context of its own: one that takes half of a pair serves nobody any more.
            await asyncio.to_thread(tls_context, self.settings)
            await asyncio.to_thread(ground.installation.read_certificate)
            await asyncio.to_thread(ground.tree.reload_protected, ground.protected())
            await ground.plugins.reload()  # last: a fault behind it would leave new plugins unheard
        except ConfigError as fault:
            log.error("the reload failed, all stays as it was:\n%s", fault)
            return
        except Exception:
            log.exception("the reload failed, all stays as it was")
            return
        if ground.tls is not None:
            with contextlib.suppress(ConfigError):  # it was good just now
                load_certificate(ground.tls, self.settings)
        await self.delivering.refresh()
        self.timetable.refresh(self._schedules())
        log.info("reloaded: generation %d of the plugins", ground.plugins.current.number)
        self.introduce()

    async def stop(self) -> None:
        """Stop accepting, finish requests up to the grace time, hand unfinished events back."""
        self.entrance.stopping = True
        for server in self._servers:
            for site in list(server.sites):
                await site.stop()
        grace = self.settings.grace
        for chore in self._house:
            chore.cancel()
        await self.timetable.stop()
        await asyncio.gather(self.entrance.quiet(grace), self.delivering.stop(grace))
        await asyncio.gather(*(server.cleanup() for server in self._servers))
        await self.doors.close()
        if self.ground.depot is not None:
            await self.ground.depot.close()
        for clients in self.ground.clients:
            await clients.close()
        await self.hooks.close(1.0)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.ground.state.socket.unlink()
        self._opened.close()
