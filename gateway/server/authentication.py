"""Opens what authenticates the requests of one process, and the endpoint at which people sign in."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.oidc.pending import PendingSigner
from gateway.auth.sessions.access import SessionAccess, oidc_source
from gateway.auth.sessions.cookie import SessionCookie
from gateway.auth.sessions.sessions import Sessions
from gateway.auth.sessions.sign_in import FailureLimit, SignIn
from gateway.auth.sessions.store import SessionStore
from gateway.auth.tokens import tokens_of
from gateway.endpoints.console.oidc import OidcEndpoint
from gateway.endpoints.console.session import SessionEndpoint
from gateway.http.responses import ApiHandler
from gateway.server.resources import Resources
from gateway.storage.keyfile import GROUP_MAY_READ, read_key_file
from gateway.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from gateway.auth.oidc.flow import OidcFlow


class Authentication(NamedTuple):
    """What authenticates requests, and the handlers of the endpoints."""

    auth: Auth
    handlers: Mapping[str, ApiHandler]


async def open_authentication(
    stack: AsyncExitStack, resources: Resources, metrics: Metrics
) -> Authentication:
    """Open it on this event loop; `stack` closes it."""
    settings, verifier, base = resources.settings, None, resources.base
    if settings.jwt_issuer is not None:
        from gateway.auth.jwt.verifier import Verifier  # most gateways do not need its libraries

        verifier = await stack.enter_async_context(Verifier(settings))
        metrics.gauge(
            "gateway_issuer_ready", "Whether JSON Web Tokens can be verified", lambda: verifier.ready
        )
    watcher = base.keys
    stack.push_async_callback(asyncio.to_thread, watcher.close)
    watcher.start()
    auth = Auth(settings, tokens_of(settings), base.installation, verifier, watcher.keys)
    sessions = Sessions(SessionStore(settings.state), base.shared.session_changes, settings.session_ttl)
    await sessions.refresh()
    cookie = SessionCookie(base.installation.sign_in.cookie_name(str(settings.state)))
    auth.sessions = access = SessionAccess(settings, sessions, cookie, watcher.keys)
    limit = FailureLimit(base.shared.rate_counters)
    sign_in = SignIn(settings, auth.tokens, watcher.keys, limit, verifier)
    flow = await _open_flow(stack, resources, access, limit)
    endpoints = (
        SessionEndpoint(settings, auth, access, sign_in),
        OidcEndpoint(settings, auth, access, flow),
    )
    return Authentication(auth, endpoints[0].handlers() | endpoints[1].handlers())


async def _open_flow(
    stack: AsyncExitStack, resources: Resources, access: SessionAccess, limit: FailureLimit
) -> OidcFlow | None:
    """Open the sign-in with OpenID Connect, None where the settings name no issuer."""
    settings = resources.settings
    if oidc_source(settings) is None:
        return None
    from gateway.auth.oidc.flow import OidcFlow  # most gateways do not need its libraries
    from gateway.auth.oidc.provider import OidcProvider

    path = settings.oidc_client_secret_file
    secret = None if path is None else read_key_file(path, GROUP_MAY_READ).decode().strip()
    provider = await stack.enter_async_context(OidcProvider(settings, secret))
    signer = PendingSigner(resources.base.installation.sign_in)
    return OidcFlow(settings, provider, signer, access, limit)
