"""Runs a worker: handlers and nothing else, on any machine that reaches NATS.

It owns no journal and no upload. Another node claims the deliveries of a worker that died, once
their lease has expired; one that is requeued at a stop has used no attempt.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from aiohttp import web
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gateway.auth.authenticator import Auth
from gateway.auth.installation import KEY_FILE, Installation, audience, installation_keys
from gateway.auth.request import IncomingRequest
from gateway.auth.signed_urls import SignedUrlFactory, no_public_url
from gateway.auth.tokens import tokens_of
from gateway.domain.addresses import Address, host_port
from gateway.errors import ConfigError, Refusal
from gateway.events.nats import make_engine
from gateway.events.runner import Runner
from gateway.files.peers import Peers
from gateway.files.service import FilesService, SharedDisk
from gateway.http.protocol import client_certificate, make_runner
from gateway.http.responses import json_response, refusal_response
from gateway.http.sockets import descriptors_left, listening_socket, tls_context
from gateway.plugins import Plugins
from gateway.plugins.hooks import Hooks
from gateway.records.collection import open_records
from gateway.server import forking
from gateway.server.delivery import PluginDispatcher
from gateway.server.script_services import HOOKS_GRACE, connect_services, load_plugins, make_plugins
from gateway.server.traces import open_traces
from gateway.settings import Settings
from gateway.storage.local.state_dir import existing_slots
from gateway.storage.local.storage import LocalStorage
from gateway.storage.local.tree import DirectoryTree
from gateway.telemetry.logs import event
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.events.nats.engine import NatsEngine

log = logging.getLogger("gateway")

BACKLOG: Final = 128


@dataclass(slots=True, frozen=True)
class WorkerResources:
    """What a worker needs. `close` closes all of it, and blocks."""

    settings: Settings
    port: socket.socket
    address: tuple[str, int]
    auth: Auth
    files: FilesService
    plugins: Plugins
    hooks: Hooks
    nats: NatsEngine
    _stack: ExitStack

    def close(self) -> None:
        """Close everything in reverse order."""
        self._stack.close()


def open_worker_resources(settings: Settings) -> WorkerResources:
    """Bind the port and load the plugins. Blocking. Raises `ConfigError`, and nothing stays open."""
    if settings.events == "journal":
        raise ConfigError("workers need NATS: add --events nats://HOST")
    if settings.installation_key_file is None and not (settings.state / KEY_FILE).exists():
        raise ConfigError(
            "a worker fetches files with the key of the installation: copy it here and name it"
            " with --installation-key-file"
        )
    with ExitStack() as stack:
        stack.enter_context(forking.withhold(settings.state))
        port = stack.enter_context(closing(listening_socket(settings)))
        host, number = port.getsockname()[:2]
        address = str(host), int(number)
        installation = Installation(settings, installation_keys(settings), address)
        auth = Auth(settings, tokens_of(settings), installation)
        plugins = make_plugins(settings, stack)
        node = f"{socket.gethostname()}/{os.getpid()}"
        open_traces(settings, node, 0, plugins.mask, stack)
        tree = DirectoryTree(settings.directory, [settings.state, *settings.plugins])
        stack.callback(tree.close)
        peers = Peers(installation, lambda: None, _first_peer_url(settings.peers))
        storage = peers.latest_storage()
        disk = SharedDisk(LocalStorage(tree), settings.directory)
        files = FilesService(storage, peers=peers, disk=disk)
        files.saver.store_with(storage.send_upload)
        records = open_records(settings, file_is_local=bool(existing_slots(settings.state)))
        stack.callback(records.close)
        links = SignedUrlFactory(
            settings, installation.urls, lambda: settings.public_url or no_public_url()
        )
        connect_services(plugins.services, files, records, links, installation)
        load_plugins(plugins)
        nats = make_engine(settings, node)
        hooks = Hooks(plugins)
        return WorkerResources(
            settings, port, address, auth, files, plugins, hooks, nats, stack.pop_all()
        )


@dataclass(slots=True, frozen=True)
class Worker:
    """A running worker."""

    resources: WorkerResources
    runner: Runner

    async def reload(self) -> None:
        """Load plugins anew (SIGHUP); any error keeps the old ones and is logged."""
        plugins = self.resources.plugins
        try:
            await plugins.reload()
        except ConfigError as error:
            log.error(
                "the reload failed, nothing has changed:\n%s", error, extra=event("plugins.rejected")
            )
            return
        await self.runner.refresh(self.resources.hooks.handler_specs())
        log.info("reloaded: plugin set %d", plugins.current.number, extra=event("plugins.reloaded"))

    def describe(self) -> str:
        """Return the ready line."""
        resources = self.resources
        scheme = "https" if resources.settings.tls_cert else "http"
        count = len(resources.hooks.handler_specs())
        handlers = "1 handler" if count == 1 else f"{count} handlers"
        health = f"{scheme}://{host_port(*resources.address)}/-/health"
        return f"working on {resources.nats.shown} for {handlers}, health at {health}"


@asynccontextmanager
async def running_worker(resources: WorkerResources) -> AsyncIterator[Worker]:
    """Run a worker, from when NATS has been reached, on resources that are closed with it.

    On exit it claims no more, waits up to the grace time for runs and requeues unfinished ones.
    """
    settings, hooks, nats, metrics = resources.settings, resources.hooks, resources.nats, Metrics()
    metrics.gauge("gateway_engine_ready", "Whether NATS can be reached", lambda: nats.ready)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, resources.close)
        await hooks.start()
        stack.push_async_callback(hooks.close, HOOKS_GRACE)
        server = make_runner(_WorkerPages(resources, metrics).handle)
        stack.push_async_callback(server.cleanup)
        await server.setup()
        tls = tls_context(settings)
        await web.SockSite(server, resources.port, ssl_context=tls, backlog=BACKLOG).start()
        stack.push_async_callback(nats.close)
        nats.start()
        runner = Runner(nats.queue, PluginDispatcher(hooks, resources.files), metrics)
        stack.push_async_callback(runner.stop, settings.grace)
        await nats.wait_ready()
        await runner.start(hooks.handler_specs())
        yield Worker(resources, runner)


@dataclass(slots=True, frozen=True)
class _WorkerPages:
    """Answers `/-/health`, `/-/ready` and `/-/metrics` of a worker."""

    resources: WorkerResources
    metrics: Metrics

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Serve a request."""
        try:
            response = await self._respond(request)
        except Refusal as refusal:
            response = refusal_response(refusal)
        if request.body_exists:
            response.force_close()
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        self.resources.auth.local_only.refuse_foreign_host(request.headers)
        incoming = IncomingRequest(request, client_certificate(request))
        if request.method not in {"GET", "HEAD"}:
            raise Refusal(
                "method_not_allowed", "a worker answers GET and HEAD only", {"Allow": "GET, HEAD"}
            )
        if incoming.raw_path == "/-/health":
            return json_response({"status": "ok"})
        if incoming.raw_path == "/-/ready":
            checks = {
                "engine": self.resources.nats.ready,
                "scripts": self.resources.hooks.alive,
                "descriptors": await asyncio.to_thread(descriptors_left),
            }
            ready = all(checks.values())
            return json_response({"ready": ready, "checks": checks}, 200 if ready else 503)
        if incoming.raw_path != "/-/metrics":
            raise Refusal("not_found", "a worker has /-/health, /-/ready and /-/metrics")
        auth = self.resources.auth
        auth.local_only.refuse_proxy(request.headers)
        caller = await auth.authenticate(incoming)
        auth.authorize(caller.principal)
        body = await asyncio.to_thread(self.metrics.render)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})


def _first_peer_url(peers: Sequence[Address]) -> str | None:
    """Return the base URL of the gateway that is named first."""
    return f"http://{audience(*peers[0])}" if peers else None
