"""Issuers of OpenID Connect for tests: a real one, and one that lies as a test wants."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from aiohttp import web

from tests.support.harness import TIMEOUT, RawResponse, get, wait_until
from tests.support.jwt.issuing import FakeIssuer, Pair
from tests.support.node import SCRIPTS, node_modules

CLIENT: Final = "gateway"
CALLBACK: Final = "/-/session/oidc/callback"


@contextlib.asynccontextmanager
async def real_issuer(port: int, redirect_uri: str, people: Mapping[str, Any]) -> AsyncIterator[str]:
    """Run oidc-provider on a reserved port; return its URL. The secret of the client is 40 times `s`."""
    folder = await asyncio.to_thread(node_modules)
    client = {"client_id": CLIENT, "client_secret": "s" * 40, "redirect_uris": [redirect_uri]}
    job = {"modules": str(folder), "port": port, "clients": [client], "people": people}
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPTS / "issuer.mjs"), json.dumps(job), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT):
            assert await process.stdout.readline() == b"ready\n"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


@dataclass
class LyingIssuer(FakeIssuer):
    """Gives out, for any code, an ID token with the claims and the signature that a test wants."""

    more: dict[str, Any] = field(default_factory=dict)
    """Claims beside the good ones; None takes one out."""
    pair: Pair | None = None
    id_token: str | None = None
    error: tuple[int, dict[str, Any]] | None = None
    hangs: bool = False
    nonce: str = ""
    exchanges: list[dict[str, str]] = field(default_factory=list)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        names = {"authorization_endpoint": f"{self.url}/auth", "token_endpoint": f"{self.url}/token"}
        if not isinstance(self.discovery, bytes):
            self.discovery = {**names, **self.discovery}
        if request.path != "/token":
            return await super().answer(request)
        if self.hangs:
            await wait_until(lambda: request.transport is None or request.transport.is_closing())
        self.exchanges.append(dict(parse_qsl((await request.read()).decode())))
        if self.error is not None:
            return web.json_response(self.error[1], status=self.error[0])
        claims = {"aud": CLIENT, "nonce": self.nonce, "preferred_username": "ann", **self.more}
        token = self.id_token or self.token(self.pair, **claims)
        return web.json_response({"id_token": token, "access_token": "a", "token_type": "Bearer"})


@dataclass
class Attempt:
    """A sign-in that has begun in one browser."""

    cookie: str
    query: dict[str, str]

    def answer(self, **more: str) -> str:
        """Return the target to which the issuer sends the browser back."""
        fields = {"state": self.query["state"], "code": "c0de", **more}
        return f"{CALLBACK}?" + "&".join(f"{name}={value}" for name, value in fields.items())


async def begin(gateway: Any, issuer: LyingIssuer | None = None, back: str = "/") -> Attempt:
    """Begin a sign-in in a new browser; the issuer learns the nonce."""
    response = await get(gateway, f"/-/session/oidc?return={back}")
    assert response.status == 303, response.body
    query = dict(parse_qsl(urlsplit(response.headers["Location"]).query))
    if issuer is not None:
        issuer.nonce = query["nonce"]
    return Attempt(response.headers["Set-Cookie"].partition(";")[0], query)


async def finish(gateway: Any, attempt: Attempt, *lines: str, **more: str) -> RawResponse:
    """Go back to the gateway as the issuer says."""
    return await get(gateway, attempt.answer(**more), f"Cookie: {attempt.cookie}", *lines)
