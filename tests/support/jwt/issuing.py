"""An issuer of JSON Web Tokens for tests: real keys, real HTTP, and every misbehaviour on demand."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

AUDIENCE = "photos"
LIFETIME = 86_400
"""Seconds: tokens that are made while tests are collected still count when the last one runs."""


@dataclass(frozen=True)
class Pair:
    """A key pair: what signs, and the JWK that an issuer publishes of it."""

    kid: str | None
    algorithm: str
    private: Any
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def jwk(self) -> dict[str, Any]:
        values = get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key(), as_dict=True)
        named = {} if self.kid is None else {"kid": self.kid}
        return {**values, "use": "sig", "alg": self.algorithm, **named, **self.extra}

    def sign(self, claims: Mapping[str, Any], **header: Any) -> str:
        """Sign claims; what is given goes into the header (None takes it out)."""
        head = {"kid": self.kid, "alg": self.algorithm, "typ": "JWT", **header}
        return signed(
            {name: value for name, value in head.items() if value is not None},
            claims,
            self.algorithm,
            self.private,
        )


def signed(header: Mapping[str, Any], claims: Any, algorithm: str, key: Any) -> str:
    """Put a token together by hand: the header may lie about the algorithm that signs."""
    body = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    signing = f"{b64(json.dumps(header).encode())}.{b64(body)}"
    maker = get_default_algorithms()[algorithm]
    return f"{signing}.{b64(maker.sign(signing.encode(), maker.prepare_key(key)))}"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@functools.cache
def rsa_private(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """A key a name; making one takes a while."""
    del name
    return rsa.generate_private_key(65537, bits)


def rsa_pair(kid: str | None = "r1", algorithm: str = "RS256", **extra: Any) -> Pair:
    return Pair(kid, algorithm, rsa_private(str(kid)), extra)


def ec_pair(kid: str | None = "e1") -> Pair:
    return Pair(kid, "ES256", ec.generate_private_key(ec.SECP256R1()))


def ed_pair(kid: str | None = "d1") -> Pair:
    return Pair(kid, "EdDSA", ed25519.Ed25519PrivateKey.generate())


def claims(issuer: str, **more: Any) -> dict[str, Any]:
    """Good claims; None takes one out."""
    now = int(time.time())
    values = {"iss": issuer, "sub": "ann", "aud": AUDIENCE, "iat": now, "exp": now + LIFETIME, **more}
    return {name: value for name, value in values.items() if value is not None}


@dataclass
class FakeIssuer:
    """Serves discovery and keys. What is set here is what the next question gets."""

    pairs: list[Pair] = field(default_factory=lambda: [rsa_pair()])
    document: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    discovery: dict[str, Any] | bytes = field(default_factory=dict)
    """What is added to the discovery document, or its bytes."""
    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    requested_paths: list[str] = field(default_factory=list)
    url: str = ""

    def __post_init__(self) -> None:
        self.may_answer.set()

    @property
    def key_requests(self) -> int:
        """How often the keys were requested."""
        return self.requested_paths.count("/keys")

    def token(self, pair: Pair | None = None, /, **more: Any) -> str:
        """A valid token, but for the claims in `more`."""
        return (pair or self.pairs[0]).sign(claims(self.url, **more))

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.requested_paths.append(request.path)
        await self.may_answer.wait()
        if request.path == "/.well-known/openid-configuration":
            if isinstance(self.discovery, bytes):
                return web.Response(body=self.discovery)
            extra = {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.discovery}
            return web.json_response(extra)
        body = self.document
        if body is None:
            body = json.dumps({"keys": [pair.jwk for pair in self.pairs]}).encode()
        return web.Response(status=self.status, body=body, headers=self.headers)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FakeIssuer]:
        """Serve on a free port of this machine until the end of the block."""
        runner = web.ServerRunner(web.Server(self.answer, access_log=None))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            self.may_answer.set()
            await runner.cleanup()


def flags(issuer: FakeIssuer, **more: object) -> dict[str, object]:
    """The settings of a gateway that believes this issuer."""
    return {"jwt_issuer": issuer.url, "jwt_audience": [AUDIENCE], **more}


def symmetric(secret: bytes, claims: Mapping[str, Any], **header: Any) -> str:
    """A token signed with a shared secret (what the public key is to somebody who has only that)."""
    head = {"alg": "HS256", "typ": "JWT", **header}
    signing = f"{b64(json.dumps(head).encode())}.{b64(json.dumps(claims).encode())}"
    maker = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    return f"{signing}.{b64(maker.sign(signing.encode(), secret))}"
