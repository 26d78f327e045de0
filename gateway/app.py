"""Assembles every room into a gateway; the only file that knows them all.

`Gateway.start` opens things in the order in which they depend on each other, `stop` closes them in
reverse, `handle` is the one road of every request: decide, answer, count, log. May import
everything but the commands.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import web

from gateway import auth as authorization
from gateway import logs
from gateway.commit.batch import Steps
from gateway.commit.committer import Committer
from gateway.commit.files import CommittedFiles
from gateway.commit.recover import recover
from gateway.commit.reserve import Reserve
from gateway.entrance import Entrance
from gateway.errors import ConfigError
from gateway.events.journal import Journal
from gateway.events.runner import Runner
from gateway.hooks import Hooks
from gateway.inflight import Inflight
from gateway.installation import Installation, installation_key
from gateway.listening import listening_socket, load_certificate, owner_socket, tls_context
from gateway.metrics import Metrics
from gateway.model import Delivery
from gateway.observe import Observe
from gateway.plugins import KINDS, Plugins
from gateway.routing.plugin import routing_kind
from gateway.routing.proxy import Proxy
from gateway.routing.steps import Routing
from gateway.scripting import Services
from gateway.secrets import keys_of
from gateway.server import make_runner
from gateway.settings import Settings
from gateway.storage.incoming import Incoming
from gateway.storage.state import State
from gateway.storage.tree import Tree
from gateway.uploads.admission import Admission
from gateway.uploads.fastpath import Roads
from gateway.uploads.put import Uploads

log = logging.getLogger("gateway")

DISK_THREADS = min(8, (os.cpu_count() or 1) + 2)
BACKLOG = 1024


@dataclass(slots=True)
class Gateway:
    """A running gateway. `settings.port` 0 becomes a real port in `address`."""

    settings: Settings
    state: State = field(init=False)
    installation: Installation = field(init=False)
    plugins: Plugins = field(init=False)
    hooks: Hooks = field(init=False)
    journal: Journal = field(init=False)
    incoming: Incoming = field(init=False)
    tree: Tree = field(init=False)
    reserve: Reserve = field(init=False)
    committer: Committer = field(init=False)
    runner: Runner = field(init=False)
    roads: Roads = field(init=False)
    inflight: Inflight = field(init=False)
    proxy: Proxy = field(init=False)
    entrance: Entrance = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    generated_token: str | None = None
    _socket: socket.socket = field(init=False)
    _bound: tuple[str, int] = field(init=False)
    _tls: ssl.SSLContext | None = None
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _servers: list[web.ServerRunner] = field(default_factory=list)
    _services: Services = field(default_factory=Services)
    _disk: ThreadPoolExecutor = field(init=False)
    _loop: asyncio.AbstractEventLoop = field(init=False)

    # -- starting

    def prepare(self) -> None:
        """Take the directory, load plugins, open the journal and settle what a crash left.

        Blocking, before any port opens. Raises `ConfigError`.
        """
        with contextlib.ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()

    def _open(self, opened: contextlib.ExitStack) -> None:
        settings = self.settings
        self.state = State(settings.state)
        self.state.prepare()
        self.state.lock()
        opened.callback(self.state.unlock)
        if settings.auth == "token" and not authorization.tokens_of(settings):
            self.generated_token = authorization.ensure_token(settings.state)
        self._tls = tls_context(settings)
        self.incoming = Incoming(self.state.incoming)
        opened.callback(self.incoming.close)
        self.tree = Tree(settings.directory, self._protected(), self.incoming.device)
        opened.callback(self.tree.close)
        self.journal = Journal(self.state.journal, full=settings.durability == "full")
        self._disk = ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk")
        self.reserve = Reserve(self.incoming.fd, self.settings.min_free_bytes)
        self.committer = self._make_committer()
        self._services.files = CommittedFiles(self.tree, self.journal.outbox, self.committer)
        self.installation = Installation(settings, installation_key(settings), lambda: self.address)
        self._services.own_endpoint = lambda: self.installation.own_url
        self._services.recognise = self.installation.recognise
        kinds = (*KINDS, routing_kind(settings.file_upload_api_path))
        self.plugins = Plugins(settings.plugins, self._services, kinds, lambda: keys_of(settings))
        self.plugins.mask.learn(key.get_secret_value() for key in settings.secrets_key)
        logs.mask_with(self.plugins.mask)
        opened.callback(self.plugins.close)
        self.plugins.load()
        self.journal.open()
        opened.callback(self.journal.close)
        self.state.sync()
        recover(self.incoming, self.journal)
        self._socket = listening_socket(settings)
        opened.callback(self._socket.close)
        host, port = self._socket.getsockname()[:2]
        self._bound = str(host), int(port)

    async def start(self) -> None:
        """Start the threads and the runner, then take requests."""
        self._loop = asyncio.get_running_loop()
        self.hooks = Hooks(self.plugins)
        self.inflight = Inflight()
        self.metrics.gauge("gateway_uploads_active", "Uploads on their way", lambda: len(self.inflight))
        await self.hooks.start()
        self.committer.start()
        self.runner = self._make_runner()
        self.entrance = await self._make_entrance()
        await self.runner.start(self.hooks.uploaded_specs())
        await self._listen()

    def _make_committer(self) -> Committer:
        durable = self.settings.durability == "full"
        steps = Steps(
            self.tree,
            self.incoming,
            self.journal.outbox,
            self.reserve,
            slot=self.state.slot,
            durable=durable,
            handlers=lambda: [spec.name for spec in self.hooks.uploaded_specs()],
        )
        return Committer(
            steps, self.journal.outbox, durable=durable, on_release=self._released, disk=self._disk
        )

    def _released(self) -> None:
        """Wake the runner; called in the journal's thread, maybe after the loop has ended."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.runner.wake)

    def _make_runner(self) -> Runner:
        return Runner(
            self.journal.queue,
            self.journal.ledger,
            deliver=self.hooks.deliver,
            complete=self.complete,
            observe=self.metrics.ran,
            retention=self.settings.retention,
        )

    async def _make_entrance(self) -> Entrance:
        settings = self.settings
        auth = authorization.Auth(settings, authorization.tokens_of(settings), self.installation)
        admission = Admission(
            settings, auth, self.hooks, self.tree, self.reserve, self.inflight, self._disk
        )
        self.roads = Roads(self.inflight, self._disk, settings.idle_timeout)
        await self.roads.open()
        uploads = Uploads(
            settings,
            admission,
            self.incoming,
            self.committer,
            hooks=self.hooks,
            inflight=self.inflight,
            metrics=self.metrics,
            roads=self.roads,
            slot=self.state.slot,
        )
        self.proxy = Proxy(auth.trusts)
        await self.proxy.start()
        routing = Routing(
            settings, self.plugins, auth=auth, hooks=self.hooks, proxy=self.proxy, metrics=self.metrics
        )
        observe = Observe(
            self.journal.ledger, self.inflight, self.reserve, self.hooks, self.metrics, routing.openapi
        )
        return Entrance(settings, auth, uploads, routing, observe, self.metrics)

    async def _listen(self) -> None:
        """Take requests on the port, and the owner's on the Unix socket."""
        public = make_runner(self.entrance.handle)
        owner = make_runner(self.entrance.handle_owner)
        self._servers = [public, owner]
        for server in self._servers:
            await server.setup()
        await web.SockSite(owner, owner_socket(self.state)).start()
        await web.SockSite(public, self._socket, ssl_context=self._tls, backlog=BACKLOG).start()

    # -- facts

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are (or, while stopping, were) bound."""
        return self._bound

    @property
    def url(self) -> str:
        """Where a person on this machine finds the gateway."""
        host, port = self.address
        shown = f"[{host}]" if ":" in host else host
        return f"{'https' if self._tls else 'http'}://{shown}:{port}"

    @property
    def advertised(self) -> tuple[str, int]:
        """The address and port that events name: never `all interfaces`."""
        if self.settings.advertise is not None:
            return self.settings.advertise.host, self.settings.advertise.port
        host, port = self.address
        return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host), port  # noqa: S104

    def complete(self, delivery: Delivery) -> dict[str, Any]:
        """Return the event that a handler gets: the journalled part and what is known only now."""
        return delivery.event_at(*self.advertised, self.settings.directory)

    def describe(self) -> list[str]:
        """Return what a person wants to know at start: who authorizes, which plugin does what."""
        lines = self.plugins.describe()
        if self.hooks.replaces_authorization():
            lines.append("uploads are authorized by the plugins")
        else:
            said = "" if self.settings.auth_said else " (not said aloud: loopback only, no proxies)"
            lines.append(f"uploads are authorized by --auth {self.settings.auth}{said}")
        return lines

    def _protected(self) -> list[Path]:
        """Places that no upload may reach, beside the state folder."""
        s = self.settings
        singles = (s.config, s.tls_cert, s.tls_key, s.installation_key_file, s.secrets_key_file)
        return [s.state, *s.plugins, *(place for place in singles if place is not None)]

    # -- changing and ending

    async def reload(self) -> None:
        """Take new plugins and certificates (SIGHUP); any fault keeps the old ones and is logged."""
        try:
            await self.plugins.reload()
            if self._tls is not None:
                load_certificate(self._tls, self.settings)
                await asyncio.to_thread(self.installation.read_certificate)
            await asyncio.to_thread(self.tree.refresh, self._protected())
        except ConfigError as fault:
            log.error("the reload failed, all stays as it was:\n%s", fault)
            return
        except Exception:
            log.exception("the reload failed, all stays as it was")
            return
        await self.runner.refresh(self.hooks.uploaded_specs())
        log.info("reloaded: generation %d of the plugins", self.plugins.current.number)
        for line in self.describe():
            log.info("%s", line)

    async def stop(self) -> None:
        """Stop accepting, finish requests up to the grace time, hand unfinished events back."""
        self.entrance.stopping = True
        for server in self._servers:
            for site in list(server.sites):
                await site.stop()
        grace = self.settings.grace
        await asyncio.gather(self.entrance.quiet(grace), self.runner.stop(grace))
        await asyncio.gather(*(server.cleanup() for server in self._servers))
        await self.proxy.close()
        await self.hooks.close(1.0)
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self.committer.close()
        self.roads.close()
        self._disk.shutdown()
        with contextlib.suppress(FileNotFoundError):
            self.state.socket.unlink()
        self._opened.close()
