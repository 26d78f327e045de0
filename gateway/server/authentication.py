"""Opens what authenticates the requests of one process, and the endpoint at which people sign in."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import NamedTuple

from gateway.auth.authenticator import Auth
from gateway.auth.sessions.access import SessionAccess
from gateway.auth.sessions.cookie import SessionCookie
from gateway.auth.sessions.sessions import Sessions
from gateway.auth.sessions.sign_in import FailureLimit, SignIn
from gateway.auth.sessions.store import SessionStore
from gateway.auth.tokens import tokens_of
from gateway.endpoints.console.session import SessionEndpoint
from gateway.server.resources import Resources
from gateway.telemetry.metrics import Metrics


class Authentication(NamedTuple):
    """What authenticates requests, and the endpoint."""

    auth: Auth
    endpoint: SessionEndpoint


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
    return Authentication(auth, SessionEndpoint(settings, auth, access, sign_in))
