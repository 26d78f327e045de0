"""Assembles a worker: it runs handlers and nothing else, on any machine that reaches NATS.

The rule: it owns no directory, no journal and no upload. What it is killed over comes to another
node when its lease has run out; what it gives back on a stop has used no attempt.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.auth.authenticator import Auth, tokens_of
from gateway.auth.installation import KEY_FILE, Installation, audience, installation_keys
from gateway.auth.links import SignedUrlFactory, nobody_signs
from gateway.auth.request import IncomingRequest
from gateway.domain.addresses import Address, host_port
from gateway.endpoints.routing.plugin import routing_kind
from gateway.errors import ConfigError, Refusal
from gateway.events.nats import make_engine
from gateway.events.runner import Runner
from gateway.files.peers import Peers
from gateway.files.service import FilesService, SharedDisk
from gateway.http.protocol import make_runner
from gateway.http.responses import json_response, refusal_response
from gateway.http.sockets import listening_socket, tls_context
from gateway.plugins import KINDS, Plugins
from gateway.plugins.hooks import Hooks
from gateway.plugins.scripting import Services
from gateway.plugins.secrets import secret_keys
from gateway.records import open_records, secrets_of
from gateway.server.plugin_dispatcher import PluginDispatcher
from gateway.settings import Settings
from gateway.storage.local.state_dir import existing_slots
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.telemetry import logs
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.events.nats.engine import NatsEngine

log = logging.getLogger("gateway")

BACKLOG = 128


@dataclass(slots=True)
class Worker:
    """A running worker."""

    settings: Settings
    plugins: Plugins = field(init=False)
    hooks: Hooks = field(init=False)
    nats: NatsEngine = field(init=False)
    runner: Runner = field(init=False)
    metrics: Metrics = field(default_factory=Metrics)
    _auth: Auth = field(init=False)
    _files: FilesService = field(init=False)
    _socket: socket.socket = field(init=False)
    _server: web.ServerRunner = field(init=False)
    _opened: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def prepare(self) -> None:
        """Load plugins, bind the port. Blocking. Raises `ConfigError`."""
        settings = self.settings
        if settings.events == "journal":
            raise ConfigError("a worker needs NATS: say where it is with --events nats://HOST")
        if settings.installation_key_file is None and not (settings.state / KEY_FILE).exists():
            raise ConfigError(
                "a worker fetches files with the key of the installation: copy it here and name it"
                " with --installation-key-file"
            )
        with contextlib.ExitStack() as opened:
            self._open(opened)
            self._opened = opened.pop_all()

    def _open(self, opened: contextlib.ExitStack) -> None:
        settings, services = self.settings, Services()
        self._socket = opened.enter_context(contextlib.closing(listening_socket(settings)))
        installation = Installation(settings, installation_keys(settings), lambda: self.address)
        self._auth = Auth(settings, tokens_of(settings), installation)
        tree = DirectoryTree(settings.directory, [settings.state, *settings.plugins])
        opened.callback(tree.close)
        peers = Peers(installation, lambda: None, _first_of(settings.peers))
        storage = peers.latest_storage()
        disk = SharedDisk(LocalStorage(tree), settings.directory)
        self._files = FilesService(storage, peers=peers, disk=disk)
        self._files.saver.store_with(storage.send_upload)
        services.files = self._files
        records = open_records(settings, file_is_local=bool(existing_slots(settings.state)))
        opened.callback(records.close)
        services.records = records
        links = SignedUrlFactory(
            settings, installation.urls, lambda: settings.public_url or nobody_signs()
        )
        services.sign_url = links.sign_url
        services.credentials_for = installation.credentials_for
        issuer = settings.jwt_issuer is not None
        kinds = (*KINDS, routing_kind(settings.file_upload_api_path, issuer=issuer))
        self.plugins = Plugins(settings.plugins, services, kinds, lambda: secret_keys(settings))
        self.plugins.mask.add_secrets(key.get_secret_value() for key in settings.secrets_key)
        self.plugins.mask.add_secrets(secrets_of(settings))
        logs.set_mask(self.plugins.mask)
        opened.callback(self.plugins.close)
        self.plugins.load()
        self.hooks = Hooks(self.plugins)
        self.nats = make_engine(settings, f"{socket.gethostname()}/{os.getpid()}")
        self.metrics.gauge(
            "gateway_engine_ready", "Whether NATS can be reached", lambda: self.nats.ready
        )

    async def start(self) -> None:
        """Begin to deliver; returns when NATS has been reached."""
        await self.hooks.start()
        self._server = make_runner(self._handle)
        await self._server.setup()
        tls = tls_context(self.settings)
        await web.SockSite(self._server, self._socket, ssl_context=tls, backlog=BACKLOG).start()
        self.nats.start()
        dispatcher = PluginDispatcher(self.hooks, self._files)
        self.runner = Runner(self.nats.queue, dispatcher, self.metrics)
        await self.nats.wait_ready()
        await self.runner.start(self.hooks.handler_specs())

    async def reload(self) -> None:
        """Take new plugins (SIGHUP); any fault keeps the old ones and is logged."""
        try:
            await self.plugins.reload()
        except ConfigError as fault:
            log.error("the reload failed, all stays as it was:\n%s", fault)
            return
        await self.runner.refresh(self.hooks.handler_specs())
        log.info("reloaded: generation %d of the plugins", self.plugins.current.number)

    async def stop(self) -> None:
        """Claim no more, wait up to the grace time for runs, hand the unfinished ones back."""
        if hasattr(self, "runner"):
            await self.runner.stop(self.settings.grace)
        await self.nats.close()
        await self._server.cleanup()
        await self.hooks.close(1.0)
        self._opened.close()

    # -- facts

    @property
    def address(self) -> tuple[str, int]:
        """The address and port that are bound."""
        host, port = self._socket.getsockname()[:2]
        return str(host), int(port)

    def describe(self) -> str:
        """Return the line that says that it works."""
        scheme = "https" if self.settings.tls_cert else "http"
        count = len(self.hooks.handler_specs())
        handlers = "1 handler" if count == 1 else f"{count} handlers"
        return f"working on {self.nats.shown} for {handlers}, health at {scheme}://{host_port(*self.address)}/-/health"

    # -- its few pages

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._answer(request)
        except Refusal as refusal:
            answer = refusal_response(refusal)
        if request.body_exists:
            answer.force_close()
        return answer

    async def _answer(self, request: web.BaseRequest) -> web.Response:
        incoming = IncomingRequest(request)
        raw_path = incoming.raw_path
        if request.method not in {"GET", "HEAD"}:
            raise Refusal("method_not_allowed", "a worker is only looked at", {"Allow": "GET, HEAD"})
        if raw_path == "/-/health":
            return json_response({"status": "ok"})
        if raw_path == "/-/ready":
            checks = {"engine": self.nats.ready, "scripts": self.hooks.alive}
            ready = all(checks.values())
            return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)
        if raw_path != "/-/metrics":
            raise Refusal("not_found", "a worker has /-/health, /-/ready and /-/metrics")
        self._auth.refuse_unknown_proxy(request.headers)
        caller = await self._auth.authenticate(incoming)
        self._auth.authorize(caller.principal)
        body = await asyncio.to_thread(self.metrics.render)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _first_of(peers: Sequence[Address]) -> str | None:
    """Return the base URL of the gateway that was named first."""
    return f"http://{audience(*peers[0])}" if peers else None
